"""What the ORM rows share: two databases, a sidecar, and the values that go through them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keyside import Client

from benchmarks.sidecar import Sidecar
from tests.orm.servers import postgresql

KEYRING = "people"
ROWS = 1_000
COLUMNS = 3

SECRET = "sealed"
"""In every value of an encrypted column, and in no other: what must not be in a database's files."""
PLAIN = "openly"
"""In every value of a plain column: what must be found there, or the search finds nothing at all."""


@dataclass(frozen=True)
class Place:
    """Where the rows live."""

    sidecar: Sidecar
    client: Client
    socket: Path  # the folder of PostgreSQL's socket, and of its files
    folder: Path  # for SQLite

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of `PostgreSQL` or `SQLite`."""
        if database == "SQLite":
            return f"sqlite:///{self.folder}/bench.sqlite"
        return f"postgresql+psycopg://test@/postgres?host={self.socket}"

    def files(self, database: str) -> list[Path]:
        """Everything that the database has on disk."""
        if database == "SQLite":
            return sorted(self.folder.glob("bench.sqlite*"))
        return [file for file in (self.socket / "data").rglob("*") if file.is_file()]


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    with Sidecar() as sidecar, postgresql() as socket:
        sidecar.create_keyring(KEYRING)
        with Client(sidecar.path, timeout=60) as client:
            yield Place(sidecar, client, socket, folder)


def values(mark: str, row: int) -> list[str]:
    """The texts of one row: names, addresses and the like."""
    return [f"{mark} {row:08d} {os.urandom(8).hex()} column {column}" for column in range(COLUMNS)]


def occurrences(files: list[Path], mark: str) -> int:
    """How often a text is in files."""
    found = 0
    for file in files:
        try:
            found += file.read_bytes().count(mark.encode())
        except FileNotFoundError:
            continue  # the server has just put it away
    return found
