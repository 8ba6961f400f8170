"""Searching while a column still holds plaintext: rows without an index are compared as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, func, or_
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import ColumnElement, TypeCoerce

from keyside.fields import MASK, NotSearchable
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


def with_plaintext(
    column: ColumnElement[Any], index: ColumnElement[Any], found: ColumnElement[Any], op: Any, value: Any
) -> ColumnElement[Any]:
    """A condition on an index, and the same one on what rows without an index hold.

    Each half names its rows, so that neither is NULL for a row of the other: the condition may be negated.
    """
    encrypted: Any = column.type
    normalize = index.type.normalize.name  # type: ignore[attr-defined]  # an index column
    type_ = PlainSearched(encrypted, normalize)
    plain: ColumnElement[Any] = StoredPlaintext(column, type_)
    if encrypted.stored_as_text and normalize in _NORMAL:
        plain = func.trim(plain, type_=type_)
    if encrypted.stored_as_text and normalize == "casefold":
        plain = func.lower(plain, type_=type_)
    still_plain = plain.operate(op, typed(value, type_, f"{type_.encrypted.context}_plain"))
    return or_(and_(index.is_not(None), found), and_(index.is_(None), still_plain))
