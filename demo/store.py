"""The application's database: one SQLite table whose secret columns hold envelopes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from demo.cells import Cells
from demo.people import OPEN, SECRET, Person

COLUMNS = ", ".join(OPEN + SECRET)
MARKS = ", ".join("?" * len(OPEN + SECRET))
SCHEMA = f"""
    CREATE TABLE people (
        id INTEGER PRIMARY KEY, country TEXT NOT NULL, bats TEXT, throws TEXT, height INTEGER,
        {", ".join(f"{column} BLOB" for column in SECRET)}
    )
"""


class Store:
    """A connection to the file; write-ahead logging, as a server would have it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        # the log then keeps every page written, so that the search has it all to look through
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.connection.execute(SCHEMA)

    def write(self, people: Sequence[Person], cells: Cells) -> None:
        """Insert every row in one transaction: the open columns, then the envelopes in `cells`, row by row."""
        secret = zip(*(cells[column] for column in SECRET), strict=True)
        with self.connection:
            self.connection.executemany(
                f"INSERT INTO people ({COLUMNS}) VALUES ({MARKS})",
                (
                    [getattr(row, name) for name in OPEN] + list(envelopes)
                    for row, envelopes in zip(people, secret, strict=True)
                ),
            )

    def read(self) -> Cells:
        """Every secret column, in the order of ids."""
        rows = self.connection.execute(f"SELECT {', '.join(SECRET)} FROM people ORDER BY id").fetchall()
        return {column: [row[at] for row in rows] for at, column in enumerate(SECRET)}

    def checkpoint(self) -> None:
        """Copy the log into the main file, keeping the log's bytes."""
        self.connection.execute("PRAGMA wal_checkpoint(FULL)")

    def on_disk(self) -> dict[str, bytes]:
        """Name and bytes of every file that belongs to the database, the log and its index included."""
        return {path.name: path.read_bytes() for path in sorted(self.path.parent.glob(self.path.name + "*"))}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def plain_image(people: Sequence[Person]) -> bytes:
    """The bytes of the same table as a database without encryption: what the search must find everything in."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(SCHEMA)
        names = OPEN + SECRET
        connection.executemany(
            f"INSERT INTO people ({COLUMNS}) VALUES ({MARKS})",
            ([getattr(row, name) for name in names] for row in people),
        )
        connection.commit()
        return connection.serialize()
