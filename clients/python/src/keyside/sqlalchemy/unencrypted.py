"""Searching while a column still holds plaintext: rows of plaintext are compared as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import and_, func, literal_column, not_, or_
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ColumnElement, TypeCoerce

from keyside.fields import MASK, NotSearchable
from keyside.fields.declaration import MAGIC, TEXT_HEAD
from keyside.sqlalchemy.codecs import codec_of
from keyside.sqlalchemy.given import typed
from keyside.sqlalchemy.placeholders import WRONG_TYPE, plain_processor
from keyside.sqlalchemy.registry import installation_of


class StoredPlaintext(TypeCoerce[Any]):
    """What an encrypted column holds, compared with plaintext. Nothing but this module makes it."""

    inherit_cache = True


class PlainSearched(sqltypes.TypeDecorator[Any]):
    """The type of a value that is compared with stored plaintext, prepared as a plain column would hold it."""

    impl = sqltypes.LargeBinary
    cache_ok = True

    def __init__(self, encrypted: Any, normalize: str) -> None:
        super().__init__()
        self.encrypted = encrypted
        self.normalize = normalize
        self.impl = encrypted.impl_instance

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        field = self.encrypted.field(dialect)
        write_plain = codec_of(self.encrypted.inner, dialect).plain_of(field.storage)
        normal = _NORMAL.get(self.normalize) if field.storage == "text" else None

        def prepared(value: Any) -> Any:
            plain = write_plain(value)
            return plain if normal is None else normal(plain)

        def unfit(value: Any) -> NotSearchable:
            return NotSearchable(WRONG_TYPE, field.table, field.column)

        return plain_processor(field, installation_of(dialect) is not None, prepared, unfit)

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        return lambda value: MASK

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self


_NORMAL: dict[str, Callable[[str], str]] = {"casefold": lambda text: text.strip().lower(), "trim": str.strip}
_ALL_OF: Final = frozenset({operators.ne, operators.not_in_op, operators.is_distinct_from})
"""Operators that both spellings must fulfil, where one is enough for the others."""


def with_plaintext(
    column: ColumnElement[Any], index: ColumnElement[Any], found: ColumnElement[Any], op: Any, value: Any
) -> ColumnElement[Any]:
    """`found`, a condition on an index, for rows of ciphertext, and the same one on what the others hold: the release
    before changes plaintext and leaves the index as it was.

    Each half names its rows, so that neither is NULL for a row of the other: the condition may be negated.
    """
    encrypted: Any = column.type
    sealed = and_(column.is_not(None), _head(column) == (TEXT_HEAD if encrypted.stored_as_text else MAGIC))
    return or_(and_(sealed, found), and_(not_(sealed), _on_plaintext(column, index, op, value)))


def _head(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The first characters or bytes of what is stored, which tell ciphertext."""
    encrypted: Any = column.type
    type_: sqltypes.TypeEngine[Any] = sqltypes.Text() if encrypted.stored_as_text else sqltypes.LargeBinary()
    length = len(TEXT_HEAD if encrypted.stored_as_text else MAGIC)
    return func.substr(StoredPlaintext(column, type_), literal_column("1"), literal_column(str(length)), type_=type_)


def _on_plaintext(column: ColumnElement[Any], index: ColumnElement[Any], op: Any, value: Any) -> ColumnElement[Any]:
    """A comparison with the very spelling that is looked for, and with as much of the normalisation as SQL has."""
    encrypted: Any = column.type
    normalize = index.type.normalize.name  # type: ignore[attr-defined]  # an index column
    spelled = PlainSearched(encrypted, "exact")
    conditions = [StoredPlaintext(column, spelled).operate(op, typed(value, spelled, f"{encrypted.context}_spelled"))]
    if encrypted.stored_as_text and normalize in _NORMAL:
        type_ = PlainSearched(encrypted, normalize)
        normal: ColumnElement[Any] = func.trim(StoredPlaintext(column, type_), type_=type_)
        if normalize == "casefold":
            normal = func.lower(normal, type_=type_)
        conditions.append(normal.operate(op, typed(value, type_, f"{encrypted.context}_plain")))
    return and_(*conditions) if op in _ALL_OF else or_(*conditions)
