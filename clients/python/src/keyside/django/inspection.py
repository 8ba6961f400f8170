"""Whether a query asks of ciphertexts what they cannot answer: sorting, functions, comparisons of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models.aggregates import Count
from django.db.models.expressions import Col, Exists, OrderBy, Ref, Subquery, Value, When
from django.db.models.lookups import IsNull, Lookup
from django.db.models.sql import Query

from keyside.django.fields import EncryptedField
from keyside.django.grouping import check_alike
from keyside.django.indexing import BlindIndexField
from keyside.django.lookups import LOOKUPS, refuse
from keyside.fields import FieldUnwritable, NotSearchable

_ANSWERED = (*LOOKUPS.values(), IsNull)


def check_searchable(compiler: Any, order_by: Any) -> None:
    """Raises NotSearchable."""
    for expression, _, _ in compiler.select or ():
        if not isinstance(expression, Col):
            _check_type(expression)
            _check(expression, None)
    check_conditions(compiler.where, compiler.having, compiler.qualify)
    for expression, _ in order_by or ():
        _check(expression, None)
    check_alike(compiler)


def check_conditions(*clauses: Any) -> None:
    """Raises NotSearchable."""
    for clause in clauses:
        if clause is not None:
            _check(clause, None)


def check_assigned(field: Any, expression: Any) -> None:
    """What a plain column is set to. Raises FieldUnwritable for a ciphertext, NotSearchable for what one cannot
    answer."""
    if encrypted_in(expression) is not None:
        message = "the database cannot decrypt what this expression copies there; read the rows, and write values"
        raise FieldUnwritable(message, field.model._meta.db_table, field.column)
    _check(expression, None)


def check_chosen(expression: Any) -> None:
    """The conditions that choose what an encrypted column is set to. Raises NotSearchable."""
    if isinstance(expression, When):
        check_conditions(expression.condition)
        expression = expression.result
    for child in expression.get_source_expressions():
        check_chosen(child)


def encrypted_in(expression: Any) -> EncryptedField | None:
    """The encrypted field whose ciphertexts an expression gives as they are."""
    return next((field for field in _outputs(expression) if isinstance(field, EncryptedField)), None)


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
            _check_subquery(node, parent)
    else:
        children = _children(node)
        if isinstance(node, Lookup):
            _check_indexes(node, children)
        for child in children:
            _check(child, node)


def _children(node: Any) -> list[Any]:
    # what none() and extra() put into a WHERE clause has no expressions inside
    children = list(getattr(node, "get_source_expressions", tuple)())
    if isinstance(node, Lookup) and isinstance(node.rhs, list | tuple | set):
        children += [one for one in node.rhs if hasattr(one, "resolve_expression")]
    return children


def _outputs(expression: Any) -> Iterator[Any]:
    """Fields whose stored values an expression gives, or a subquery in its rows."""
    if isinstance(expression, Col):
        yield expression.target
    elif isinstance(expression, Ref):
        yield from _outputs(expression.source)
    elif isinstance(expression, Value):
        # what a constraint compares the index of an object with; it is sent as an index
        if isinstance(expression._output_field_or_none, BlindIndexField):
            yield expression.output_field
    elif isinstance(expression, Query):
        for one in (*expression.select, *expression.annotation_select.values(), *expression.combined_queries):
            yield from _outputs(one)
    elif isinstance(expression, Subquery) and not isinstance(expression, Exists):
        yield from _outputs(expression.query)


def _check_type(expression: Any) -> None:
    """A subquery is read as what it selects, unless it is declared to be something else."""
    if isinstance(expression, Query | Subquery):
        field = encrypted_in(expression)
        told = None if field is None else expression.output_field
        if field is not None and not isinstance(getattr(told, "base_field", told), EncryptedField):
            refuse(field, "a subquery of another type", "leave out its output_field, so that its values are decrypted")


def _check_indexes(lookup: Lookup, sides: list[Any]) -> None:
    """Raises NotSearchable when a blind index is compared with a column whose equal values have other indexes."""
    left, *others = [list(_outputs(one)) for one in sides] or [[]]
    for right in others:
        indexes = [field for field in (*left, *right) if isinstance(field, BlindIndexField)]
        if indexes and not (len(left) == len(right) == 1 and len(indexes) == 2 and _comparable(*indexes)):
            raise NotSearchable(
                f"{lookup.lookup_name} of a blind index and another column: equal values are different there; give both"
                " indexes the same keyring, normalisation and context, or compare with plain values",
                indexes[0].model._meta.db_table,
                indexes[0].column,
            )


def _comparable(one: BlindIndexField, other: BlindIndexField) -> bool:
    first, second = one.declaration, other.declaration
    return (first.keyring, first.partition, first.prefix, first.normalize.name) == (
        second.keyring,
        second.partition,
        second.prefix,
        second.normalize.name,
    )


def _check_subquery(node: Any, parent: Any) -> None:
    field = encrypted_in(node)
    if field is None or isinstance(parent, IsNull) or (isinstance(parent, Count) and not parent.distinct):
        return
    refuse(field, _name_of(parent), "a subquery selects it; list its values in Python, and compare those")


def _check_column(field: EncryptedField, parent: Any) -> None:
    if isinstance(parent, _ANSWERED) or (isinstance(parent, Count) and not parent.distinct):
        return
    if isinstance(parent, OrderBy):
        refuse(field, "order_by", "ciphertexts have no order; sort in Python, or by another field")
    advice = "the database sees ciphertext only; compare with plain values, and compute in Python"
    refuse(field, _name_of(parent), advice)


def _name_of(expression: Any) -> str:
    return getattr(expression, "lookup_name", None) or type(expression).__name__
