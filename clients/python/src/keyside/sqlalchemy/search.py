"""Conditions on encrypted columns: what a blind index answers, and why everything else is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import Column, and_, or_
from sqlalchemy import types as sqltypes
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ClauseElement, ColumnElement
from sqlalchemy.sql.lambdas import PyWrapper
from sqlalchemy.sql.selectable import SelectBase

from keyside.fields import NotSearchable
from keyside.fields.normalize import FUNCTIONS
from keyside.sqlalchemy.given import clause, is_expression, is_list, is_null, typed
from keyside.sqlalchemy.lineage import bare, beside, is_of_row

if TYPE_CHECKING:
    from keyside.sqlalchemy.types import BlindIndex, Encrypted

EQUALITY: Final = frozenset({
    operators.eq, operators.ne, operators.in_op, operators.not_in_op,
    operators.is_distinct_from, operators.is_not_distinct_from,
})  # fmt: skip
MEMBERSHIP: Final = frozenset({operators.in_op, operators.not_in_op})
NULL_TESTS: Final = frozenset({operators.is_, operators.is_not})

ADVICE: Final[dict[str, str]] = {
    "order": "ciphertexts have no order; sort in Python, or by another column",
    "compare": "ciphertexts have no order; fetch the rows by other conditions and compare in Python",
    "pattern": "ciphertexts have no substrings; add a BlindIndex of the part that you search (last(4), 'domain')",
    "other": "the database sees ciphertext only; compute it in Python",
    "expression": "compare it with a value, or compare blind indexes",
    "group": "equal values have different ciphertexts; use a BlindIndex",
}

SYMBOLS: Final[dict[str, str]] = {
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "add": "+", "sub": "-", "mul": "*",
    "truediv": "/", "floordiv": "//", "mod": "%", "neg": "-", "inv": "~", "concat_op": "||", "getitem": "[]",
    "json_getitem_op": "[]", "json_path_getitem_op": "[]", "lshift": "<<", "rshift": ">>", "desc_op": "ORDER BY",
    "asc_op": "ORDER BY", "nulls_first_op": "ORDER BY", "nulls_last_op": "ORDER BY",
}  # fmt: skip


def refuse(column: ColumnElement[Any], what: str, advice: str) -> NoReturn:
    """Raise NotSearchable for an encrypted column, or for a blind index."""
    type_: Any = column.type
    own = type_.column
    table, name = (own.table.name, own.name) if own is not None else ("", "")
    kind = "an encrypted column" if hasattr(type_, "keyring") else "a blind index"
    raise NotSearchable(f"{what} cannot be answered on {kind}: {advice}", table, name)


def _advice(op: Any) -> str:
    if op in (operators.desc_op, operators.asc_op, operators.nulls_first_op, operators.nulls_last_op):
        return ADVICE["order"]
    if op in (operators.lt, operators.le, operators.gt, operators.ge, operators.between_op, operators.not_between_op):
        return ADVICE["compare"]
    name = getattr(op, "__name__", "")
    return ADVICE["pattern"] if any(word in name for word in ("like", "with", "contains", "match")) else ADVICE["other"]


def shown(op: Any) -> str:
    """An operator as people write it: `<`, `[]`, LIKE."""
    if isinstance(op, operators.custom_op):
        return op.opstring
    name = getattr(op, "__name__", str(op))
    return SYMBOLS.get(name.strip("_")) or name.removesuffix("_op").strip("_").replace("_", " ").upper()


class EncryptedComparator(sqltypes.TypeDecorator.Comparator[Any]):
    """`==`, `!=`, `in_` by a blind index; IS NULL as ever; the rest raises NotSearchable."""

    def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
        if len(other) == 1 and is_null(other[0]) and (op in NULL_TESTS or op in EQUALITY):
            return super().operate(op, *other, **options)
        if op not in EQUALITY:
            refuse(self.expr, shown(op), _advice(op))
        value = other[0]
        if isinstance(clause(value), ColumnElement) and is_expression(value) and op not in MEMBERSHIP:
            # SQLAlchemy compares columns so to find them in lists; in a statement, `inspection` refuses it
            return super().operate(op, *other, **options)
        if is_expression(value):
            refuse(self.expr, shown(op), ADVICE["expression"])
        if op in MEMBERSHIP and not isinstance(clause(value), BindParameter | PyWrapper):
            value = _listed(self.expr, op, value)
            if any(is_expression(one) for one in value):
                refuse(self.expr, shown(op), ADVICE["expression"])
        index = self._index()
        found: ColumnElement[Any] = index.operate(op, value, **options)
        type_: Encrypted = self.expr.type  # type: ignore[assignment]  # this is its comparator
        found = _without_index_known(self.expr, index, found, op)
        if not type_.migrating.reads_plaintext:
            return found
        if isinstance(value, PyWrapper):
            refuse(
                self.expr, "a variable of a lambda", "while the column is `migrating`, build the statement without it"
            )
        from keyside.sqlalchemy.unencrypted import with_plaintext

        return with_plaintext(self.expr, index, found, op, value)

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> ColumnElement[Any]:
        refuse(self.expr, shown(op), _advice(op))

    def _index(self) -> ColumnElement[Any]:
        """The first blind index of whole values beside this column, of the same row."""
        type_: Encrypted = self.expr.type  # type: ignore[assignment]  # this is its comparator
        own = type_.column
        declared: list[Any] = [] if own is None else [index for index in own.table.c if _indexes(index, own)]
        # in a union, other columns may stand beneath the first one's
        if own is not None and is_of_row(self.expr, own, self.expr):
            for index in declared:
                if index.type.normalize.whole and (found := beside(self.expr, index)) is not None:
                    return _of_entity(found, self.expr)
        if own is not None and getattr(bare(self.expr), "table", None) is None:
            refuse(self.expr, "equality", "it is no column of a table any more; " + ADVICE["expression"])
        refuse(self.expr, "equality", self._without_index(own, declared))

    def _without_index(self, own: Column[Any] | None, declared: list[Any]) -> str:
        """What to do about it."""
        whole = [index.key for index in declared if index.type.normalize.whole]
        if whole:
            return (
                f"a subquery must select the BlindIndex column as well ({' or '.join(whole)}), of the same table or"
                " alias; a union, in each of its branches"
            )
        advice = f"add a column BlindIndex({own.name if own is not None else '…'!r}) to the table"
        partial = ", ".join(index.key for index in declared)
        return f"{advice}; for a part of the value, compare {partial} ({FUNCTIONS})" if partial else advice


def _of_entity(index: ColumnElement[Any], column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The index as a column of the class that the encrypted column is mapped by: where the ORM puts a union in place of
    its table, it goes by that."""
    known = {name: one for name, one in column._annotations.items() if name in ("parententity", "parentmapper")}
    return index._annotate(known) if known else index


