"""Indexes that keep a part of a value, functions among them: the whole value is not looked for by a part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from keyside import Client
from keyside.fields import NotSearchable, normalization
from keyside.sqlalchemy import BlindIndex, Encrypted, install, last, whole
from keyside.sqlalchemy.living import backfill
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, String, Table, create_engine, insert, select

METADATA = MetaData()


def end(value: Any) -> Any:
    return value[-4:]


@whole
def bare(value: Any) -> Any:
    return value.replace("-", "")


NUMBERS = Table(
    "numbers",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("number", Encrypted(String, "k")),
    Column("number_end", BlindIndex("number", normalize=end)),
    Column("code", Encrypted(String, "k")),
    Column("code_end", BlindIndex("code", normalize=end)),
    Column("code_index", BlindIndex("code", normalize=bare)),
)
GIVEN = [
    {"id": 1, "number": "AAAA1234", "code": "AA-AA-1234"},
    {"id": 2, "number": "BBBB1234", "code": "BBBB1234"},
]


@pytest.fixture
def connection(client: Client) -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    METADATA.create_all(engine)
    with engine.connect() as connection:
        connection.execute(insert(NUMBERS), GIVEN)
        yield connection
    engine.dispose()


def test_a_function_is_a_part_unless_it_is_said_to_keep_the_whole(connection: Connection) -> None:
    with pytest.raises(NotSearchable, match=r"compare number_end \(a function counts .* @keyside.fields.whole\)"):
        NUMBERS.c.number == "AAAA1234"  # noqa: B015  what is tested
    ids = select(NUMBERS.c.id).order_by("id")
    assert connection.scalars(ids.where(NUMBERS.c.number_end == "1234")).all() == [1, 2]
    assert connection.scalars(ids.where(NUMBERS.c.code == "AAAA1234")).all() == [1]
    assert connection.scalars(ids.where(NUMBERS.c.code_end == "1234")).all() == [1, 2]


def test_normalisations_say_whether_they_are_whole() -> None:
    assert not normalization(end).whole
    assert normalization(bare).whole
    assert normalization("digits").whole
    assert not last(4).whole
    assert last(4) == last(4) == normalization("last(4)") != last(3)


def test_a_missing_index_of_a_part_is_filled_in(connection: Connection, client: Client) -> None:
    """Once: a row that has no index under a normalisation is no row that lacks one."""
    added = Table(
        "numbers", MetaData(), Column("id", Integer, primary_key=True), Column("number", Encrypted(String, "k"))
    )
    added.append_column(Column("number_end", BlindIndex("number", normalize=last(4))))
    added.append_column(Column("number_digits", BlindIndex("number", normalize="domain")))
    connection.exec_driver_sql("ALTER TABLE numbers ADD COLUMN number_digits BLOB")
    connection.execute(insert(NUMBERS), [{"id": 3, "number": "C"}])
    raw = Table("numbers", MetaData(), Column("id", Integer), Column("number_end", LargeBinary))
    connection.execute(raw.update().values(number_end=None))
    assert backfill(connection, added.c.number, client).changed == 3
    assert connection.scalars(select(added.c.id).where(added.c.number_end == "1234")).all() == [1, 2]
    assert connection.scalars(select(added.c.id).where(added.c.number_end.is_(None))).all() == [3]
    assert backfill(connection, added.c.number, client).changed == 0
