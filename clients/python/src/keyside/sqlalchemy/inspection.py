"""What conditions cannot say: whatever reaches an encrypted column without its comparator is found in the statement."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from sqlalchemy import Select
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, Cast, ColumnElement, Grouping, Label, Null, UnaryExpression
from sqlalchemy.sql.functions import FunctionElement

from keyside.sqlalchemy.search import ADVICE, NULL_TESTS, refuse
from keyside.sqlalchemy.types import Encrypted

_checked: WeakSet[Any] = WeakSet()


def check_searchable(compiled: Any) -> None:
    """Raise NotSearchable for a use of ciphertext as if it were the value. Once for every cached statement."""
    statement = getattr(compiled, "statement", None)
    if statement is None or compiled in _checked:
        return
    for element in visitors.iterate(statement):
        _check(element)
    _checked.add(compiled)


def encrypted_column(element: Any) -> ColumnElement[Any] | None:
    """The element as a column of an Encrypted type; None for anything else."""
    while isinstance(element, Grouping | Label):
        element = element.element
    own = getattr(element, "type", None)
    if isinstance(own, Encrypted) and own.column is not None and getattr(element, "table", None) is not None:
        found: ColumnElement[Any] = element
        return found
    return None


def _check(element: Any) -> None:
    if isinstance(element, BinaryExpression):
        for one, other in ((element.left, element.right), (element.right, element.left)):
            column = encrypted_column(one)
            if column is not None and not (element.operator in NULL_TESTS and isinstance(other, Null)):
                refuse(column, "a comparison with an expression", "compare it with a value, or compare blind indexes")
    elif isinstance(element, UnaryExpression):
        column = encrypted_column(element.element)
        if column is not None:
            ordering = element.modifier in (operators.desc_op, operators.asc_op)
            refuse(column, "ORDER BY" if ordering else "DISTINCT", ADVICE["order" if ordering else "other"])
    elif isinstance(element, FunctionElement):
        if getattr(element, "name", "") != "count":
            _refuse_any(element.clauses, "a function", ADVICE["other"])
    elif isinstance(element, Cast):
        _refuse_any([element.clause], "CAST", ADVICE["other"])
    elif isinstance(element, Select):
        _refuse_any(element._order_by_clauses, "ORDER BY", ADVICE["order"])
        _refuse_any(element._group_by_clauses, "GROUP BY", "equal values have different ciphertexts; use a BlindIndex")
        if element._distinct:
            _check_distinct(element)


def _check_distinct(statement: Select[Any]) -> None:
    selected = list(statement.selected_columns)
    for element in selected:
        column = encrypted_column(element)
        if column is not None:
            keys = column.type.column.table.primary_key  # type: ignore[attr-defined]  # an Encrypted type
            if not any(other.shares_lineage(key) for key in keys for other in selected):
                refuse(column, "DISTINCT", "equal values have different ciphertexts; use a BlindIndex")


def _refuse_any(elements: Any, what: str, advice: str) -> None:
    for element in elements:
        column = encrypted_column(element)
        if column is not None:
            refuse(column, what, advice)