def _without_index_known(
    column: ColumnElement[Any], index: ColumnElement[Any], found: ColumnElement[Any], op: Any
) -> ColumnElement[Any]:
    """A condition on an index that a value without one is not equal by, rather than of unknown equality: that matters
    for `!=`, and under NOT. Where the value itself is NULL, it stays unknown."""
    if op in (operators.ne, operators.not_in_op):
        return or_(found, and_(index.is_(None), column.is_not(None)))
    if op in (operators.eq, operators.in_op):
        return and_(found, or_(index.is_not(None), column.is_(None)))
    return found


def _indexes(index: Column[Any], own: Column[Any]) -> bool:
    from keyside.sqlalchemy.types import BlindIndex

    return isinstance(index.type, BlindIndex) and index.type.source == own.key


class IndexComparator(sqltypes.TypeDecorator.Comparator[Any]):
    """A blind index is compared with plain values and with other blind indexes, for equality only."""

    def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
        if len(other) == 1 and is_null(other[0]) and (op in NULL_TESTS or op in EQUALITY):
            return super().operate(op, *other, **options)
        if op not in EQUALITY:
            refuse(self.expr, shown(op), "it knows equality only")
        value = other[0]
        if is_expression(value):
            if not isinstance(clause(value), ColumnElement | SelectBase):
                refuse(self.expr, shown(op), ADVICE["expression"])
            # whether it is comparable is seen in the statement, by `inspection`
            return super().operate(op, *other, **options)
        if op in MEMBERSHIP and not isinstance(clause(value), BindParameter | PyWrapper):
            value = _listed(self.expr, op, value)
        type_: BlindIndex = self.expr.type  # type: ignore[assignment]  # this is its comparator
        return super().operate(op, typed(value, type_.for_search(), type_.context), **options)

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> ColumnElement[Any]:
        refuse(self.expr, shown(op), "it knows equality only")


def _listed(column: ColumnElement[Any], op: Any, values: Any) -> list[Any]:
    """The values of a list, a set, a generator. SQLAlchemy's own error about anything else would quote it."""
    if isinstance(values, ClauseElement) or not is_list(values):
        refuse(column, f"{shown(op)} with a value that is no list", "give it a list of values")
    return list(values)
