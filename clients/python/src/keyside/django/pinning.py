"""What conditions say of the row: columns of one table that they hold to one value."""

from __future__ import annotations

from typing import Any

from django.db.models.expressions import Col, ColPairs
from django.db.models.lookups import Exact


def pinned(where: Any, alias: str) -> dict[str, Any]:
    """Values by attribute name of the table with this alias, which hold for every row that fulfils the conditions."""
    if where.negated or where.connector != "AND":
        return {}
    return _among(where, alias)


def pinned_beside(where: Any, lookup: Any) -> dict[str, Any]:
    """The same for the rows that a condition is asked of: also by those that it is joined to with AND."""
    alias = lookup.lhs.alias
    found = _beside(where, lookup, alias)
    return pinned(where, alias) if found is None else found


def _among(where: Any, alias: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in where.children:
        if hasattr(child, "children"):
            found |= pinned(child, alias)
        elif isinstance(child, Exact) and child.rhs_is_direct_value():
            if isinstance(child.lhs, Col):
                pairs = [(child.lhs, child.rhs)]
            elif isinstance(child.lhs, ColPairs):
                # unlike those of other conditions, its values are prepared only when the statement is compiled
                pairs = [
                    (column, column.target.get_prep_value(value))
                    for column, value in zip(child.lhs.get_cols(), child.rhs, strict=True)
                    if not hasattr(value, "resolve_expression")
                ]
            else:
                continue
            found |= {column.target.attname: value for column, value in pairs if column.alias == alias}
    return found


def _beside(where: Any, lookup: Any, alias: str) -> dict[str, Any] | None:
    """None when the condition is none of these."""
    for child in where.children:
        if child is lookup:
            below: dict[str, Any] | None = {}
        else:
            below = _beside(child, lookup, alias) if hasattr(child, "children") else None
        if below is not None:
            # a negated AND negates what is joined, so that its parts still speak of the same row
            return (_among(where, alias) if where.connector == "AND" else {}) | below
    return None
