"""GROUP BY, DISTINCT and UNION: rows are taken together when they are equal, and equal values have unequal ciphertexts.

That is harmless where the key of their row is among what is compared: then rows are equal only when they are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any, Final

from django.db.models.expressions import Col, ColPairs, Ref
from django.db.models.sql.datastructures import Join

from keyside.django.fields import EncryptedField
from keyside.django.lookups import refuse

_ADVICE: Final = (
    "equal values have unequal ciphertexts; name the row's key beside it or the blind index in place of it, or do it in"
    " Python"
)


class _Parts:
    """The queries of a combined one while it is compiled. `merged`: equal rows become one."""

    def __init__(self, merged: bool) -> None:
        self.merged = merged
        self.fields: list[EncryptedField | None] | None = None
        """What stands at each position of the first."""

    def add(self, fields: list[EncryptedField | None]) -> None:
        """Raises NotSearchable when a query does not fit the first."""
        if self.fields is None:
            self.fields = fields
        for one, other in zip_longest(self.fields, fields):
            if one != other:
                advice = "every query must have it, and no other field, at its position; combine the results in Python"
                refuse(one or other, "a set operation", advice)


_parts: ContextVar[_Parts | None] = ContextVar("keyside.django.parts", default=None)


def check_alike(compiler: Any) -> None:
    """Raises NotSearchable for a GROUP BY or DISTINCT that would tell equal values apart."""
    query = compiler.query
    if query.group_by is not None:
        _check_keys(query, _grouped(compiler), "values() of an aggregate")
    if query.distinct_fields:
        for name in query.distinct_fields:
            field = query.names_to_path(name.split("__"), query.get_meta(), fail_on_missing=False)[1]
            if isinstance(field, EncryptedField):
                refuse(field, "distinct", _ADVICE)
    elif query.distinct:
        _check_keys(query, _selected(compiler), "distinct")


@contextmanager
def combining(*, merged: bool) -> Iterator[None]:
    """While the parts of a union, intersection or difference are compiled."""
    outer = _parts.get()
    parts = _Parts(merged or (outer is not None and outer.merged))
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)
    if outer is not None and parts.fields is not None:
        outer.add(parts.fields)


@contextmanager
def apart() -> Iterator[None]:
    """While a subquery is compiled, which is no part of what it stands in."""
    token = _parts.set(None)
    try:
        yield
    finally:
        _parts.reset(token)


def note_part(compiler: Any) -> None:
    """Once a query is set up. Raises NotSearchable when it is a part of a combined one that does not fit the others."""
    parts = _parts.get()
    if parts is None or compiler.query.combinator:
        return
    if parts.merged:
        _check_keys(compiler.query, _selected(compiler), "a set operation")
    targets = [getattr(expression, "target", None) for expression, _, _ in compiler.select]
    parts.add([target if isinstance(target, EncryptedField) else None for target in targets])


def _selected(compiler: Any) -> list[Col]:
    return _columns(expression for expression, _, _ in compiler.select)


def grouped(query: Any) -> set[tuple[str, str]]:
    """Columns of a GROUP BY beside what is selected, by alias and column."""
    return {(column.alias, column.target.column) for column in _columns(_named(query))}


def _grouped(compiler: Any) -> list[Col]:
    selected = [one for expression, _, _ in compiler.select for one in expression.get_group_by_cols()]
    return _columns([*_named(compiler.query), *selected])


def _named(query: Any) -> list[Any]:
    named = query.group_by if isinstance(query.group_by, tuple) else ()
    return [one if hasattr(one, "as_sql") else query.resolve_ref(one) for one in named]


def _columns(expressions: Iterable[Any]) -> list[Col]:
    found: list[Col] = []
    for one in expressions:
        expression = one.source if isinstance(one, Ref) else one
        found += expression.get_cols() if isinstance(expression, ColPairs) else [expression]
    return [one for one in found if isinstance(one, Col)]


def _check_keys(query: Any, columns: list[Col], what: str) -> None:
    known = {(column.alias, column.target.column) for column in columns}
    for column in columns:
        field = column.target
        if isinstance(field, EncryptedField) and not is_known(query, column.alias, field.model, known):
            refuse(field, what, _ADVICE)


def is_known(query: Any, alias: str, model: Any, known: set[tuple[str, str]]) -> bool:
    """Whether columns tell the row of an alias: its key, or that of a row that refers to it."""
    keys = {key.column for key in model._meta.pk_fields}
    if {(alias, key) for key in keys} <= known:
        return True
    join = query.alias_map.get(alias)
    if not isinstance(join, Join) or {theirs for _, theirs in join.join_cols} != keys:
        return False
    if {(join.parent_alias, own) for own, _ in join.join_cols} <= known:
        return True
    owner = getattr(join.join_field, "model", None)
    parent = query.alias_map.get(join.parent_alias)
    if owner is None or parent is None or owner._meta.db_table != parent.table_name:
        return False
    return is_known(query, join.parent_alias, owner, known)
