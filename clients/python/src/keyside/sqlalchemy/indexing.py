"""Blind indexes follow their columns: whatever statement writes an encrypted column writes its indexes as well.

Before a statement is compiled, so that it is compiled and cached with all that it writes. `checking` then looks at what
was compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Column, Insert, bindparam, null
from sqlalchemy.sql.elements import BindParameter, Null

from keyside.fields import NotSearchable
from keyside.sqlalchemy.assignments import (
    assigned,
    assigned_rows,
    column_of,
    concerns,
    excluded,
    indexes_of,
    is_target,
    of_table,
    reassigned,
    refuse_unknown,
    tables_of,
    target_table,
    typed,
    upsert_of,
    upserted,
)
from keyside.sqlalchemy.given import is_named
from keyside.sqlalchemy.types import BlindIndex, Encrypted

Rows = list[dict[str, Any]]


class Following:
    """In place of an index whose value is known only when the statement is executed: that of its column there."""

    def __repr__(self) -> str:
        return "<of its column>"


FOLLOWING: Final = Following()


def with_indexes(statement: Any, rows: Rows) -> tuple[Any, Rows]:
    """An INSERT or UPDATE and its parameters with the indexes of the columns that it writes.

    Every value gets the type of the column that it is written to. Raises NotSearchable for an SQL expression that is
    written to an encrypted column, and for an index that is written without its column.
    """
    if not concerns(statement):
        return statement, rows
    if statement._multi_values:
        return _with_upsert(_with_several(statement)), rows
    pairs, rows = _with_values(statement, rows)
    before = assigned(statement)
    if len(before) != len(pairs) or any(was[1] is not now[1] for was, now in zip(before, pairs, strict=True)):
        statement = reassigned(statement, pairs)
    return _with_upsert(statement), rows


def _with_values(statement: Any, rows: Rows) -> tuple[list[tuple[Any, Any]], Rows]:
    """Assignments and parameters of a statement that writes one row, or one row for each of its parameters."""
    target = target_table(statement)
    in_rows = {name for name in rows[0] if name in target.c} if rows else set()
    pairs: list[tuple[Any, Any]] = []
    indexes: list[tuple[Column[Any], Any]] = []
    for name, value in assigned(statement):
        column = column_of(statement, name)
        if column is None or not is_target(column):
            pairs.append((name, value))
        elif isinstance(column.type, Encrypted):
            given = typed(value, column)
            pairs.append((name, given))
            named = isinstance(given, BindParameter) and is_named(given) and given.key != column.key
            if named and column.table == target:
                # a parameter of another name is no value that one named after the column replaces
                in_rows.discard(column.key)
        else:
            indexes.append((column, value))
    for table in tables_of(statement):
        own = table == target
        written = of_table(statement, table, pairs)
        followed: dict[str, list[str]] = {}
        for source, of_source in indexes_of(table).items():
            if own and source in in_rows:
                # parameters named after the column, as the ORM and executemany give them, go before values()
                followed[source] = of_source
            elif source in written:
                pairs += [(table.c[key], _of(written[source], table.c[key])) for key in of_source]
                rows = _without(rows, of_source) if own else rows
            elif own and _has_default(table.c[source], statement) and getattr(statement, "select", None) is None:
                pairs += [(table.c[key], bindparam(None, FOLLOWING, type_=table.c[key].type)) for key in of_source]
                rows = _without(rows, of_source)
            else:
                alone = [(index, value) for index, value in indexes if index.table == table and index.key in of_source]
                for index, value in alone:
                    _refuse_alone(index, [value], statement)
                for key in of_source if own and rows else ():
                    if key in rows[0]:
                        _refuse_alone(table.c[key], [row.get(key) for row in rows], statement)
                pairs += alone
        if followed:
            rows = [_followed(row, followed) for row in rows]
    return pairs, rows


def _followed(row: dict[str, Any], followed: Mapping[str, list[str]]) -> dict[str, Any]:
    row = dict(row)
    for source, indexes in followed.items():
        value = row.get(source)
        for index in indexes:
            row[index] = value
    return row


def _without(rows: Rows, names: Iterable[str]) -> Rows:
    if not rows or not any(name in rows[0] for name in names):
        return rows
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def _of(value: Any, index: Column[Any]) -> Any:
    """What an index is set to beside this value of its column."""
    if isinstance(value, Null):
        return null()
    if isinstance(value, BindParameter):
        # a parameter with a name of its own may be given anew with every execution
        return bindparam(None, FOLLOWING if is_named(value) else value.value, type_=index.type)
    return value


def _has_default(column: Column[Any], statement: Any) -> bool:
    """Whether Python computes a value for a column that the statement does not name."""
    default: Any = column.default if isinstance(statement, Insert) else column.onupdate
    return default is not None and (default.is_callable or default.is_scalar)


def _refuse_alone(index: Column[Any], values: Iterable[Any], statement: Any) -> None:
    """Raise NotSearchable for values of an index whose column the statement does not write."""
    # the ORM fills columns that an object says nothing of with None
    if not all(isinstance(statement, Insert) and _is_null(value) for value in values):
        assert isinstance(index.type, BlindIndex)
        message = f"an index follows its column and is not written alone; write {index.type.source!r}, and leave it out"
        raise NotSearchable(message, index.table.name, index.name)


def _is_null(value: Any) -> bool:
    if isinstance(value, BindParameter):
        return value.value is None and not value.required and value.callable is None
    return value is None or isinstance(value, Null)


def _with_several(statement: Any) -> Any:
    """`.values([…, …])`, whose rows SQLAlchemy takes as they are."""
    table = target_table(statement)
    indexes = indexes_of(table)
    several = []
    known: dict[Any, Column[Any] | None] = {}
    for number, row in enumerate(assigned_rows(statement)):
        values: dict[Any, Any] = {}
        for name, value in row.items():
            # rows mostly name the same columns; comparing those themselves would make SQL of it
            place = name if isinstance(name, str) else id(name)
            if place not in known:
                known[place] = column_of(statement, name)
            column = known[place]
            if column is None:
                values[name] = value
            elif not isinstance(column.type, BlindIndex):
                values[column.key] = typed(value, column, f"_m{number}") if is_target(column) else value
            elif column.type.source not in _keys(statement, row):
                _refuse_alone(column, [value], statement)
        for source, of_source in indexes.items():
            for key in of_source:
                if source in values:
                    values[key] = _of(values[source], table.c[key])
                elif _has_default(table.c[source], statement):
                    values[key] = bindparam(None, FOLLOWING, type_=table.c[key].type)
        several.append(values)
    statement = statement._generate()
    statement._multi_values = (several,)
    return statement


def _keys(statement: Any, names: Iterable[Any]) -> set[str]:
    return {column.key for name in names if (column := column_of(statement, name)) is not None}


def _with_upsert(statement: Any) -> Any:
    found = upsert_of(statement)
    if found is None or found[0] is not statement._post_values_clause:
        return statement
    clause, place = found
    table = target_table(statement)
    listed: list[tuple[Any, Any]] = []
    written: dict[str, Any] = {}
    indexes: list[tuple[Column[Any], Any]] = []
    for name, value in upserted(statement):
        column = column_of(statement, name)
        if column is None:
            refuse_unknown(statement)
        if not is_target(column):
            listed.append((column.key, value))
        elif isinstance(column.type, Encrypted):
            written[column.key] = _of_upsert(value, column)
            listed.append((column.key, written[column.key]))
        else:
            indexes.append((column, value))
    for column, _ in indexes:
        if column.type.source not in written:  # type: ignore[attr-defined]  # a BlindIndex
            _refuse_alone(column, [FOLLOWING], statement)
    for source, of_source in indexes_of(table).items():
        for key in of_source:
            if source in written:
                name = excluded(written[source])
                value = written[source] if name is None else getattr(statement, written[source].table.name)[key]
                listed.append((key, value if name else _of(value, table.c[key])))
    renewed = clause._clone()
    # a mapping or pairs, as it was
    setattr(renewed, place, type(getattr(clause, place))(listed))
    if getattr(renewed, "_parameter_ordering", None):
        renewed._parameter_ordering = [getattr(name, "key", name) for name, _ in listed]
    statement = statement._generate()
    statement._post_values_clause = renewed
    return statement


def _of_upsert(value: Any, column: Column[Any]) -> Any:
    if excluded(value) == column.key:
        return value
    try:
        value = typed(value, column)
    except NotSearchable:
        message = "an upsert may set it to a value or to excluded (MySQL: inserted), no other expression"
        raise NotSearchable(message, column.table.name, column.name) from None
    return value if isinstance(value, BindParameter | Null) else bindparam(None, value, type_=column.type)
