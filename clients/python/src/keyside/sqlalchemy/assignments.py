"""What an INSERT or UPDATE assigns: columns and what stands beside them, however the statement says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from sqlalchemy import Column, Insert, Join, Update
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ClauseElement, Null
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.util import tables_from_leftmost
from sqlalchemy.util import immutabledict

from keyside.fields import NotSearchable
from keyside.sqlalchemy import given
from keyside.sqlalchemy.given import clause
from keyside.sqlalchemy.types import BlindIndex, Encrypted, encrypted_columns, index_columns

UPSERTED = ("update_values_to_set", "update")
"""Attributes of ON CONFLICT DO UPDATE and of ON DUPLICATE KEY UPDATE."""


def resolve(statement: Any) -> Any:
    """The statement that a lambda makes; any other as it is."""
    while isinstance(statement, LambdaElement):
        statement = statement._resolved
    return statement


def target_table(statement: Any) -> Any:
    """The table that a statement writes. The ORM writes the rows of a joined class table by table, with a statement
    that names the table of the class in all of them."""
    return _emitted_table(statement, statement.table)


def _emitted_table(statement: Any, otherwise: Any = None) -> Any:
    annotations: Any = statement._annotations
    if not annotations:
        return otherwise
    return annotations.get("_emit_insert_table", annotations.get("_emit_update_table", otherwise))


def column_of(statement: Any, name: Any) -> Column[Any] | None:
    """The column that a name, a column or a mapped attribute means as the target of a value, as SQLAlchemy takes it.

    None for what is no column of a table that the statement writes.
    """
    target = target_table(statement)
    first = next(tables_from_leftmost(target)) if isinstance(target, Join) else target
    if isinstance(name, str):
        return _named(statement, first.c, name)
    name = clause(name)
    table = getattr(name, "table", None)
    if table is None:
        # values() goes by the key, an upsert by the name
        known: Any = first.c.get(name.key), _with_name(first.c, getattr(name, "name", None))
        found = [column for column in known if column is not None]
        return found[0] if found and found[0] is found[-1] else None
    if table is first or table == target or any(table == other for other in _beside(statement, target)):
        of_table: Column[Any] | None = table.c.get(name.key)
        return of_table
    return None


def _named(statement: Any, columns: Any, name: str) -> Column[Any] | None:
    found: Column[Any] | None = columns.get(name)
    if found is None:
        # the set clause of an upsert takes the names of columns as well
        found = _with_name(columns, name)
    if found is None:
        mapper = getattr(statement._propagate_attrs.get("plugin_subject"), "mapper", None)
        attribute = None if mapper is None else mapper.column_attrs.get(name)
        found = None if attribute is None else columns.get(attribute.columns[0].key)
    return found


def _with_name(columns: Any, name: str | None) -> Column[Any] | None:
    return next((column for column in columns if column.name == name), None)


def _beside(statement: Any, target: Any) -> Iterator[Any]:
    """Tables that an UPDATE names beside its own: MySQL writes them as well."""
    yield from tables_from_leftmost(target)
    if isinstance(statement, Update):
        for element in (*statement._where_criteria, *[value for _, value in assigned(statement)]):
            yield from getattr(element, "_from_objects", ())


def refuse_unknown(statement: Any) -> NoReturn:
    """Raise NotSearchable for a target that is no column."""
    raise NotSearchable(
        "it sets what is no column of the table as it is declared, and might be an encrypted one by another name; give "
        "the column itself, or its key",
        target_table(statement).description,
    )


def is_target(column: Column[Any] | None) -> bool:
    """Whether plaintext must not be stored there, nor anything but the index of a value."""
    return column is not None and isinstance(column.type, Encrypted | BlindIndex)


def assigned(statement: Any) -> list[tuple[Any, Any]]:
    """What `.values(…)` and `.ordered_values(…)` set."""
    ordered = getattr(statement, "_ordered_values", None)
    pairs = list(ordered) if ordered else list((statement._values or {}).items())
    emitted = _emitted_table(statement) if pairs else None
    return pairs if emitted is None else [(column, value) for column, value in pairs if column.table == emitted]


def assigned_rows(statement: Any) -> list[dict[Any, Any]]:
    """The rows of `.values([…, …])`."""
    return [_by_name(row, target_table(statement)) for group in statement._multi_values or () for row in group]


def differing_rows(statement: Any) -> list[dict[Any, Any]]:
    """The first of the rows of `.values([…, …])`, and those that name other columns."""
    rows = assigned_rows(statement)
    return [*rows[:1], *[row for row in rows if row.keys() != rows[0].keys()]]


def _by_name(row: Any, table: Any) -> dict[Any, Any]:
    return dict(row) if isinstance(row, Mapping) else dict(zip(table.c.keys(), row, strict=False))


def reassigned(statement: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    """The statement with other assignments in place of those of `values` or `ordered_values`."""
    pairs = list(pairs)
    statement = statement._generate()
    if getattr(statement, "_ordered_values", None):
        statement._ordered_values = pairs
    else:
        statement._values = immutabledict(pairs)
    return statement


def upsert_of(statement: Any) -> tuple[Any, str] | None:
    """The clause of an upsert and the attribute that holds its assignments."""
    clause = getattr(statement, "_post_values_clause", None) if isinstance(statement, Insert) else None
    for element in () if clause is None else visitors.iterate(clause):
        for place in UPSERTED:
            if isinstance(getattr(element, place, None), Mapping | list):
                return element, place
    return None


def upserted(statement: Any) -> list[tuple[Any, Any]]:
    """What an upsert sets in a row that exists."""
    found = upsert_of(statement)
    if found is None:
        return []
    pairs = getattr(*found)
    return list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs)


def excluded(value: Any) -> str | None:
    """The column's key, of `excluded.column` (MySQL: `inserted.column`); None for anything else."""
    named = getattr(getattr(value, "table", None), "name", None) in ("excluded", "inserted")
    return str(value.key) if named and isinstance(value, Column) else None


