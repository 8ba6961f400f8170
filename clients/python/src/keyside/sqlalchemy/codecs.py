"""How the values of a column's own type become encodings and come back, so that they keep their Python type.

A codec speaks of three forms: the application's value, the value that `keyside.values` encodes, and what a plain column
would hold.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import DefaultDialect

from keyside.fields.codec import Reading
from keyside.values import InvalidValue, Json, Kind, Label, encode, text_encoding

Convert = Callable[[Any], Any]

_ANY_DIALECT: Final = DefaultDialect()


@dataclass(frozen=True)
class Codec(Reading):
    """`prepare` and `restore` map between the application's value and the one that is encoded; `kind` is what an
    encoding of the column must be, None for any; `read_plain` and `write_plain` speak with a plain column of text or
    bytes."""

    prepare: Convert
    restore: Convert | None
    kind: Kind | None
    read_plain: Convert
    write_plain: Convert
    read: Callable[[bytes], Any] | None = None

    def plain_of(self, storage: str) -> Convert:
        """What a plain column of this storage, "bytes" or "text", holds of a value: bytes are UTF-8 of the text."""
        if storage == "text" or self.kind is Kind.BYTES:
            return self.write_plain

        def write(value: Any) -> Any:
            plain = self.write_plain(value)
            return plain.encode() if isinstance(plain, str) else plain

        return write

    def of_plain(self, storage: str) -> Convert:
        """The value of what a plain column of this storage holds."""
        if storage == "text" or self.kind is Kind.BYTES:
            return self.read_plain

        def read(stored: Any) -> Any:
            return self.read_plain(
                str(bytes(stored), "utf-8") if isinstance(stored, bytes | bytearray | memoryview) else stored
            )

        return read

    def to_bytes(self) -> Callable[[Any], bytes]:
        """A function, since it runs for every value that is written."""
        if self.prepare is _text:
            return text_encoding
        prepare = self.prepare
        return lambda value: encode(prepare(value))


def _same(value: Any) -> Any:
    return value


def _only(*kinds: type, but: type | None = None) -> Convert:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds) or (but is not None and isinstance(value, but)):
            raise TypeError("another type than the column's")
        return value

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("another type than the column's")
    return str(value)


def _boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("neither true nor false")
    return bool(value)


def _read_boolean(stored: Any) -> bool:
    if isinstance(stored, str):
        return {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}[stored.lower()]
    return _boolean(stored)


def _integer(value: Any) -> int:
    return int(_only(int)(value))


def _float(value: Any) -> float:
    return float(_only(int, float, Decimal)(value))


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value)) if isinstance(value, float) else Decimal(_only(int, str, Decimal)(value))


def _uuid(value: Any) -> uuid.UUID:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(value)


def _duration_from_text(stored: Any) -> timedelta:
    return timedelta(seconds=float(stored))


def _parsed(kind: type, parse: Convert) -> Convert:
    """Reads what a plain column holds: the value itself, or its text."""

    def read(stored: Any) -> Any:
        return stored if isinstance(stored, kind) else parse(stored)

    return read


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _simple(prepare: Convert, kind: Kind, read: Convert, write: Convert = str, restore: Convert | None = None) -> Codec:
    return Codec(prepare, restore, kind, read, write)


# the first class that a type is an instance of, so subclasses come before their bases
_SIMPLE: Final[list[tuple[type[sqltypes.TypeEngine[Any]], Codec]]] = [
    (sqltypes.LargeBinary, _simple(_only(bytes, bytearray, memoryview), Kind.BYTES, bytes, bytes)),
    (sqltypes.String, _simple(_text, Kind.TEXT, _text, _text)),
    (sqltypes.Boolean, _simple(_boolean, Kind.BOOLEAN, _read_boolean, lambda value: "true" if value else "false")),
    (sqltypes.Integer, _simple(_integer, Kind.INTEGER, int)),
    (sqltypes.DateTime, _simple(_only(datetime), Kind.DATETIME, _parsed(datetime, datetime.fromisoformat), _iso)),
    (sqltypes.Date, _simple(_only(date, but=datetime), Kind.DATE, _parsed(date, date.fromisoformat), _iso)),
    (sqltypes.Time, _simple(_only(time), Kind.TIME, _parsed(time, time.fromisoformat), _iso)),
    (
        sqltypes.Interval,
        _simple(
            _only(timedelta),
            Kind.DURATION,
            _parsed(timedelta, _duration_from_text),
            lambda value: str(value.total_seconds()),
        ),
    ),
]


def codec_of(inner: sqltypes.TypeEngine[Any], dialect: Dialect | None = None) -> Codec:
    """The codec of a column type. `dialect`: the one whose JSON functions the application chose."""
    if isinstance(inner, sqltypes.TypeDecorator) and not isinstance(inner, sqltypes.Interval):
        return _decorated(inner, dialect or _ANY_DIALECT)
    if isinstance(inner, sqltypes.Enum):
        return _enumeration(inner)
    if isinstance(inner, sqltypes.JSON):
        return _json(dialect or _ANY_DIALECT)
    if isinstance(inner, sqltypes.ARRAY):
        return _array(inner, dialect)
    if isinstance(inner, sqltypes.Numeric | sqltypes.Float):
        return _numeric(inner)  # SQLAlchemy 2.1: a Float is no Numeric
    if isinstance(inner, sqltypes.Uuid):
        restore = None if inner.as_uuid else str
        return _simple(_uuid, Kind.UUID, lambda stored: (restore or _same)(_uuid(stored)), restore=restore)
    for kind, codec in _SIMPLE:
        if isinstance(inner, kind):
            return codec
    return Codec(_same, None, None, _same, str)


def _decorated(inner: sqltypes.TypeDecorator[Any], dialect: Dialect) -> Codec:
    below = codec_of(inner.impl_instance, dialect)

    def before(value: Any) -> Any:
        return inner.process_bind_param(value, dialect)

    def after(value: Any) -> Any:
        return inner.process_result_value(value, dialect)

    def restore(value: Any) -> Any:
        return after(value if below.restore is None else below.restore(value))

    # SQLAlchemy calls what a decorator overrides alone: the rest raises
    binds, reads = _overrides(inner, "process_bind_param"), _overrides(inner, "process_result_value")
    return Codec(
        (lambda value: below.prepare(before(value))) if binds else below.prepare,
        restore if reads else below.restore,
        below.kind,
        (lambda stored: after(below.read_plain(stored))) if reads else below.read_plain,
        (lambda value: below.write_plain(before(value))) if binds else below.write_plain,
    )


def _overrides(inner: sqltypes.TypeDecorator[Any], name: str) -> bool:
    return getattr(type(inner), name) is not getattr(sqltypes.TypeDecorator, name)


def _enumeration(inner: sqltypes.Enum) -> Codec:
    label_of = inner.bind_processor(_ANY_DIALECT) or _same  # type: ignore[no-untyped-call]  # untyped there
    labels = frozenset(inner.enums)

    def to_label(value: Any) -> Any:
        label = label_of(value)
        if label not in labels:
            # which a plain column's database refuses, or the type when it is read: then no row of the table is
            raise LookupError
        return label

    from_label = inner.result_processor(_ANY_DIALECT, None) or _same  # type: ignore[no-untyped-call]  # untyped there
    return Codec(
        lambda value: Label(to_label(value)),
        lambda label: from_label(str(label)),
        Kind.ENUMERATION,
        from_label,
        to_label,
    )


def _json(dialect: Dialect) -> Codec:
    dumps = getattr(dialect, "_json_serializer", None)
    loads = getattr(dialect, "_json_deserializer", None) or json.loads
    write = dumps or (lambda value: json.dumps(value, ensure_ascii=False))

    def prepare(value: Any) -> Json:
        if value is sqltypes.JSON.NULL:
            return Json(None)
        return Json(value) if dumps is None else Json(text=dumps(value))

    def read(data: bytes) -> Any:
        if data[:1] != b"\x1c":
            raise InvalidValue("not JSON, which the column's type asks for")
        return loads(str(data[1:], "utf-8"))

    def read_plain(stored: Any) -> Any:
        return loads(stored) if isinstance(stored, str | bytes) else stored

    return Codec(prepare, None, Kind.JSON, read_plain, write, None if loads is json.loads else read)


def _array(inner: sqltypes.ARRAY[Any], dialect: Dialect | None) -> Codec:
    item = codec_of(inner.item_type, dialect)

    def each(convert: Convert | None, values: Any) -> Any:
        if isinstance(values, list | tuple):
            return [each(convert, value) for value in values]
        return values if values is None or convert is None else convert(values)

    def prepare(values: Any) -> Any:
        return each(item.prepare, _only(list, tuple)(values))

    def restore(values: Any) -> Any:
        values = each(item.restore, values)
        return tuple(values) if inner.as_tuple else values

    return Codec(
        prepare,
        restore,
        Kind.ARRAY,
        lambda stored: each(item.read_plain, json.loads(stored) if isinstance(stored, str) else stored),
        lambda values: json.dumps(each(item.write_plain, values)),
    )


def _numeric(inner: sqltypes.Numeric[Any] | sqltypes.Float[Any]) -> Codec:
    if inner.asdecimal:
        return _simple(_decimal, Kind.DECIMAL, lambda stored: Decimal(str(stored)))
    return _simple(_float, Kind.FLOAT, float)
