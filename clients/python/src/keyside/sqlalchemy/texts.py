"""Encrypted columns that a statement names as text: order_by("email"), text("patients.email"), literal_column("email").

Text that is more than names of columns cannot be understood here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from sqlalchemy import Select
from sqlalchemy.sql.elements import (
    ClauseElement,
    ColumnClause,
    ColumnElement,
    Over,
    TextClause,
    _textual_label_reference,
)
from sqlalchemy.sql.selectable import FromClause, Join, SelectBase

from keyside.sqlalchemy.search import ADVICE, refuse

_QUOTED: Final = r"[\"`\[]?(\w+)[\"`\]]?"
_NAME: Final = re.compile(
    rf"\s*(?:{_QUOTED}\s*\.\s*)*?{_QUOTED}\s*(?:asc|desc)?\s*(?:nulls\s+(?:first|last))?\s*", re.IGNORECASE
)
Concealed = Callable[[Any], "ColumnElement[Any] | None"]


def check_texts(statement: Any, criteria: Iterable[Any], concealed: Concealed) -> None:
    """Raise NotSearchable for text in a condition, an ordering or a grouping that is the name of an encrypted column.

    `statement`: a SELECT, UNION, UPDATE, DELETE or a join; `concealed` tells the columns that are encrypted.
    """
    columns = getattr(statement, "_raw_columns", ())
    # a column that is selected by its name shows what is stored, and is no question to the database
    computed = [raw for raw in columns if not isinstance(raw, FromClause | ColumnClause | TextClause)]
    ordering = [*getattr(statement, "_order_by_clauses", ()), *_windows(columns)]
    found = [
        (name, what, advice)
        for elements, what, advice in (
            (ordering, "ORDER BY", "order"),
            (getattr(statement, "_group_by_clauses", ()), "GROUP BY", "group"),
            (getattr(statement, "_distinct_on", ()), "DISTINCT", "group"),
            ([*criteria, *computed], "a comparison with an expression", "expression"),
        )
        for element in elements
        for name in _names(element)
    ]
    if not found:
        return
    known = _columns_by_name(statement)
    for name, what, advice in found:
        _refuse(concealed(known.get(name)), f"{what} {name!r}", advice)
    _check_positions(statement, concealed)


def _check_positions(statement: Any, concealed: Concealed) -> None:
    """`ORDER BY 1` is the first of the columns that are selected."""
    if not isinstance(statement, SelectBase):
        return
    selected = list(statement.selected_columns)
    for elements, what, advice in (
        (getattr(statement, "_order_by_clauses", ()), "ORDER BY", "order"),
        (getattr(statement, "_group_by_clauses", ()), "GROUP BY", "group"),
    ):
        for name in [name for element in elements for name in _names(element)]:
            if name.isdecimal() and 1 <= int(name) <= len(selected):
                _refuse(concealed(selected[int(name) - 1]), f"{what} {name}", advice)


def _refuse(column: ColumnElement[Any] | None, what: str, advice: str) -> None:
    if column is not None and hasattr(column.type, "keyring"):
        refuse(column, what, ADVICE[advice])


def _windows(columns: Iterable[Any]) -> Iterator[ClauseElement]:
    """What the window functions among the columns are ordered and partitioned by."""
    for raw in columns:
        for element in _within(raw):
            if isinstance(element, Over):
                yield from (part for part in (element.order_by, element.partition_by) if part is not None)


def _names(element: ClauseElement) -> Iterator[str]:
    for one in _within(element):
        text = None
        if isinstance(one, _textual_label_reference):
            text = one.element
        elif isinstance(one, TextClause):
            text = one.text
        elif isinstance(one, ColumnClause) and one.table is None:
            text = one.name
        for part in text.split(",") if text else ():
            named = _NAME.fullmatch(part)
            if named is not None:
                yield named[named.lastindex or 0].lower()


def _within(element: Any) -> Iterator[Any]:
    """An expression and its parts, but for subqueries, which are looked at by themselves."""
    stack = [element]
    while stack:
        one = stack.pop()
        if isinstance(one, SelectBase | FromClause) and not hasattr(one, "clause_expr"):
            continue
        yield one
        if isinstance(one, ClauseElement):
            stack.extend(one.get_children())


def _columns_by_name(statement: Any) -> dict[str, Any]:
    """The columns that a bare name may mean: those of the tables, and before them what is selected."""
    found: list[Any] = []
    if isinstance(statement, Select):
        found += [column for source in statement.get_final_froms() for column in _columns(source)]
    if isinstance(statement, SelectBase):
        found += statement.selected_columns
    else:
        found += _columns(getattr(statement, "table", statement))
    return {str(name).lower(): column for column in found for name in _names_of(column) if name}


def _names_of(column: Any) -> tuple[Any, ...]:
    """The column's own names, and the one of its attribute in a mapped class."""
    return getattr(column, "name", None), getattr(column, "_annotations", {}).get("proxy_key"), column.key


def _columns(source: Any) -> Iterator[Any]:
    if isinstance(source, Join):
        yield from _columns(source.left)
        yield from _columns(source.right)
    else:
        yield from source.c
