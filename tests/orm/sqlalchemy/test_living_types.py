"""A plain column of any type is copied into an encrypted one beside it, and back, by the types that drivers return."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.sqlalchemy import Encrypted, install
from keyside.sqlalchemy.living import backfill, decrypt_column

from tests.orm.sqlalchemy.conftest import DRIVERS, url


class Level(enum.Enum):
    LOW = "l"
    HIGH = "h"


VALUES: dict[str, tuple[Any, Any]] = {
    "price": (sa.Numeric(10, 2), Decimal("5.10")),
    "rate": (sa.Numeric(10, 2, asdecimal=False), 2.5),
    "ratio": (sa.Float(), 1.5),
    "count": (sa.Integer(), 7),
    "large": (sa.BigInteger(), 2**40),
    "active": (sa.Boolean(), True),
    "born": (sa.Date(), date(1990, 2, 3)),
    "seen": (sa.DateTime(), datetime(2020, 1, 2, 3, 4, 5)),
    "noon": (sa.Time(), time(12, 30)),
    "lasts": (sa.Interval(), timedelta(days=1, seconds=3)),
    "token": (sa.Uuid(), UUID(int=7)),
    "level": (sa.Enum(Level), Level.HIGH),
    "name": (sa.String(20), "Ann"),
    "photo": (sa.LargeBinary(), b"\0x"),
    "data": (sa.JSON(), {"a": [1, None]}),
}
ON_POSTGRESQL = {"moment": (sa.DateTime(timezone=True), datetime(2020, 1, 2, 3, tzinfo=timezone.utc))}  # noqa: UP017


@pytest.fixture(params=DRIVERS)
def engine(request: pytest.FixtureRequest, client: Client, tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url(request.param, request, tmp_path))
    install(engine, client, unbatched="error")
    yield engine
    engine.dispose()


def test_values_of_every_type_are_copied_and_written_back(engine: sa.Engine, client: Client) -> None:
    given = VALUES | (ON_POSTGRESQL if engine.dialect.name == "postgresql" else {})
    metadata = sa.MetaData()
    plain = [sa.Column(name, type_) for name, (type_, _) in given.items()]
    sealed: list[sa.Column[Any]] = [
        sa.Column(f"{name}_sealed", Encrypted(type_, keyring="notes")) for name, (type_, _) in given.items()
    ]
    table = sa.Table("kinds", metadata, sa.Column("id", sa.Integer, primary_key=True), *plain, *sealed)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    values = {name: value for name, (_, value) in given.items()}
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, **values))
        connection.execute(sa.insert(table).values(id=2, name="Bob"))
    for one, other in zip(plain, sealed, strict=True):
        assert backfill(engine, other, client, source=one).changed == (2 if one.name == "name" else 1)
    with engine.begin() as connection:
        row = connection.execute(sa.select(*sealed).where(table.c.id == 1)).one()
        assert dict(zip(given, row, strict=True)) == values
        assert [type(value) for value in row] == [type(value) for value in values.values()]
        connection.execute(sa.update(table).values(dict.fromkeys(given, sa.null())))
    for one, other in zip(plain, sealed, strict=True):
        decrypt_column(engine, other, client, into=one)
    with engine.begin() as connection:
        row = connection.execute(sa.select(*plain).where(table.c.id == 1)).one()
        assert dict(zip(given, row, strict=True)) == values
    metadata.drop_all(engine)
