"""Whether a query asks of ciphertexts what they cannot answer: sorting, functions, comparisons of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models.aggregates import Count
from django.db.models.expressions import Col, Exists, OrderBy, Ref, Subquery
from django.db.models.lookups import IsNull
from django.db.models.sql import Query

from keyside.django.fields import EncryptedField
from keyside.django.grouping import check_alike
from keyside.django.lookups import LOOKUPS, refuse

_ANSWERED = (*LOOKUPS.values(), IsNull)


def check_searchable(compiler: Any, order_by: Any) -> None:
    """Raises NotSearchable."""
    for expression, _, _ in compiler.select or ():
        if not isinstance(expression, Col):
            _check(expression, None)
    for clause in (compiler.where, compiler.having, compiler.qualify):
        if clause is not None:
            _check(clause, None)
    for expression, _ in order_by or ():
        _check(expression, None)
    check_alike(compiler)


def check_aggregated(query: Any) -> None:
    """What an aggregate over a subquery computes with its columns. Raises NotSearchable."""
    for annotation in query.annotation_select.values():
        _check(annotation, None)


def _check(node: Any, parent: Any) -> None:
    if isinstance(node, Ref):
        _check(node.source, parent)
    elif isinstance(node, Col):
        if isinstance(node.target, EncryptedField):
            _check_column(node.target, parent)
    elif isinstance(node, Query | Subquery):
        # what is inside is inspected when it is compiled; here it matters whether its values are compared
        if parent is not None and not isinstance(node, Exists):
            for field in _selected(getattr(node, "query", node)):
                refuse(field, _name_of(parent), "a subquery selects it; list its values in Python, and compare those")
    else:
        # what none() and extra() put into a WHERE clause has no expressions inside
        for child in getattr(node, "get_source_expressions", tuple)():
            _check(child, node)


def _selected(query: Any) -> Iterator[EncryptedField]:
    """Encrypted fields among the columns that a subquery returns."""
    for one in (*query.select, *query.annotation_select.values()):
        expression = one.source if isinstance(one, Ref) else one
        if isinstance(expression, Col) and isinstance(expression.target, EncryptedField):
            yield expression.target
        elif isinstance(expression, Subquery) and not isinstance(expression, Exists):
            yield from _selected(expression.query)
    for part in query.combined_queries:
        yield from _selected(part)


def _check_column(field: EncryptedField, parent: Any) -> None:
    if isinstance(parent, _ANSWERED) or (isinstance(parent, Count) and not parent.distinct):
        return
    if isinstance(parent, OrderBy):
        refuse(field, "order_by", "ciphertexts have no order; sort in Python, or by another field")
    advice = "the database sees ciphertext only; compare with plain values, and compute in Python"
    refuse(field, _name_of(parent), advice)


def _name_of(expression: Any) -> str:
    return getattr(expression, "lookup_name", None) or type(expression).__name__
