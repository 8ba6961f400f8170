"""Results in PostgreSQL's binary format: the same values, and only where they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from keyside.fields import FieldUnavailable
from keyside.fields.formats import _SAME_IN_BOTH, BINARY, TEXT, has_formats, same_in_both
from psycopg.types.string import TextLoader
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session

from tests.orm.sqlalchemy.models import Patient

VALUES = {
    "bytea": [r"'\xc10100'", "''"],
    "boolean": ["true", "false"],
    "smallint": ["'-32768'", "'32767'"],
    "integer": ["'-2147483648'", "'2147483647'"],
    "bigint": ["'-9223372036854775808'", "'9223372036854775807'"],
    "text": ["'ä, 漢 \U0001f600'", "''", r"E'a\nb\\c'"],
    "char(5)": ["'ab'"],
    "varchar(5)": ["'ab '"],
    "date": ["'0001-01-01'", "'9999-12-31'", "'2024-02-29'"],
    "timestamp": ["'2024-02-29 23:59:59.999999'", "'0001-01-01'"],
    "timestamptz": ["'2024-02-29 23:59:59.999999+05:30'", "'1890-01-01 00:00+00'"],
    "numeric": ["1.500", "'-0.00'", "1e30", "'NaN'", "123456789012345678901234567890.000000001"],
    "uuid": ["'00112233-4455-6677-8899-aabbccddeeff'"],
}


@pytest.fixture
def connection(postgresql_socket: Path) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(host=str(postgresql_socket), user="test", dbname="postgres") as connection:
        yield connection


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_every_type_has_the_same_values_in_both(connection: psycopg.Connection[Any], zone: str) -> None:
    connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    seen = set()
    for kind, literals in VALUES.items():
        rows = ", ".join(f"({one}::{kind})" for one in [*literals, "NULL"])
        statement = f"SELECT ''::bytea, one::{kind} FROM (VALUES {rows}) AS v(one)"
        cursor = connection.execute(statement)
        assert same_in_both(cursor), kind
        assert cursor.pgresult is not None
        seen.add(cursor.pgresult.ftype(1))
        in_text = cursor.fetchall()
        in_binary = connection.execute(statement, binary=True).fetchall()
        assert list(map(repr, in_binary)) == list(map(repr, in_text))
        assert [type(one) for row in in_binary for one in row] == [type(one) for row in in_text for one in row]
    assert seen == _SAME_IN_BOTH


@pytest.mark.parametrize("kind", ["jsonb", "double precision", "real", "interval", "integer[]", "inet", "xml"])
def test_other_types_stay_in_text(connection: psycopg.Connection[Any], kind: str) -> None:
    assert not same_in_both(connection.execute(f"SELECT ''::bytea, NULL::{kind}"))


def test_no_ciphertext_and_a_loader_of_the_application_stay_in_text(connection: psycopg.Connection[Any]) -> None:
    class Shouting(TextLoader):
        def load(self, data: Any) -> str:
            return str(super().load(data)).upper()

    assert not same_in_both(connection.execute("SELECT 'a'::text"))
    assert not same_in_both(connection.execute("CREATE TEMPORARY TABLE nothing_returned (id integer)"))
    statement = "SELECT ''::bytea, 'a'::text"
    assert same_in_both(connection.execute(statement))
    connection.adapters.register_loader("text", Shouting)
    assert not same_in_both(connection.execute(statement))


def test_cursors_without_formats(connection: psycopg.Connection[Any]) -> None:
    assert has_formats(connection.cursor())
    with connection.cursor("named") as cursor:
        assert not has_formats(cursor)
    assert not has_formats(object())


@pytest.fixture
def formats(filled: Engine) -> list[int]:
    """The format of each result."""
    found: list[int] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("SELECT"):
            found.append(cursor.format)

    event.listen(filled, "after_cursor_execute", note)
    return found


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_the_second_result_of_a_statement_comes_in_binary(filled: Engine, formats: list[int]) -> None:
    rows = []
    for _ in range(3):
        with Session(filled) as session:
            people = session.scalars(select(Patient).order_by(Patient.number)).all()
            rows.append([(one.id, one.number, one.email, one.born, one.notes) for one in people])
    assert rows[0] == rows[1] == rows[2]
    assert formats == [TEXT, BINARY, BINARY]


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_a_column_that_changes_its_type_is_an_error_once(filled: Engine, formats: list[int]) -> None:
    statement = select(Patient.email, Patient.number).order_by(Patient.number)
    with Session(filled) as session:
        rows = [session.execute(statement).all() for _ in range(2)]
        session.execute(text("ALTER TABLE patients ALTER COLUMN number TYPE double precision"))
        with pytest.raises(FieldUnavailable, match="try again"):
            session.execute(statement)
        rows += [session.execute(statement).all() for _ in range(2)]
    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert formats == [TEXT, BINARY, BINARY, TEXT, TEXT]
