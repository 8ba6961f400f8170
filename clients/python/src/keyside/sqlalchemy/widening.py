"""Selecting a bound column alone: the columns of its binding are fetched beside it and do not show in the result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select
from sqlalchemy.sql.elements import ColumnElement

from keyside.sqlalchemy.inspection import encrypted_column
from keyside.sqlalchemy.lineage import beside, is_of_row
from keyside.sqlalchemy.types import Encrypted


def companions(statement: Any) -> list[ColumnElement[Any]]:
    """The columns that a SELECT or a RETURNING lacks to open its encrypted columns.

    Empty where adding one would change what the query returns (DISTINCT, GROUP BY): reading then says what is missing.
    """
    if isinstance(statement, Select):
        if statement._group_by_clauses or statement._distinct:
            return []
        columns: Iterable[Any] = statement.selected_columns
    elif getattr(statement, "_returning", None):
        columns = statement.exported_columns
    else:
        return []
    selected: list[Any] | None = None
    lacking: list[ColumnElement[Any]] = []
    for element in columns:
        column = encrypted_column(element)
        if column is None:
            continue
        if selected is None:
            selected = list(columns)
        lacking += _lacking(column, [*selected, *lacking])
    return lacking


def widened(statement: Any, added: list[ColumnElement[Any]]) -> Any:
    """The statement with further columns behind its own."""
    return statement.add_columns(*added) if isinstance(statement, Select) else statement.returning(*added)


def _lacking(column: ColumnElement[Any], selected: Iterable[Any]) -> list[ColumnElement[Any]]:
    type_: Any = column.type
    assert isinstance(type_, Encrypted)
    assert type_.column is not None  # else it would not count as encrypted
    found = []
    for name in type_.needs:
        own = type_.column.table.c.get(name)
        if own is None:
            continue
        if not any(is_of_row(other, own, column) for other in selected):
            lacking = beside(column, own)
            found += [] if lacking is None else [lacking]
    return found
