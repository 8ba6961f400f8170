"""Row keys and partitions as reading the row will give them: "7" for an integer key would encrypt for another row."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Column, TypeDecorator
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from keyside.fields import BindingMissing

Convert: TypeAlias = "Callable[[Any], Any]"


LOOSE: Final = ("mysql", "mariadb", "mssql")
"""Databases whose texts are compared without regard to case, unless a collation says otherwise."""


def as_read(column: Column[Any], dialect: Dialect) -> Convert:
    """What turns a value for the column into what the column gives back. Raises BindingMissing where it cannot."""
    convert = _conversion(column.type, dialect)

    def process(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            # not chained: messages of these errors quote the value
            message = (
                f"ciphertexts are bound to {column.key}, which gives back another kind of value than this "
                f"{type(value).__name__}, so that the row would not open; give the value that it gives back: of its "
                "kind, with its zone, length and decimals"
            )
            raise BindingMissing(message, column.table.name, column.name) from None

    return process


def compares_loosely(column: Column[Any], dialect: Dialect) -> bool:
    """Whether the database finds other spellings of a text than the one that a row holds, as far as its type tells."""
    type_ = _declared(column.type, dialect)
    if not isinstance(type_, sqltypes.String) or isinstance(type_, sqltypes.Enum):
        return False
    collation = (type_.collation or "").lower()
    if dialect.name in LOOSE:
        return not collation.endswith(("_bin", "_bin2", "binary"))
    return type_.__visit_name__ == "CITEXT" or (dialect.name == "sqlite" and collation not in ("", "binary"))


def _declared(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """The type as it was declared for a database, below one of the application's own."""
    type_ = type_._variant_mapping.get(dialect.name, type_)
    return _declared(type_.impl_instance, dialect) if isinstance(type_, TypeDecorator) else type_


def _conversion(type_: TypeEngine[Any], dialect: Dialect) -> Convert:
    if isinstance(type_, TypeDecorator):
        return _decorated(type_, dialect)
    try:
        kind = type_.python_type
    except RuntimeError:  # what a type raises that names none (a subclass of it)
        return _as_it_is
    convert = _CONVERSIONS.get(kind, _Same(kind))
    kept = _kept(_declared(type_, dialect), dialect)
    if kept is None:
        return lambda value: value if type(value) is kind else convert(value)

    def checked(value: Any) -> Any:
        value = value if type(value) is kind else convert(value)
        return kept(value)

    return checked


def _kept(type_: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    """What refuses a value that the database would round, pad or take to another zone; None where it does not."""
    of_mysql = dialect.name in ("mysql", "mariadb")
    if isinstance(type_, sqltypes.Uuid) and not type_.as_uuid:
        return lambda value: str(UUID(value))
    if isinstance(type_, sqltypes.Numeric) and not isinstance(type_, sqltypes.Float):
        return _Scale(type_.scale, type_._effective_decimal_return_scale, dialect.name)
    if isinstance(type_, sqltypes.DateTime | sqltypes.Time):
        aware = bool(type_.timezone) and dialect.name not in ("sqlite", "mysql", "mariadb")
        return _Moment(aware, (getattr(type_, "fsp", None) or 0) if of_mysql else 6)
    if isinstance(type_, sqltypes.CHAR):
        return _Padded(type_.length or 1 if dialect.name == "postgresql" else None)
    if isinstance(type_, sqltypes.String) and dialect.name in LOOSE and not isinstance(type_, sqltypes.Enum):
        return _Padded(None)  # binary collations, too, take "a " for "a"
    if isinstance(type_, sqltypes.BINARY) and of_mysql:
        return _Padded(type_.length or 1)
    return None


class _Scale:
    """For numbers: no more decimals than the column keeps."""

    def __init__(self, scale: int | None, returned: int, dialect: str) -> None:
        if scale is None and dialect in ("mysql", "mariadb"):
            scale = 0
        elif scale is None and dialect == "sqlite":
            scale = returned
        self._scale = scale

    def __call__(self, value: Any) -> Any:
        if self._scale is not None and round(value, self._scale) != value:
            raise ValueError
        return value


class _Moment:
    """For datetimes and times: with a zone where the column has one, and no finer than it keeps them."""

    def __init__(self, aware: bool, digits: int) -> None:
        self._aware = aware
        self._digits = digits

    def __call__(self, value: datetime | time) -> datetime | time:
        if (value.tzinfo is not None) is not self._aware or value.microsecond % 10 ** (6 - self._digits):
            raise ValueError
        return value


class _Padded:
    """For texts and bytes of a fixed length, `length` None: for those whose blanks at the end are lost."""

    def __init__(self, length: int | None) -> None:
        self._length = length

    def __call__(self, value: Any) -> Any:
        if len(value) != self._length if self._length is not None else value.endswith(" "):
            raise ValueError
        return value


def _decorated(type_: TypeDecorator[Any], dialect: Dialect) -> Convert:
    """The way of a value through an application's own type, there and back."""
    own = type(type_)
    if own.bind_processor is not TypeDecorator.bind_processor:
        return _as_it_is
    inner = _conversion(type_.load_dialect_impl(dialect), dialect)
    given = own.process_bind_param is not TypeDecorator.process_bind_param
    taken = own.process_result_value is not TypeDecorator.process_result_value

    def convert(value: Any) -> Any:
        value = inner(type_.process_bind_param(value, dialect) if given else value)
        return type_.process_result_value(value, dialect) if taken else value

    return convert


def _as_it_is(value: Any) -> Any:
    return value


class _Same:
    """For kinds that nothing else is taken for."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self._kind) and not isinstance(value, enum.Enum):
            return value
        if issubclass(self._kind, enum.Enum) and isinstance(value, str):
            return self._kind[value]
        raise TypeError


def _integer(value: Any) -> int:
    if isinstance(value, str):
        same = not isinstance(value, enum.Enum) and str(int(value)) == value
    else:
        same = isinstance(value, int | float | Decimal) and int(value) == value
    if not same:
        raise TypeError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or isinstance(value, enum.Enum):
        raise TypeError
    return str(value)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise TypeError
    return Decimal(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return bytes(value)


_CONVERSIONS: Final[dict[type, Convert]] = {
    int: _integer,
    str: _text,
    Decimal: _decimal,
    float: _float,
    UUID: _uuid,
    date: _date,
    bytes: _bytes,
}
