"""Which columns of a selectable are of the same row: a subquery may take columns of one table from two of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column
from sqlalchemy.sql.elements import BindParameter, Cast, ColumnElement, Grouping, Label, Null, TypeCoerce


def beside(column: ColumnElement[Any], own: Column[Any]) -> ColumnElement[Any] | None:
    """The table's column `own` in the row that `column` is of; None when it does not stand there.

    `column` is one of the table itself, of an alias, or of a subquery over it.
    """
    table: Any = getattr(bare(column), "table", None)
    candidates = () if table is None else table.c
    return next((other for other in candidates if is_of_row(other, own, column)), None)


def is_of_row(other: Any, own: Column[Any], column: Any) -> bool:
    """Whether `other` is the table's column `own`, of the row that `column` is of."""
    other, column = bare(other), bare(column)
    table, others = getattr(column, "table", None), getattr(other, "table", None)
    if table is None or others is None or not _same(table, others):
        return False
    below, others_below = _below(column), _below(other)
    if not below:
        return _same(other, own)
    if len(below) != len(others_below):
        return False
    # of a union, each branch: the row of one with NULL in this column holds nothing to compare or open
    return all(_is_null(one) or is_of_row(two, own, one) for one, two in zip(below, others_below, strict=True))


def sources(column: Any) -> Iterator[Any]:
    """The columns and expressions that a column's values come from: one, or of a union one of each branch. NULL, which
    stands for no column, is left out."""
    column = bare(column)
    below = _below(column) if getattr(column, "table", None) is not None else []
    if below:
        for one in below:
            yield from sources(one)
    elif not _is_null(column):
        yield column


def bare(element: Any) -> Any:
    """What a label or parentheses stand around."""
    while isinstance(element, Label | Grouping):
        element = element.element
    return element


def _below(column: Any) -> list[Any]:
    """What a column of a selectable stands for in what it selects from; several for a union, one of each branch."""
    below = list(column._proxies)
    # a labelled column stands for the column, and for its label as well
    return below[:1] if len(below) == 2 and isinstance(below[1], Label) and _same(*map(bare, below)) else below


def _same(one: Any, other: Any) -> bool:
    """Whether two elements are one: an annotated copy hashes as the element that it is a copy of."""
    return one is other or hash(one) == hash(other)


def _is_null(element: Any) -> bool:
    while isinstance(element, Label | Grouping | Cast | TypeCoerce):
        element = element.clause if isinstance(element, Cast | TypeCoerce) else element.element
    return isinstance(element, Null) or (isinstance(element, BindParameter) and element.value is None)
