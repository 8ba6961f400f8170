"""Blind indexes follow their columns: whatever statement writes an encrypted column writes its indexes as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Insert, Table, Update, bindparam
from sqlalchemy.sql.elements import BindParameter, ClauseElement, Null

from keyside.fields import BindingMissing, NotSearchable
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
    statement, rows = _index_parameters(statement, rows, table)
    _check_expressions(statement, table)
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


def _key(column: Any) -> str:
    return str(getattr(column, "key", column))


def _index_parameters(statement: Any, rows: Rows, table: Table) -> tuple[Any, Rows]:
    """Parameters that are named after columns, as the ORM and executemany give them."""
    names = {source: indexes for source, indexes in _names(table).items() if rows and source in rows[0]}
    # a parameter of that name may belong to a bindparam() of the statement instead
    if not names or set(names) & {_key(column) for column in _single_values(statement)}:
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
        statement._multi_values = tuple(
            [_row_with_indexes(_by_key(row, table), _present(names, row, table)) for row in group] for group in several
        )
        return statement
    values = _single_values(statement)
    written = {_key(column): value for column, value in values.items()}
    added = {}
    for source, indexes in names.items():
        if source in written:
            for index in indexes:
                if written.get(index) is None:
                    added[table.c[index]] = _same_value(written[source], table.c[index])
    if not added:
        return statement
    if getattr(statement, "_ordered_values", None):
        return statement.ordered_values(*statement._ordered_values, *added.items())
    return statement.values(added)


def _by_key(row: Any, table: Table) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return {_key(column): value for column, value in row.items()}
    return dict(zip(table.c.keys(), row, strict=False))


def _present(names: Mapping[str, list[str]], row: Any, table: Table) -> dict[str, list[str]]:
    keys = _by_key(row, table)
    return {source: indexes for source, indexes in names.items() if source in keys}


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


def _check_expressions(statement: Any, table: Table) -> None:
    encrypted = {column.key: column for column in encrypted_columns(table)}
    for name, value in _single_values(statement).items():
        column = encrypted.get(_key(name))
        if column is not None and _is_expression(value):
            message = "an SQL expression cannot be encrypted; compute the value in Python"
            raise NotSearchable(message, table.name, column.name)
    if getattr(statement, "select", None) is not None:
        names = {_key(name) for name in statement._select_names or table.c.keys()}
        for key in names & set(encrypted):
            message = "INSERT … FROM SELECT would store what the query returns as it is; insert the rows from Python"
            raise NotSearchable(message, table.name, encrypted[key].name)


def _is_expression(value: Any) -> bool:
    if hasattr(value, "__clause_element__"):
        value = value.__clause_element__()
    return isinstance(value, ClauseElement) and not isinstance(value, BindParameter | Null)


def _check_bindings(statement: Any, rows: Rows, table: Table) -> None:
    written = {_key(name) for name in _single_values(statement)}
    if rows:
        written |= {name for name in rows[0] if name in table.c}
    for column in changed_bindings(table, written):
        message = "its row key or partition is changed by an UPDATE that does not write it; set its value as well"
        raise BindingMissing(message, table.name, column.name)


def _index_upsert(statement: Any, table: Table) -> Any:
    clause: Any = getattr(statement, "_post_values_clause", None) if isinstance(statement, Insert) else None
    # of ON CONFLICT DO UPDATE, of ON DUPLICATE KEY UPDATE
    place = next((name for name in ("update_values_to_set", "update") if getattr(clause, name, None)), None)
    if place is None:
        return statement
    pairs = getattr(clause, place)
    listed = list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs)
    written = {_key(name): value for name, value in listed}
    added = [
        (index, _upsert_value(written[source], source, index, table, statement))
        for source, indexes in _names(table).items()
        for index in indexes
        if source in written and index not in written
    ]
    if not added:
        return statement
    renewed = clause._clone()
    # a mapping or pairs, as it was
    setattr(renewed, place, type(pairs)([*listed, *added]))
    statement = statement._generate()
    statement._post_values_clause = renewed
    return statement


def _upsert_value(value: Any, source: str, index: str, table: Table, statement: Any) -> Any:
    if not isinstance(value, ClauseElement) or isinstance(value, BindParameter):
        return bindparam(None, getattr(value, "value", value), type_=table.c[index].type)
    of: Any = getattr(value, "table", None)
    if getattr(of, "name", None) in ("excluded", "inserted") and getattr(value, "key", None) == source:
        return getattr(statement, of.name)[index]
    message = "an upsert may set it to a value or to excluded (MySQL: inserted), no other expression"
    raise NotSearchable(message, table.name, source)
