"""Blind indexes follow their columns: whatever statement writes an encrypted column writes its indexes as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, Update, bindparam
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.util import immutabledict

from keyside.fields import BindingMissing, NotSearchable
from keyside.sqlalchemy.assigned import (
    by_key,
    key_of,
    proposed,
    upsert_pairs,
    upsert_place,
    with_typed_values,
    with_upsert_pairs,
)
from keyside.sqlalchemy.types import BlindIndex, encrypted_columns, index_columns
from keyside.sqlalchemy.writing import changed_bindings

Rows = list[dict[str, Any]]


def with_indexes(statement: Any, rows: Rows) -> tuple[Any, Rows]:
    """An INSERT or UPDATE and its parameters with the indexes of the columns that it writes.

    Raises NotSearchable for an SQL expression that is written to an encrypted column, and BindingMissing for an UPDATE
    that would leave a ciphertext bound to a key or partition that the row no longer has.
    """
    table = statement.table
    if not isinstance(table, Table) or not encrypted_columns(table):
        return statement, rows
    statement = with_typed_values(statement, table)
    statement, rows = _index_parameters(statement, rows, table)
    if isinstance(statement, Update):
        _check_bindings(statement, rows, table)
    return _index_upsert(_index_values(statement, table), table), rows


def _names(table: Table) -> dict[str, list[str]]:
    """Encrypted columns and their indexes, by key."""
    names: dict[str, list[str]] = {}
    for column in index_columns(table):
        assert isinstance(column.type, BlindIndex)
        names.setdefault(column.type.source, []).append(column.key)
    return names


def _index_parameters(statement: Any, rows: Rows, table: Table) -> tuple[Any, Rows]:
    """Parameters that are named after columns, as the ORM and executemany give them."""
    names = {source: indexes for source, indexes in _names(table).items() if rows and source in rows[0]}
    # a parameter of that name may belong to a bindparam() of the statement instead
    if not names or set(names) & {key_of(column) for column in _single_values(statement)}:
        return statement, rows
    return statement, [_row_with_indexes(row, names) for row in rows]


def _row_with_indexes(row: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    row = dict(row)
    for source, indexes in names.items():
        for index in indexes:
            # the ORM fills columns that an object says nothing of with None
            if row.get(index) is None:
                row[index] = row.get(source)
    return row


def _single_values(statement: Any) -> dict[Any, Any]:
    """What `.values(…)` set, however it was said."""
    ordered = getattr(statement, "_ordered_values", None) or ()
    return dict(statement._values or {}) | dict(ordered)


def _index_values(statement: Any, table: Table) -> Any:
    names = _names(table)
    if not names:
        return statement
    several = getattr(statement, "_multi_values", None)
    if several:
        statement = statement._generate()
        statement._multi_values = tuple([[_indexed_row(row, table, names) for row in group] for group in several])
        return statement
    values = _single_values(statement)
    written = {key_of(column): value for column, value in values.items()}
    added = {}
    for source, indexes in names.items():
        if source in written:
            for index in indexes:
                if written.get(index) is None:
                    added[table.c[index]] = _same_value(written[source], table.c[index])
    if not added:
        return statement
    statement = statement._generate()
    if getattr(statement, "_ordered_values", None):
        statement._ordered_values = [*statement._ordered_values, *added.items()]
    else:
        statement._values = immutabledict({**statement._values, **added})
    return statement


def _indexed_row(row: Any, table: Table, names: Mapping[str, list[str]]) -> dict[str, Any]:
    row = by_key(row, table)
    present = {source: indexes for source, indexes in names.items() if source in row}
    indexed = _row_with_indexes(row, present)
    for index in (index for indexes in present.values() for index in indexes):
        indexed[index] = _same_value(indexed[index], table.c[index])
    return indexed


def _same_value(value: Any, index: Any) -> Any:
    if isinstance(value, BindParameter):
        if value.required or value.callable is not None:
            raise NotSearchable(
                f"bindparam({value.key!r}) is written to a column with a blind index; name the parameter after the "
                "column in executemany, or give the value to values()",
                index.table.name,
                index.name,
            )
        return bindparam(None, value.value, type_=index.type)
    return value


def _check_bindings(statement: Any, rows: Rows, table: Table) -> None:
    written = {key_of(name) for name in _single_values(statement)}
    if rows:
        written |= {name for name in rows[0] if name in table.c}
    for column in changed_bindings(table, written):
        message = "its row key or partition is changed by an UPDATE that does not write it; set its value as well"
        raise BindingMissing(message, table.name, column.name)


def _index_upsert(statement: Any, table: Table) -> Any:
    place = upsert_place(statement)
    if place is None:
        return statement
    pairs = upsert_pairs(*place)
    written = {key_of(name): value for name, value in pairs}
    added = [
        (index, _upsert_value(written[source], table.c[source], table.c[index], statement))
        for source, indexes in _names(table).items()
        for index in indexes
        if source in written and index not in written
    ]
    return with_upsert_pairs(statement, *place, [*pairs, *added]) if added else statement


def _upsert_value(value: Any, source: Any, index: Any, statement: Any) -> Any:
    if proposed(value, source):
        return getattr(statement, value.table.name)[index.key]
    return bindparam(None, getattr(value, "value", value), type_=index.type)
