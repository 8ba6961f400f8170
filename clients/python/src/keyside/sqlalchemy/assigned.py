"""What INSERT, UPDATE and upserts set encrypted columns and blind indexes to: values, which get the column's type, and
nothing that the database computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from sqlalchemy import Column, Insert, Table
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.util import immutabledict

from keyside.fields import NotSearchable
from keyside.sqlalchemy.given import clause, is_expression, value_for
from keyside.sqlalchemy.types import encrypted_columns, index_columns

Columns = Mapping[str, Column[Any]]


def with_typed_values(statement: Any, table: Table) -> Any:
    """The statement, with the values of encrypted columns and blind indexes typed as their columns.

    Raises NotSearchable for SQL expressions that would be written there.
    """
    columns = {column.key: column for column in (*encrypted_columns(table), *index_columns(table))}
    for place, pairs in (("_values", dict), ("_ordered_values", list)):
        held = getattr(statement, place, None)
        if held:
            listed = list(held.items()) if isinstance(held, Mapping) else list(held)
            renewed = [(name, _assigned(name, value, columns)) for name, value in listed]
            if any(new is not old for (_, new), (_, old) in zip(renewed, listed, strict=True)):
                statement = statement._generate()
                setattr(statement, place, immutabledict(renewed) if pairs is dict else renewed)
    several = getattr(statement, "_multi_values", None)
    if several and any(_needs_type(row, table, columns) for group in several for row in group):
        statement = statement._generate()
        statement._multi_values = tuple([[_row(row, table, columns) for row in group] for group in several])
    _check_select(statement, table, columns)
    return _typed_upsert(statement, columns)


def key_of(column: Any) -> str:
    return str(getattr(column, "key", column))


def by_key(row: Any, table: Table) -> dict[str, Any]:
    """A row of insert().values([…]), whichever way it names its columns."""
    if isinstance(row, Mapping):
        return {key_of(column): value for column, value in row.items()}
    return dict(zip(table.c.keys(), row, strict=False))


def upsert_place(statement: Any) -> tuple[Any, str] | None:
    """The clause of an upsert and the name of what it sets; None when the statement is no upsert that sets anything."""
    upsert: Any = getattr(statement, "_post_values_clause", None) if isinstance(statement, Insert) else None
    # of ON CONFLICT DO UPDATE, of ON DUPLICATE KEY UPDATE
    name = next((name for name in ("update_values_to_set", "update") if getattr(upsert, name, None)), None)
    return None if name is None else (upsert, name)


def upsert_pairs(upsert: Any, name: str) -> list[tuple[Any, Any]]:
    pairs = getattr(upsert, name)
    return list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs)


def with_upsert_pairs(statement: Any, upsert: Any, name: str, pairs: list[tuple[Any, Any]]) -> Any:
    renewed = upsert._clone()
    # a mapping or pairs, as it was
    setattr(renewed, name, type(getattr(upsert, name))(pairs))
    statement = statement._generate()
    statement._post_values_clause = renewed
    return statement


def proposed(value: Any, column: Column[Any]) -> bool:
    """Whether a value of an upsert is what the INSERT would have written to the same column."""
    table = getattr(value, "table", None)
    return getattr(table, "name", None) in ("excluded", "inserted") and getattr(value, "key", None) == column.key


def _assigned(name: Any, value: Any, columns: Columns) -> Any:
    column = columns.get(key_of(name))
    if column is None:
        return value
    if is_expression(value):
        _refuse(column, "an SQL expression cannot be encrypted; compute the value in Python")
    given = clause(value)
    # SQLAlchemy gives the column's type to those that have none
    return value_for(given, column.type) if isinstance(given, BindParameter) and not given.type._isnull else value


def _needs_type(row: Any, table: Table, columns: Columns) -> bool:
    return any(_assigned(name, value, columns) is not value for name, value in by_key(row, table).items())


def _row(row: Any, table: Table, columns: Columns) -> dict[str, Any]:
    return {name: _assigned(name, value, columns) for name, value in by_key(row, table).items()}


def _check_select(statement: Any, table: Table, columns: Columns) -> None:
    if getattr(statement, "select", None) is None:
        return
    for name in statement._select_names or table.c.keys():
        if key_of(name) in columns:
            message = "INSERT … FROM SELECT would store what the query returns as it is; insert the rows from Python"
            _refuse(columns[key_of(name)], message)


def _typed_upsert(statement: Any, columns: Columns) -> Any:
    place = upsert_place(statement)
    if place is None:
        return statement
    pairs = upsert_pairs(*place)
    renewed = [(name, _upserted(name, value, columns)) for name, value in pairs]
    if all(new is old for (_, new), (_, old) in zip(renewed, pairs, strict=True)):
        return statement
    return with_upsert_pairs(statement, *place, renewed)


def _upserted(name: Any, value: Any, columns: Columns) -> Any:
    column = columns.get(key_of(name))
    if column is None or proposed(value, column):
        return value
    if is_expression(value):
        _refuse(column, "an upsert may set it to a value or to excluded (MySQL: inserted), no other expression")
    return _assigned(name, value, columns)


def _refuse(column: Column[Any], message: str) -> NoReturn:
    raise NotSearchable(message, column.table.name, column.name)
