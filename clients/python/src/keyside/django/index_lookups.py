"""Conditions on blind indexes: their values are computed under the key of the partition that the conditions name."""

from __future__ import annotations

import copy
from typing import Any, Final

from django.db.models.expressions import Col
from django.db.models.lookups import Exact, In, IsNull, Lookup

from keyside.django.pinning import pinned_beside
from keyside.django.telling import Row, Told, row_of_values


def row_beside(compiler: Any, lookup: Any) -> Row:
    """What the conditions of a statement say of the row that one of them, of a column, is asked of."""
    return row_of_values(lookup.lhs.target.model, pinned_beside(compiler.query.where, lookup))


class _OfIndex(Lookup):
    rhs: Any

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return (
            super().as_sql(compiler, connection)
            if self._knows_row()
            else self._in_row(compiler).as_sql(compiler, connection)
        )

    def _knows_row(self) -> bool:
        """Whether the index needs none, or was told."""
        of_column = isinstance(self.lhs, Col) and self.lhs.target.declaration.needs_row
        return not of_column or any(isinstance(value, Told) for value in self._values())

    def _values(self) -> list[Any]:
        return [self.rhs]

    def _in_row(self, compiler: Any) -> Any:
        told = copy.copy(self)
        told.rhs = self._told(row_beside(compiler, self))
        return told

    def _told(self, row: Row) -> Any:
        return Told(self.rhs, row)


class IndexExact(_OfIndex, Exact):
    """`filter(ssn_last_four="6789")`."""

    def _knows_row(self) -> bool:
        return not self.rhs_is_direct_value() or super()._knows_row()


class IndexIn(_OfIndex, In):
    """`filter(ssn_last_four__in=[…])`."""

    def _knows_row(self) -> bool:
        return not self.rhs_is_direct_value() or not self._values() or super()._knows_row()

    def _values(self) -> list[Any]:
        values = self.rhs = list(self.rhs)  # it may be an iterator
        return values

    def _told(self, row: Row) -> Any:
        return [value if value is None or hasattr(value, "as_sql") else Told(value, row) for value in self._values()]


INDEX_LOOKUPS: Final[dict[str, type[Lookup]]] = {"exact": IndexExact, "in": IndexIn, "isnull": IsNull}
