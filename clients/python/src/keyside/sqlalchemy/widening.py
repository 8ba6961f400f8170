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
    """The columns that a SELECT lacks to open its encrypted columns.

    Empty where adding one would change what the query returns (DISTINCT, GROUP BY): reading then says what is missing.
    """
    if not isinstance(statement, Select) or statement._group_by_clauses or statement._distinct:
        return []
    selected: list[Any] | None = None
    lacking: list[ColumnElement[Any]] = []
    for element in statement.selected_columns:
        column = encrypted_column(element)
        if column is None:
            continue
        if selected is None:
            selected = list(statement.selected_columns)
        lacking += _lacking(column, [*selected, *lacking])
    return lacking


def _lacking(column: ColumnElement[Any], selected: Iterable[Any]) -> list[ColumnElement[Any]]:
    type_: Any = column.type
    assert isinstance(type_, Encrypted)
    assert type_.column is not None  # else it would not count as encrypted
    names = [*type_.bind, *([type_.partition] if isinstance(type_.partition, str) else [])]
    found = []
    for name in names:
        own = type_.column.table.c.get(name)
        if own is None:
            continue
        if not any(is_of_row(other, own, column) for other in selected):
            lacking = beside(column, own)
            found += [] if lacking is None else [lacking]
    return found
