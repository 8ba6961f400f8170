"""The encoding of typed values inside envelopes, and their canonical form for blind indexes: docs/spec/values.md.

    encode(date(2024, 2, 29))     b"\x162024-02-29"
    decode(b"\x162024-02-29")     date(2024, 2, 29)

Never pickle: nothing that is decoded runs code, and any language can read it.
"""

from __future__ import annotations

import enum
import json
import struct
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from typing import Any, Final

from keyside.errors import KeysideError


class InvalidValue(KeysideError, ValueError):
    """A value that the encoding cannot hold, or bytes that are no encoding. The message never holds either."""


class Kind(enum.IntEnum):
    """What the first byte says, version included."""

    TEXT = 0x10
    BYTES = 0x11
    INTEGER = 0x12
    FLOAT = 0x13
    DECIMAL = 0x14
    BOOLEAN = 0x15
    DATE = 0x16
    TIME = 0x17
    DATETIME = 0x18
    DURATION = 0x19
    UUID = 0x1A
    ENUMERATION = 0x1B
    JSON = 0x1C
    ARRAY = 0x1D


_first: Final = itemgetter(0)
_NULL: Final = 0xFFFFFFFF
_MICROSECOND: Final = timedelta(microseconds=1)
_UTC: Final = timezone.utc  # noqa: UP017  Python 3.10 has no datetime.UTC
_ANY_DAY: Final = date(2000, 1, 1)


class Json:
    """A value to be encoded as JSON, since a str or an int alone would be text or an integer.

    `text`: its JSON text, for values that only the application's own serialiser understands.
    """

    __slots__ = ("text", "value")

    def __init__(self, value: Any = None, text: str | None = None) -> None:
        self.value = value
        self.text = text

    def __repr__(self) -> str:
        return "Json(<encrypted>)"


class Label(str):
    """The label of an enumeration's member."""

    __slots__ = ()


def encode(value: Any, *, canonical: bool = False) -> bytes:
    """The encoding of a value, by its Python type: str, bytes, int, float, Decimal, bool, date, time, datetime,
    timedelta, UUID, Enum (its name), dict (as JSON), list and tuple (as an array), `Json`, `Label`.

    `canonical`: equal values give equal bytes. Raises InvalidValue.
    """
    encoder = _ENCODERS.get(type(value)) or _encoder_of(value)
    try:
        return encoder(value, canonical)
    except (UnicodeError, struct.error, OverflowError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, InvalidValue):
            raise
        # not chained: messages of these errors quote the value
        kind = f"a value of type {type(value).__name__}"
        if isinstance(value, Json | dict):
            kind = "a document with something in it that JSON has no form for"
        raise InvalidValue(f"{kind} cannot be encoded") from None


def decode(data: bytes) -> Any:
    """The value of an encoding. Enumerations come back as `Label`, JSON as what it holds. Raises InvalidValue."""
    decoder = _DECODERS.get(data[0]) if data else None
    if decoder is None:
        raise InvalidValue("the first byte names no kind of value that this version knows")
    try:
        return decoder(data)
    except (ValueError, struct.error, InvalidOperation, RecursionError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"not the encoding of a {Kind(data[0]).name.lower()}") from None


def decoder_of(kind: Kind) -> Callable[[bytes], Any]:
    """What decodes values of one kind, for whole columns; it does not look at the first byte."""
    return _DECODERS[kind]


def text_encoding(value: Any) -> bytes:
    """`encode` for text alone. Raises TypeError, UnicodeError."""
    if isinstance(value, str):
        return b"\x10" + value.encode()
    raise TypeError("not text")


def text_column(encodings: list[bytes]) -> list[str]:
    """The values of a column of nothing but text. Raises InvalidValue, UnicodeError."""
    if set(map(_first, encodings)) != {Kind.TEXT}:
        raise InvalidValue("not all are text")
    # decoded at once and taken apart where each begins, in a quarter of the time; unless a text holds such a character
    texts = b"".join(encodings).decode().split("\x10")
    if len(texts) == len(encodings) + 1:
        return texts[1:]
    return [encoding.decode()[1:] for encoding in encodings]


def _encoder_of(value: Any) -> Callable[[Any, bool], bytes]:
    if isinstance(value, enum.Enum) and not isinstance(value, str | int):
        return _enumeration
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder
    raise InvalidValue(f"no encoding for values of type {type(value).__name__}; see docs/spec/values.md for the kinds")


def _text(value: str, canonical: bool) -> bytes:
    return b"\x10" + value.encode()


def _bytes(value: bytes | bytearray | memoryview, canonical: bool) -> bytes:
    return b"\x11" + bytes(value)


def integer_payload(value: int) -> bytes:
    return int(value).to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True)


def _integer(value: int, canonical: bool) -> bytes:
    return b"\x12" + integer_payload(value)


def _float(value: float, canonical: bool) -> bytes:
    if canonical and value != value:
        raise InvalidValue("NaN equals nothing and cannot be indexed")
    return struct.pack(">Bd", Kind.FLOAT, value + 0.0 if canonical else value)


def _decimal(value: Decimal, canonical: bool) -> bytes:
    if value.is_snan():
        raise InvalidValue("a signalling NaN cannot be encoded")
    if canonical:
        return b"\x14" + plain_decimal(value).encode()
    return b"\x14" + str(value).encode()


def plain_decimal(value: Decimal) -> str:
    """Without exponent and without zeros at the end of a fraction. Raises InvalidValue for NaN."""
    if value.is_nan():
        raise InvalidValue("NaN equals nothing and cannot be indexed")
    if value.is_infinite():
        return str(value)
    if not value:
        return "0"
    if abs(value.adjusted()) > 1000:
        raise InvalidValue("a decimal of more than a thousand digits cannot be indexed")
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _boolean(value: bool, canonical: bool) -> bytes:
    return b"\x15\x01" if value else b"\x15\x00"


