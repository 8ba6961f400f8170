"""Loads and inserts of encrypted columns by SQLAlchemy and Django, beside plain columns and value by value.

PostgreSQL with psycopg 3, 1,000 rows of three texts, a real sidecar. Value by value is AES-GCM of `cryptography` with
one key in the process: no key management, no other process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from keyside.fields import counted
from keyside.sqlalchemy import install, uninstall
from sqlalchemy.orm import Session

from benchmarks.orm import PLAIN, ROWS, SECRET, Place, occurrences, place, values
from benchmarks.orm import models as tables
from benchmarks.stage import Stage, in_turns, median_ratio
from benchmarks.table import Row

REPEATS = 5  # of a load or insert in a round; the quickest counts


@dataclass(frozen=True)
class Kind:
    """One of the tables, as an ORM works on it."""

    insert: Callable[[list[list[str]]], None]
    load: Callable[[], list[list[str]]]
    empty: Callable[[], None]


Kinds = dict[str, Kind]  # plain, sealed, singly


def measure(stage: Stage) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="keyside-orm-") as folder, place(Path(folder)) as here:
        with sqlalchemy_kinds(here) as kinds:
            rows = one_orm(stage, "SQLAlchemy", kinds)
        with django_kinds(here) as kinds:
            rows += one_orm(stage, "Django", kinds)
        return [*rows, on_disk(here)]


def one_orm(stage: Stage, orm: str, kinds: Kinds) -> list[Row]:
    texts = {name: [values(SECRET if name == "sealed" else PLAIN, row) for row in range(ROWS)] for name in kinds}
    with counted() as trips:
        kinds["sealed"].insert(texts["sealed"])
    inserting = trips.count
    with counted() as trips:
        if kinds["sealed"].load() != texts["sealed"]:
            raise RuntimeError(f"{orm}: other values came back")
    loading = trips.count
    for name in ("plain", "singly"):
        kinds[name].insert(texts[name])
    loads = in_turns(stage.rounds, {name: partial(quickest, stage, kind.load) for name, kind in kinds.items()})
    inserts = in_turns(
        stage.rounds,
        {name: partial(quickest, stage, partial(kind.insert, texts[name]), kind.empty) for name, kind in kinds.items()},
    )
    what = f"{orm}, PostgreSQL, {ROWS:,} rows of 3"
    return [
        Row(f"{what}: round trips to load", "", loading, target="<= 1", met=loading == 1),
        Row(f"{what}: round trips to insert", "", inserting, target="<= 1", met=inserting == 1),
        *beside(f"{what}: load", loads, most=1.0),
        *beside(f"{what}: insert", inserts, most=None),
    ]


def beside(what: str, measured: dict[str, list[float]], most: float | None) -> Iterator[Row]:
    """`most`: the target beside value by value, which is one of reading alone."""
    ours = median(measured["sealed"]) * 1000
    references = (("plain", "plain columns", 1.5), ("singly", "value by value, one bare key", most))
    for name, reference, limit in references:
        ratio = median_ratio(measured["sealed"], measured[name])
        yield Row(
            what,
            "ms",
            ours,
            median(measured[name]) * 1000,
            reference,
            ratio,
            "" if limit is None else f"ratio <= {limit:g}",
            None if limit is None else ratio <= limit,
        )


def quickest(stage: Stage, work: Callable[[], Any], before: Callable[[], None] | None = None) -> float:
    """Seconds of the quickest of some repeats: what disturbs one only makes it slower."""
    took = []
    for _ in range(stage.times(REPEATS)):
        if before is not None:
            before()
        began = perf_counter()
        work()
        took.append(perf_counter() - began)
    return min(took)


# SQLAlchemy


@contextmanager
def sqlalchemy_kinds(here: Place) -> Iterator[Kinds]:
    engine = sa.create_engine(here.url("PostgreSQL"))
    install(engine, here.client, unbatched="error")
    tables.Base.metadata.create_all(engine)
    try:
        yield {
            "plain": sqlalchemy_kind(engine, tables.Plain),
            "sealed": sqlalchemy_kind(engine, tables.Sealed),
            "singly": sqlalchemy_kind(engine, tables.Singly),
        }
    finally:
        uninstall(engine)
        engine.dispose()


def sqlalchemy_kind(engine: sa.Engine, model: Any) -> Kind:
    def insert(texts: list[list[str]]) -> None:
        with Session(engine) as session:
            session.add_all([model(id=number, a=a, b=b, c=c) for number, (a, b, c) in enumerate(texts)])
            session.commit()

    def load() -> list[list[str]]:
        with Session(engine) as session:
            return [[one.a, one.b, one.c] for one in session.scalars(sa.select(model).order_by(model.id))]

    def empty() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {model.__tablename__}"))

    return Kind(insert, load, empty)


# Django


@contextmanager
def django_kinds(here: Place) -> Iterator[Kinds]:
    with django_ready(here):
        from django.db import connections

        from benchmarks.orm.people import models

        connection = connections["postgresql"]
        with connection.schema_editor() as editor:
            for model in (models.Plain, models.Sealed, models.Singly):
                editor.create_model(model)
        yield {
            "plain": django_kind(connection, models.Plain),
            "sealed": django_kind(connection, models.Sealed),
            "singly": django_kind(connection, models.Singly),
        }
        connection.close()


@contextmanager
def django_ready(here: Place) -> Iterator[None]:
    """Django set up in this process, on the databases and the sidecar that are there."""
    import django

    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.orm.project"}
    django.setup()
    from django.conf import settings
    from django.db import connections
    from django.test.utils import override_settings

    connections["default"].settings_dict["NAME"] = str(here.folder / "bench.sqlite")
    connections["postgresql"].settings_dict["HOST"] = str(here.socket)
    with override_settings(KEYSIDE=settings.KEYSIDE | {"SOCKET": here.sidecar.path}):
        try:
            yield
        finally:
            connections.close_all()


def django_kind(connection: Any, model: Any) -> Kind:
    objects = model.objects.using("postgresql")

    def insert(texts: list[list[str]]) -> None:
        objects.bulk_create([model(id=number, a=a, b=b, c=c) for number, (a, b, c) in enumerate(texts)])

    def load() -> list[list[str]]:
        return [[one.a, one.b, one.c] for one in objects.order_by("id")]

    def empty() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {model._meta.db_table}")

    return Kind(insert, load, empty)


def on_disk(here: Place) -> Row:
    """The database's files, write-ahead log included, searched for what was written to either kind of column."""
    engine = sa.create_engine(here.url("PostgreSQL"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CHECKPOINT"))
    engine.dispose()
    files = here.files("PostgreSQL")
    leaked, plain = occurrences(files, SECRET + " 0"), occurrences(files, PLAIN + " 0")
    return Row(
        "plaintexts of encrypted columns in PostgreSQL's files",
        "",
        leaked,
        target="0",
        met=leaked == 0 and plain > 0,
        note=f"{plain:,} of plain columns",
    )
