"""Encrypting a column of a million rows that is in use, beside a plain copy of it through Python.

The copy reads pages of the same size by primary key and writes them with the driver's executemany, a transaction a
page: the least that any work on a living table does. It walks over a table of its own, in turns with the job, slice
by slice. Then the job is killed in its middle and begun anew.
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
from benchmarks.stage import Stage, median_ratio
from benchmarks.table import Row

ROWS = 1_000_000
PAGE = 1_000
FILLED_AT_ONCE = 50_000
SLICES = 20  # of the job and of the copy, in turns
SETTLED = 0.2  # share of the rows after which memory should grow no more
GROWN_MB = 8.0
KILLED_ROWS = 100_000
DATABASES = ("SQLite", "PostgreSQL")
ROOT = Path(__file__).parents[2]

PERSON: Any = tables.Person.__table__
TABLES: tuple[Any, ...] = (PERSON, tables.PersonCopied.__table__)


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
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    for table in TABLES:
        table.create(engine)
        for first in range(0, rows, FILLED_AT_ONCE):
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    f"INSERT INTO {table.name} (id, email) VALUES ({mark}, {mark})",
                    [(row, address(row)) for row in range(first, min(first + FILLED_AT_ONCE, rows))],
                )
    try:
        yield
    finally:
        for table in TABLES:
            table.drop(engine)


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
    """A machine that gets slower meanwhile disturbs both."""
    what = f"{job.name}, {database}: backfill of {rows:,} rows"
    turns = Turns(engine, max(PAGE, rows // SLICES // PAGE * PAGE))
    done = job.run(turns)
    if done.changed != rows or turns.copied != rows:
        raise RuntimeError(f"{what}: {done.changed:,} were encrypted, {turns.copied:,} copied")
    speed, copying = rows / sum(turns.working), rows / sum(turns.copying)
    ratio = median_ratio(turns.copying, turns.working)
    yield Row(what, "/s", speed, copying, "a plain copy through Python", ratio, "ratio >= 0.5", ratio >= 0.5)
    settled = turns.memory[int(len(turns.memory) * SETTLED)]
    grown = (max(turns.memory) - settled) / 1024
    yield Row(f"{what}: memory grown", "MB", grown, target=f"<= {GROWN_MB:g} MB", met=grown <= GROWN_MB)


class Turns:
    """What a job reports to: after each slice of its rows as many are copied in another table."""

    def __init__(self, engine: sa.Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._began = perf_counter()
        self.copied = 0
        self.working: list[float] = []
        """Seconds of each slice of the job."""
        self.copying: list[float] = []
        self.memory: list[int] = []

    def __call__(self, progress: Progress) -> None:
        self.memory.append(memory_kib(os.getpid(), "VmRSS"))
        if progress.seen < self.copied + self._size and progress.seen != progress.total:
            return
        ended = perf_counter()
        self.working.append(ended - self._began)
        copy(self._engine, self.copied, progress.seen)
        self.copied = progress.seen
        self._began = perf_counter()
        self.copying.append(self._began - ended)


def copy(engine: sa.Engine, first: int, end: int) -> None:
    """Copy a text column of some rows through Python, page by page."""
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    read = f"SELECT id, email FROM person_copied WHERE id > {mark} ORDER BY id LIMIT {PAGE}"
    write = f"UPDATE person_copied SET copy = {mark} WHERE id = {mark}"
    for last in range(first - 1, end - 1, PAGE):
        with engine.begin() as connection:
            page = connection.exec_driver_sql(read, (last,)).all()
            connection.exec_driver_sql(write, [(email, number) for number, email in page])


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
