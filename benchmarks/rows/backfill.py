"""Encrypting a column of a million rows that is in use, beside a plain copy of it through Python.

The copy reads pages of the same size by primary key and writes them with the driver's executemany, a transaction a
page: the least that any work on a living table does. Then the job is killed in its middle and begun anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from keyside.living import Options, Progress
from keyside.sqlalchemy import install, uninstall
from keyside.sqlalchemy.living import backfill
from sqlalchemy.orm import Session

from benchmarks.orm import SECRET, Place, place
from benchmarks.orm import models as tables
from benchmarks.processes import memory_kib
from benchmarks.rows.orm import django_ready
from benchmarks.stage import Stage
from benchmarks.table import Row

ROWS = 1_000_000
PAGE = 1_000
FILLED_AT_ONCE = 50_000
SETTLED = 0.2  # share of the rows after which memory should grow no more
GROWN_MB = 8.0
KILLED_ROWS = 100_000
DATABASES = ("SQLite", "PostgreSQL")
ROOT = Path(__file__).parents[2]

PERSON: Any = tables.Person.__table__


@dataclass(frozen=True)
class Orm:
    """One ORM's job, in this process and as a command."""

    name: str
    run: Callable[[Callable[[Progress], object]], Progress]
    command: list[str]


def measure(stage: Stage) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="keyside-orm-") as folder, place(Path(folder)) as here:
        return [row for database in DATABASES for row in one_database(stage, here, database)]


def one_database(stage: Stage, here: Place, database: str) -> Iterator[Row]:
    engine = sa.create_engine(here.url(database))
    rows = max(10 * PAGE, stage.times(ROWS) // PAGE * PAGE)
    try:
        for orm in ("SQLAlchemy", "Django"):
            with filled(engine, rows), jobs(here, database, engine, orm) as job:
                yield from beside_a_copy(engine, database, job, rows)
            few = min(rows, KILLED_ROWS)
            with filled(engine, few), jobs(here, database, engine, orm) as job:
                yield killed(here, engine, database, job, few)
    finally:
        engine.dispose()


@contextmanager
def filled(engine: sa.Engine, rows: int) -> Iterator[None]:
    """So many persons with a plain address, and neither its copy nor its ciphertext."""
    PERSON.create(engine)
    for first in range(0, rows, FILLED_AT_ONCE):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO person (id, email) VALUES (?, ?)"
                if engine.dialect.name == "sqlite"
                else "INSERT INTO person (id, email) VALUES (%s, %s)",
                [(row, address(row)) for row in range(first, min(first + FILLED_AT_ONCE, rows))],
            )
    try:
        yield
    finally:
        PERSON.drop(engine)


def address(row: int) -> str:
    return f"{SECRET}.{row:08d}@example.org"


@contextmanager
def jobs(here: Place, database: str, engine: sa.Engine, orm: str) -> Iterator[Orm]:
    socket = ["--socket", here.sidecar.path]
    if orm == "SQLAlchemy":
        command = [sys.executable, "-m", "keyside.orm", "backfill", "benchmarks.orm.models:Base", "person.email_sealed"]
        yield Orm(
            orm,
            lambda report: backfill(
                engine, PERSON.c.email_sealed, here.client, Options(batch=PAGE), report, source=PERSON.c.email
            ),
            [*command, "--from", "email", "--batch", str(PAGE), "--url", here.url(database), *socket],
        )
        return
    with django_ready(here):
        from keyside.django import living

        from benchmarks.orm.people.models import Person

        alias = "default" if database == "SQLite" else "postgresql"
        field: Any = Person._meta.get_field("email_sealed")
        source = Person._meta.get_field("email")
        command = [sys.executable, "-m", "django", "keyside_backfill", "people.Person.email_sealed"]
        yield Orm(
            orm,
            lambda report: living.backfill(field, None, Options(batch=PAGE), report, using=alias, source=source),
            [*command, "--from", "email", "--batch", str(PAGE), "--database", alias],
        )