def typed(value: Any, column: Column[Any], row: str = "") -> Any:
    """What is written to an encrypted column or an index, as a parameter of its own that its type processes.

    A literal, and a parameter of another type, would be stored as it is; one parameter in two places has one type, and
    one ciphertext. `row`: tells the rows of one statement apart. Raises NotSearchable for an SQL expression.
    """
    value = clause(value)
    if not isinstance(value, ClauseElement) or isinstance(value, Null):
        return value
    if not isinstance(value, BindParameter):
        message = "an SQL expression cannot be encrypted; compute the value in Python"
        raise NotSearchable(message, column.table.name, column.name)
    if given.is_named(value):
        return given.typed(value, column.type, f"{column.table.name}_{column.key}{row}")
    if value.type is column.type and not row and value.callable is None:
        return value
    return BindParameter(None, value.effective_value, type_=column.type, unique=True, required=value.required)


def indexes_of(table: Any) -> dict[str, list[str]]:
    """Encrypted columns and their indexes, by key."""
    found: dict[str, list[str]] = {}
    for column in index_columns(table):
        assert isinstance(column.type, BlindIndex)
        found.setdefault(column.type.source, []).append(column.key)
    return found


def needed(column: Column[Any]) -> set[str]:
    """Keys of the columns that a ciphertext of this column is bound to."""
    type_ = column.type
    assert isinstance(type_, Encrypted)
    return set(type_.needs)


def tables_of(statement: Any) -> Iterator[Any]:
    """The tables that a statement writes: one, or several on MySQL."""
    seen: list[Any] = []
    targets = (column_of(statement, name) for name, _ in assigned(statement))
    # of a join, the tables in it are written
    target = target_table(statement)
    own = [] if isinstance(target, Join) else [target]
    for table in (*own, *[column.table for column in targets if column is not None]):
        if not any(table == other for other in seen):
            seen.append(table)
            yield table


def of_table(statement: Any, table: Any, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """The assignments to columns of one table, by key."""
    found = {}
    for name, value in pairs:
        column = column_of(statement, name)
        if column is not None and column.table == table:
            found[column.key] = value
    return found


def concerns(statement: Any) -> bool:
    """Whether a statement may write anything encrypted."""
    return any(encrypted_columns(table) or index_columns(table) for table in tables_of(statement))
