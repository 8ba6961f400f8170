"""Whether a query asks of ciphertexts what they cannot answer: sorting, functions, comparisons of columns."""

from __future__ import annotations

from typing import Any

from django.db.models.aggregates import Count
from django.db.models.expressions import Col, OrderBy
from django.db.models.lookups import IsNull
from django.db.models.sql import Query

from keyside.django.fields import EncryptedField
from keyside.django.lookups import LOOKUPS, refuse

_ANSWERED = (*LOOKUPS.values(), IsNull)


def check_searchable(compiler: Any, order_by: Any, group_by: Any) -> None:
    """Raises NotSearchable."""
    for expression, _, _ in compiler.select or ():
        if not isinstance(expression, Col):
            _check(expression, None)
    for clause in (compiler.where, compiler.having, compiler.qualify):
        if clause is not None:
            _check(clause, None)
    for expression, _ in order_by or ():
        _check(expression, None)


def _check(node: Any, parent: Any) -> None:
    if isinstance(node, Query) or node is None:
        return  # a subquery is inspected when it is compiled
    if isinstance(node, Col):
        if isinstance(node.target, EncryptedField):
            _check_column(node.target, parent)
        return
    for child in node.get_source_expressions():
        _check(child, node)


def _check_column(field: EncryptedField, parent: Any) -> None:
    if isinstance(parent, _ANSWERED) or (isinstance(parent, Count) and not parent.distinct):
        return
    if isinstance(parent, OrderBy):
        refuse(field, "order_by", "ciphertexts have no order; sort in Python, or by another field")
    what = getattr(parent, "lookup_name", None) or type(parent).__name__
    refuse(field, what, "the database sees ciphertext only; compare with plain values, and compute in Python")