def _date(value: date, canonical: bool) -> bytes:
    return b"\x16" + value.isoformat().encode()


def _time(value: time, canonical: bool) -> bytes:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise InvalidValue("a time whose zone has no fixed offset: give it one, or use a datetime")
    if canonical and value.tzinfo is not None:
        value = datetime.combine(_ANY_DAY, value).astimezone(_UTC).timetz()
    return b"\x17" + value.isoformat().encode()


def _datetime(value: datetime, canonical: bool) -> bytes:
    if canonical and value.utcoffset() is not None:
        value = value.astimezone(_UTC)
    return b"\x18" + value.isoformat().encode()


def _duration(value: timedelta, canonical: bool) -> bytes:
    return b"\x19" + integer_payload(value // _MICROSECOND)


def _uuid(value: uuid.UUID, canonical: bool) -> bytes:
    return b"\x1a" + value.bytes


def _enumeration(value: enum.Enum, canonical: bool) -> bytes:
    return b"\x1b" + value.name.encode()


def _label(value: Label, canonical: bool) -> bytes:
    return b"\x1b" + value.encode()


def _json(value: Json, canonical: bool) -> bytes:
    text = value.text
    if canonical and text is not None:
        value, text = Json(json.loads(text)), None
    if text is None:
        text = json.dumps(value.value, ensure_ascii=False, separators=(",", ":"), sort_keys=canonical, allow_nan=False)
    return b"\x1c" + text.encode()


def _dict(value: dict[Any, Any], canonical: bool) -> bytes:
    return _json(Json(value), canonical)


def _array(value: list[Any] | tuple[Any, ...], canonical: bool) -> bytes:
    parts = [struct.pack(">BI", Kind.ARRAY, len(value))]
    for element in value:
        if element is None:
            parts.append(_NULL.to_bytes(4, "big"))
        else:
            encoded = encode(element, canonical=canonical)
            parts += (len(encoded).to_bytes(4, "big"), encoded)
    return b"".join(parts)


# order matters for subclasses only: a boolean is an int, a datetime is a date
_ENCODERS: Final[dict[type, Callable[[Any, bool], bytes]]] = {
    Label: _label,
    str: _text,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    bool: _boolean,
    int: _integer,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _duration,
    uuid.UUID: _uuid,
    Json: _json,
    dict: _dict,
    list: _array,
    tuple: _array,
}


def _decode_text(data: bytes) -> str:
    return str(data[1:], "utf-8")


def _decode_bytes(data: bytes) -> bytes:
    return data[1:]


def read_integer(payload: bytes) -> int:
    if not payload or (len(payload) > 1 and payload[0] in (0, 0xFF) and (payload[0] ^ payload[1]) < 0x80):
        raise InvalidValue("an integer that is not written in the fewest bytes")
    return int.from_bytes(payload, "big", signed=True)


def _decode_integer(data: bytes) -> int:
    return read_integer(data[1:])


def _decode_float(data: bytes) -> float:
    value: float = struct.unpack(">Bd", data)[1]
    return value


def _decode_decimal(data: bytes) -> Decimal:
    text = str(data[1:], "ascii")
    value = Decimal(text)
    if str(value) != text or value.is_snan():
        raise InvalidValue("a decimal that is not written as its scientific string")
    return value


def _decode_boolean(data: bytes) -> bool:
    if data not in (b"\x15\x00", b"\x15\x01"):
        raise InvalidValue("a boolean that is neither 0 nor 1")
    return data == b"\x15\x01"


def _iso(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    def decode_iso(data: bytes) -> Any:
        text = str(data[1:], "ascii")
        value = read(text)
        if value.isoformat() != text:
            raise InvalidValue("a date or time that is not written in the one form it has")
        return value

    return decode_iso


def _decode_duration(data: bytes) -> timedelta:
    try:
        return read_integer(data[1:]) * _MICROSECOND
    except OverflowError:
        raise InvalidValue("a duration longer than Python's") from None


def _decode_uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data[1:])


def _decode_label(data: bytes) -> Label:
    return Label(data[1:], "utf-8")


def _decode_json(data: bytes) -> Any:
    return json.loads(str(data[1:], "utf-8"))


def _decode_array(data: bytes) -> list[Any]:
    (count,) = struct.unpack_from(">I", data, 1)
    at = 5
    values: list[Any] = []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        at += 4
        if size == _NULL:
            values.append(None)
            continue
        if size > len(data) - at:
            raise InvalidValue("an array that ends inside an element")
        values.append(decode(data[at : at + size]))
        at += size
    if at != len(data):
        raise InvalidValue("an array with bytes behind its last element")
    return values


_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    Kind.TEXT: _decode_text,
    Kind.BYTES: _decode_bytes,
    Kind.INTEGER: _decode_integer,
    Kind.FLOAT: _decode_float,
    Kind.DECIMAL: _decode_decimal,
    Kind.BOOLEAN: _decode_boolean,
    Kind.DATE: _iso(date.fromisoformat),
    Kind.TIME: _iso(time.fromisoformat),
    Kind.DATETIME: _iso(datetime.fromisoformat),
    Kind.DURATION: _decode_duration,
    Kind.UUID: _decode_uuid,
    Kind.ENUMERATION: _decode_label,
    Kind.JSON: _decode_json,
    Kind.ARRAY: _decode_array,
}
