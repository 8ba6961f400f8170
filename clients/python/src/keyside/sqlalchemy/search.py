"""Conditions on encrypted columns: what a blind index answers, and why everything else is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import and_, func, or_, type_coerce
from sqlalchemy import types as sqltypes
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ColumnElement, Null

from keyside.fields import NotSearchable

if TYPE_CHECKING:
    from keyside.sqlalchemy.types import BlindIndex, Encrypted

EQUALITY: Final = frozenset({
    operators.eq, operators.ne, operators.in_op, operators.not_in_op,
    operators.is_distinct_from, operators.is_not_distinct_from,
})  # fmt: skip
NULL_TESTS: Final = frozenset({operators.is_, operators.is_not})

ADVICE: Final[dict[str, str]] = {
    "order": "ciphertexts have no order; sort in Python, or by another column",
    "compare": "ciphertexts have no order; fetch the rows by other conditions and compare in Python",
    "pattern": "ciphertexts have no substrings; add a BlindIndex of the part that you search (last(4), 'domain')",
    "other": "the database sees ciphertext only; compute it in Python",
}


def refuse(column: ColumnElement[Any], what: str, advice: str) -> NoReturn:
    type_: Any = column.type
    own = type_.column
    table, name = (own.table.name, own.name) if own is not None else ("", "")
    raise NotSearchable(f"{what} cannot be answered on an encrypted column: {advice}", table, name)


def _advice(op: Any) -> str:
    if op in (operators.desc_op, operators.asc_op, operators.nulls_first_op, operators.nulls_last_op):
        return ADVICE["order"]
    if op in (operators.lt, operators.le, operators.gt, operators.ge, operators.between_op, operators.not_between_op):
        return ADVICE["compare"]
    name = getattr(op, "__name__", "")
    return ADVICE["pattern"] if any(word in name for word in ("like", "with", "contains", "match")) else ADVICE["other"]


def _name(op: Any) -> str:
    return getattr(op, "__name__", str(op)).removesuffix("_op").strip("_").upper()


def _is_null(values: tuple[Any, ...]) -> bool:
    return len(values) == 1 and (values[0] is None or isinstance(values[0], Null))


class EncryptedComparator(sqltypes.TypeDecorator.Comparator[Any]):
    """`==`, `!=`, `in_` by a blind index; IS NULL as ever; the rest raises NotSearchable."""

    def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
        if _is_null(other) and (op in NULL_TESTS or op in EQUALITY):
            return super().operate(op, *other, **options)
        if op not in EQUALITY:
            refuse(self.expr, _name(op), _advice(op))
        if any(isinstance(value, ColumnElement) and not isinstance(value, BindParameter) for value in other):
            # SQLAlchemy compares columns so to find them in lists; in a statement, `inspection` refuses it
            return super().operate(op, *other, **options)
        index = self._index()
        found: ColumnElement[Any] = index.operate(op, *other, **options)
        type_: Encrypted = self.expr.type  # type: ignore[assignment]  # this is its comparator
        return self._with_plaintext(index, found, op, other) if type_.migrating.reads_plaintext else found

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> ColumnElement[Any]:
        refuse(self.expr, _name(op), _advice(op))

    def _index(self) -> ColumnElement[Any]:
        """The blind index column beside this one, in the same table or alias."""
        from keyside.sqlalchemy.types import BlindIndex

        type_: Encrypted = self.expr.type  # type: ignore[assignment]  # this is its comparator
        table: Any = getattr(self.expr, "table", None)
        own = type_.column
        columns = table.c if table is not None else ()
        partial = []
        for column in columns:
            if isinstance(column.type, BlindIndex) and own is not None and column.type.source == own.key:
                if column.type.normalize.whole:
                    return column  # type: ignore[no-any-return]  # columns of any selectable
                partial.append(column.key)
        hint = f"; for a part of the value, compare {', '.join(partial)}" if partial else ""
        if own is not None and not partial and table is not own.table and len(own.table.c) != len(columns):
            hint = "; a subquery must select the BlindIndex column as well"
        name = own.name if own is not None else "…"
        refuse(self.expr, "equality", f"add a column BlindIndex({name!r}) to the table{hint}")

    def _with_plaintext(
        self, index: ColumnElement[Any], found: ColumnElement[Any], op: Any, other: tuple[Any, ...]
    ) -> ColumnElement[Any]:
        """Rows that were not encrypted yet have no index: they are compared as they are."""
        type_: Encrypted = self.expr.type  # type: ignore[assignment]  # this is its comparator
        plain: ColumnElement[Any] = type_coerce(self.expr, type_.impl_instance)
        values: Any = other[0]
        blind: BlindIndex = index.type  # type: ignore[assignment]  # an index column
        if blind.normalize.name == "casefold":
            plain = func.lower(func.trim(plain))
            values = [v.strip().lower() for v in values] if isinstance(values, list | tuple) else values.strip().lower()
        if op in (operators.ne, operators.not_in_op):
            still_plain = and_(index.is_(None), self.expr.is_not(None), plain.operate(op, values))
            return or_(and_(index.is_not(None), found), still_plain)
        return or_(found, and_(index.is_(None), plain.operate(op, values)))


class IndexComparator(sqltypes.TypeDecorator.Comparator[Any]):
    """A blind index is compared with plain values, for equality only."""

    def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
        if op in EQUALITY or op in NULL_TESTS:
            return super().operate(op, *other, **options)
        refuse(self.expr, _name(op), "a blind index knows equality only")

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> ColumnElement[Any]:
        refuse(self.expr, _name(op), "a blind index knows equality only")
