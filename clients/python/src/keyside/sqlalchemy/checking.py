"""The last look at a statement that writes, once it is compiled: whatever came before, no plaintext is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Column, Insert, Join, PrimaryKeyConstraint, UniqueConstraint, Update
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ClauseElement, ColumnClause, Null, TextClause

from keyside.fields import BindingMissing, NotSearchable, Stage
from keyside.sqlalchemy.assignments import (
    assigned,
    assigned_rows,
    column_of,
    concerns,
    differing_rows,
    excluded,
    indexes_of,
    is_target,
    needed,
    of_table,
    refuse_unknown,
    resolve,
    tables_of,
    target_table,
    upserted,
)
from keyside.sqlalchemy.declaring import check_bindings
from keyside.sqlalchemy.given import clause
from keyside.sqlalchemy.types import Encrypted, encrypted_columns

LONGEST_NAME: Final = 63
"""Bytes of a name in PostgreSQL."""


def writes_of(compiled: Any) -> Iterator[tuple[Any, bool]]:
    """Every INSERT and UPDATE of a compiled statement: itself, and, which the second says, those of its CTEs."""
    inside = [cte.element for cte in compiled.ctes or ()]
    for number, statement in enumerate((compiled.statement, *inside)):
        resolved = resolve(statement)
        if isinstance(resolved, Insert | Update):
            yield resolved, number > 0


def check_written(statement: Any, nested: bool, compiled: Any) -> None:
    """Raise NotSearchable for what would be stored as it is, BindingMissing for what would not open any more."""
    if concerns(statement):
        _check_targets(statement)
    for name, value in (*assigned(statement), *[pair for row in assigned_rows(statement) for pair in row.items()]):
        _check_value(column_of(statement, name), value)
    for name, value in upserted(statement):
        column = column_of(statement, name)
        if column is None or not is_target(column) or excluded(value) != column.key:
            _check_value(column, value)
    _check_join(statement, compiled)
    for table in tables_of(statement):
        if any(is_target(column) for column in table.c):
            _check_table(statement, table, nested, compiled)


def _check_targets(statement: Any) -> None:
    """Raise NotSearchable for targets that may be an encrypted column by another name, or the same column twice."""
    for pairs in (assigned(statement), *[row.items() for row in differing_rows(statement)], upserted(statement)):
        columns: list[Any] = []
        for name, _ in pairs:
            column = column_of(statement, name)
            if column is None and not _is_part(statement, name):
                refuse_unknown(statement)
            if column is not None and any(column is other for other in columns):
                raise NotSearchable("a statement sets it twice; set it once", column.table.name, column.name)
            columns.append(column)


def _is_part(statement: Any, target: Any) -> bool:
    """Whether a target is a part, such as an element of an array, of a column that nothing encrypted depends on."""
    if not isinstance(target, BinaryExpression):
        return False
    named = [element for element in visitors.iterate(target) if isinstance(element, ColumnClause | TextClause)]
    columns = [None if isinstance(element, TextClause) else column_of(statement, element) for element in named]
    bound = {key for table in tables_of(statement) for column in encrypted_columns(table) for key in needed(column)}
    return all(column is not None and not is_target(column) and column.key not in bound for column in columns)


def _check_value(column: Column[Any] | None, value: Any) -> None:
    if column is None or not is_target(column):
        return
    value = clause(value)
    own = isinstance(value, BindParameter) and getattr(value.type, "column", None) is column.type.column  # type: ignore[attr-defined]  # a target
    # of values() with names in place of columns: SQLAlchemy gives it the column's type
    untyped = isinstance(value, BindParameter) and value.type._isnull
    if isinstance(value, ClauseElement) and not (own or untyped or isinstance(value, Null)):
        message = "an SQL expression cannot be encrypted; compute the value in Python"
        if isinstance(value, BindParameter):
            message = "a literal of another type would be stored as it is; give values() the plain value"
        raise NotSearchable(message, column.table.name, column.name)


def _check_join(statement: Any, compiled: Any) -> None:
    """Raise NotSearchable for parameters that do not say which table of a join they are for."""
    target = target_table(statement)
    for column in target.c if isinstance(target, Join) else ():
        if is_target(column) and column.key in (compiled.column_keys or ()):
            message = "a parameter does not tell which table of the join it is for; name the column in values()"
            raise NotSearchable(message, column.table.name, column.name)


def _check_table(statement: Any, table: Any, nested: bool, compiled: Any) -> None:
    for column in encrypted_columns(table):
        # no value of it need be among the parameters
        check_bindings(column.type.column)  # type: ignore[attr-defined]  # an Encrypted type
    _check_select(statement, table)
    set_ = of_table(statement, table, assigned(statement))
    for row in differing_rows(statement):
        set_ |= of_table(statement, table, row.items())
    written = set(set_)
    if not nested and table == target_table(statement):
        written |= {key for key in compiled.column_keys or () if key in table.c}
    computed = (*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ()))
    written |= {str(column.key) for column in computed if getattr(column, "table", None) == table}
    _check_defaults(statement, table, written)
    _check_indexes(table, written, nested)
    if nested and assigned_rows(statement) and any(needed(column) for column in encrypted_columns(table)):
        raise BindingMissing("rows of an INSERT inside another statement are told apart by nothing", table.name)
    if isinstance(statement, Update):
        for column in changed_bindings(table, written):
            message = "its row key or partition is changed by an UPDATE that does not write it; set its value as well"
            raise BindingMissing(message, table.name, column.name)
    elif upserted(statement):
        _check_upsert(statement, table)


def _check_select(statement: Any, table: Any) -> None:
    if getattr(statement, "select", None) is None:
        return
    names = {getattr(column_of(statement, name), "key", None) for name in statement._select_names or table.c.keys()}
    indexed = indexes_of(table)
    for column in table.c:
        by_default = (
            column.key in indexed and column.default is not None and statement.include_insert_from_select_defaults
        )
        if is_target(column) and (column.key in names or by_default):
            message = "INSERT … FROM SELECT would store what the query returns as it is; insert the rows from Python"
            raise NotSearchable(message, table.name, column.name)


def _check_defaults(statement: Any, table: Any, written: set[str]) -> None:
    """Raise NotSearchable for a column that the statement leaves to what the database computes."""
    inserts = isinstance(statement, Insert)
    for column in encrypted_columns(table):
        default: Any = column.default if inserts else column.onupdate
        computed = default is not None and not (default.is_callable or default.is_scalar)
        computed = computed or (column.server_default if inserts else column.server_onupdate) is not None
        assert isinstance(column.type, Encrypted)
        if computed and column.key not in written and column.type.migrating is not Stage.PLAIN:
            message = "what the database computes cannot be encrypted; give the column a default that Python computes"
            raise NotSearchable(message, table.name, column.name)


def _check_indexes(table: Any, written: set[str], alone: bool) -> None:
    for source, indexes in indexes_of(table).items():
        for index in indexes:
            if source in written and index not in written:
                raise NotSearchable(
                    f"it is written without its index, and would not be found; set {index!r} to the same value, or use "
                    "a statement of its own",
                    table.name,
                    table.c[source].name,
                )
            if alone and index in written and source not in written:
                message = f"an index follows its column and is not written alone; write {source!r} as well"
                raise NotSearchable(message, table.name, table.c[index].name)


def changed_bindings(table: Any, written: set[str]) -> list[Column[Any]]:
    """Encrypted columns that would no longer open if `written` columns alone were updated."""
    return [column for column in encrypted_columns(table) if column.key not in written and needed(column) & written]


def _check_upsert(statement: Any, table: Any) -> None:
    """An upsert may change another row than the one that its values are bound to."""
    pairs = of_table(statement, table, upserted(statement))
    target = _conflict_target(statement, table)
    _check_indexes(table, set(pairs), True)
    for column in encrypted_columns(table):
        keys = needed(column)
        same = {key for key in keys if key in pairs and excluded(pairs[key]) == key}
        if column.key not in pairs:
            lost = bool((keys & set(pairs)) - (same & target))
        else:
            of_row = excluded(pairs[column.key]) == column.key or not statement._multi_values
            lost = bool(keys) and not (of_row and keys <= (target - set(pairs)) | same)
        if lost:
            raise BindingMissing(
                f"an upsert that updates it must find the row by {', '.join(sorted(keys))}, which it is bound to, or "
                "set those and itself to what excluded (MySQL: inserted) has; otherwise the row that exists gets a "
                "ciphertext of another row. Update such rows one by one",
                table.name,
                column.name,
            )


def _conflict_target(statement: Any, table: Any) -> set[str]:
    clause = statement._post_values_clause
    elements = getattr(clause, "inferred_target_elements", None) or ()
    named = getattr(clause, "constraint_target", None)
    if named is not None:
        matching = [one for one in (*table.constraints, *table.indexes) if named in (one.name, _given_name(one))]
        elements = getattr(matching[0], "columns", ()) if len(matching) == 1 else ()
    found = {column_of(statement, element) for element in elements if isinstance(element, str | Column)}
    return {column.key for column in found if column is not None}


def _given_name(constraint: Any) -> str | None:
    """What PostgreSQL calls a key or a unique constraint that is declared without a name; None where it shortens it."""
    if not isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) or isinstance(constraint.name, str):
        return None
    key = isinstance(constraint, PrimaryKeyConstraint)
    columns = ["pkey"] if key else [*[column.name for column in constraint.columns], "key"]
    name = "_".join([constraint.table.name, *columns])
    return name if len(name.encode()) <= LONGEST_NAME else None


def check_text(by_column: Mapping[Column[Any], list[str]]) -> None:
    """Raise NotSearchable for a value that text() writes without its indexes."""
    for column, names in by_column.items():
        for key in indexes_of(column.table).get(column.key, ()):
            if len(names) != 1 or len(by_column.get(column.table.c[key], ())) != 1:
                raise NotSearchable(
                    f"text() writes it without its index, so that it would not be found; use insert() or update(), or "
                    f"give it one parameter of its type, and one of the type of {key!r}",
                    column.table.name,
                    column.name,
                )