def beside_a_copy(engine: sa.Engine, database: str, job: Orm, rows: int) -> Iterator[Row]:
    """The copy before and after: a machine that gets slower meanwhile disturbs both."""
    what = f"{job.name}, {database}: backfill of {rows:,} rows"
    first = copied(engine, rows)
    memory: list[int] = []
    began = perf_counter()
    done = job.run(lambda progress: memory.append(memory_kib(os.getpid(), "VmRSS")))
    took = perf_counter() - began
    if done.changed != rows:
        raise RuntimeError(f"{what}: {done.changed:,} were encrypted")
    forget_copies(engine)
    speed = rows / took
    copying = 2 * rows / (first + copied(engine, rows))
    ratio = speed / copying
    yield Row(what, "/s", speed, copying, "a plain copy through Python", ratio, "ratio >= 0.5", ratio >= 0.5)
    settled = memory[int(len(memory) * SETTLED)]
    grown = (max(memory) - settled) / 1024
    yield Row(f"{what}: memory grown", "MB", grown, target=f"<= {GROWN_MB:g} MB", met=grown <= GROWN_MB)


def copied(engine: sa.Engine, rows: int) -> float:
    """Seconds to copy a text column through Python, page by page."""
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    read = f"SELECT id, email FROM person WHERE id > {mark} ORDER BY id LIMIT {PAGE}"
    write = f"UPDATE person SET copy = {mark} WHERE id = {mark}"
    last, count = -1, 0
    began = perf_counter()
    while True:
        with engine.begin() as connection:
            page = connection.exec_driver_sql(read, (last,)).all()
            if not page:
                break
            connection.exec_driver_sql(write, [(email, number) for number, email in page])
        last, count = page[-1][0], count + len(page)
    took = perf_counter() - began
    if count != rows:
        raise RuntimeError(f"{count:,} of {rows:,} rows were copied")
    return took


def forget_copies(engine: sa.Engine) -> None:
    """As before the first copy, vacuumed where dead rows would slow down the second."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("UPDATE person SET copy = NULL")
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM FULL person")


def killed(here: Place, engine: sa.Engine, database: str, job: Orm, rows: int) -> Row:
    """SIGKILL in the middle; the second run does the rest, and no row twice; all of them decrypt to what they were."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.orm.project",
        "KEYSIDE_SOCKET": here.sidecar.path,
        "BENCH_SQLITE": str(here.folder / "bench.sqlite"),
        "BENCH_POSTGRESQL": str(here.socket),
    }
    command = [*job.command, "--state", str(here.folder / f"{job.name}.{database}.state")]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        while process.poll() is None and encrypted(engine) < rows // 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = sealed(engine)
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    after = sealed(engine)
    twice = sum(after.get(row) != stored for row, stored in before.items())
    wrong = wrong_values(here, engine, rows)
    good = again.returncode == 0 and 0 < len(before) < rows and len(after) == rows and not twice and not wrong
    return Row(
        f"{job.name}, {database}: killed and begun anew, {rows:,} rows: lost or done twice",
        "",
        wrong + twice + rows - len(after),
        target="0",
        met=good,
        note=f"killed after {len(before):,}" + ("" if again.returncode == 0 else f"; then: {again.stderr[-200:]}"),
    )


def encrypted(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT COUNT(email_sealed) FROM person").scalar_one())


def sealed(engine: sa.Engine) -> dict[int, bytes]:
    """What is stored, by row, past all hooks."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT id, email_sealed FROM person WHERE email_sealed IS NOT NULL")
        return {row: bytes(stored) for row, stored in found}


def wrong_values(here: Place, engine: sa.Engine, rows: int) -> int:
    """How many rows do not decrypt to their plain column."""
    install(engine, here.client, unbatched="error")
    try:
        with Session(engine) as session:
            statement = sa.select(tables.Person.id, tables.Person.email, tables.Person.email_sealed)
            good = sum(email == opened and email == address(row) for row, email, opened in session.execute(statement))
    finally:
        uninstall(engine)
    return rows - good
