"""docs/spec/wire.md in plain Python: a MessagePack reader and writer by hand, requests, responses, refusals."""

import re
from dataclasses import dataclass
from enum import IntEnum

MAX_FRAME = 8 << 20
MAX_ITEMS = 131_072
MAX_CONTEXT = 65_535
MAX_ID = 2**32 - 1
MAX_PARTITION = 128
PRODUCT = b"keyside/0.1.0"
PROTOCOL_VERSION = b"1"


class Op(IntEnum):
    HELLO = 0
    ENCRYPT = 1
    DECRYPT = 2
    BLIND_INDEX = 3
    REENCRYPT = 4


class Code(IntEnum):
    BAD_REQUEST = 16
    DENIED = 17
    UNKNOWN_KEYRING = 18
    UNKNOWN_KEY = 19
    INVALID_CIPHERTEXT = 20
    KEY_DISABLED = 21
    RATE_LIMITED = 22
    OVERLOADED = 23
    KMS_UNAVAILABLE = 24
    INTERNAL = 25
    SHUTTING_DOWN = 26


@dataclass(frozen=True)
class Request:
    """A request whose shape and values are sound. Every str item and context is here as its UTF-8 bytes."""

    id: int
    op: Op
    keyring: str
    context: bytes | list[bytes | None] | None
    items: list[bytes | None]


@dataclass(frozen=True)
class Refusal:
    """What a bad frame gets: the error code, whether the connection closes, and the id (0: none was readable)."""

    code: Code
    closes: bool
    id: int


@dataclass(frozen=True)
class Answer:
    """A response: items when status is 0 or 1 (an int in the place of a failed item), else a message."""

    id: int
    status: int
    body: list[bytes | int | None] | str


class MalformedError(Exception):
    """The bytes are not the MessagePack that the spec allows at this place."""


class Reader:
    """Reads MessagePack values from the front of a body, the types of the protocol only."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, n: int) -> bytes:
        if n > len(self.body) - self.at:
            raise MalformedError
        self.at += n
        return self.body[self.at - n : self.at]

    def number(self, n: int) -> int:
        return int.from_bytes(self.take(n), "big")

    def unsigned(self) -> int:
        first = self.number(1)
        if first <= 0x7F:
            return first
        if 0xCC <= first <= 0xCF:
            return self.number(1 << (first - 0xCC))
        raise MalformedError

    def array(self) -> int:
        """The count of elements that an array's head announces."""
        first = self.number(1)
        if 0x90 <= first <= 0x9F:
            return first & 0x0F
        if first in (0xDC, 0xDD):
            return self.number(2 if first == 0xDC else 4)
        raise MalformedError

    def at_array(self) -> bool:
        return self.at < len(self.body) and (0x90 <= self.body[self.at] <= 0x9F or self.body[self.at] in (0xDC, 0xDD))

    def string(self) -> bytes:
        """The bytes of a str, whether they are UTF-8 or not."""
        first = self.number(1)
        if 0xA0 <= first <= 0xBF:
            return self.take(first & 0x1F)
        if 0xD9 <= first <= 0xDB:
            return self.take(self.number(1 << (first - 0xD9)))
        raise MalformedError

    def value(self) -> bytes | None:
        """nil, bin or str."""
        if self.at >= len(self.body):
            raise MalformedError
        first = self.body[self.at]
        if first == 0xC0:
            self.at += 1
            return None
        if 0xC4 <= first <= 0xC6:
            self.at += 1
            return self.take(self.number(1 << (first - 0xC4)))
        return self.string()

    def values(self) -> list[bytes | None]:
        return [self.value() for _ in range(self.array())]

    def end(self) -> None:
        if self.at != len(self.body):
            raise MalformedError


def parse_request(body: bytes, max_frame: int = MAX_FRAME) -> Request | Refusal:
    """What a sidecar makes of a frame's body (N bytes after the length).

    First the whole frame's shape, which closes the connection when it is wrong, then its values, which do not.
    """
    request_id = 0
    reader = Reader(body)
    try:
        if not 0 < len(body) <= max_frame or reader.array() != 5:
            raise MalformedError
        number = reader.unsigned()
        if number > MAX_ID:
            raise MalformedError
        request_id = number
        op = reader.unsigned()
        keyring = reader.string()
        context = reader.values() if reader.at_array() else reader.value()
        items = reader.values()
        reader.end()
    except MalformedError:
        return Refusal(Code.BAD_REQUEST, True, request_id)
    if op == Op.HELLO:
        return Request(request_id, Op.HELLO, "", None, [])
    if op in set(Op) and good_keyring(keyring) and good_context(context, len(items)) and len(items) <= MAX_ITEMS:
        return Request(request_id, Op(op), keyring.decode(), context, items)
    return Refusal(Code.BAD_REQUEST, False, request_id)


def good_keyring(keyring: bytes) -> bool:
    name, slash, partition = keyring.partition(b"/")
    if not re.fullmatch(rb"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", name):
        return False
    if not slash:
        return True
    try:
        partition.decode()
    except UnicodeDecodeError:
        return False
    return 1 <= len(partition) <= MAX_PARTITION and min(partition) >= 0x20 and 0x7F not in partition


def good_context(context: bytes | list[bytes | None] | None, items: int) -> bool:
    if isinstance(context, list):
        return len(context) == items and all(len(c or b"") <= MAX_CONTEXT for c in context)
    return len(context or b"") <= MAX_CONTEXT


def parse_response(body: bytes) -> Answer:
    """What a client makes of a response's body. Raises MalformedError."""
    reader = Reader(body)
    if reader.array() != 3:
        raise MalformedError
    response_id, status = reader.unsigned(), reader.unsigned()
    answer: list[bytes | int | None] | str
    if status >= 16:
        answer = reader.string().decode()
    elif status == 0:
        answer = [reader.value() for _ in range(reader.array())]
    elif status == 1:
        answer = [_value_or_code(reader) for _ in range(reader.array())]
    else:
        raise MalformedError
    reader.end()
    return Answer(response_id, status, answer)


def _value_or_code(reader: Reader) -> bytes | int | None:
    first = reader.body[reader.at : reader.at + 1]
    return reader.unsigned() if first and (first[0] <= 0x7F or 0xCC <= first[0] <= 0xCF) else reader.value()


def pack_unsigned(n: int) -> bytes:
    if n <= 0x7F:
        return bytes([n])
    size = next(i for i in range(4) if n < 1 << (8 << i))
    return bytes([0xCC + size]) + n.to_bytes(1 << size, "big")


def pack_bin(value: bytes) -> bytes:
    size = next(i for i in range(3) if len(value) < 1 << (8 << i))
    return bytes([0xC4 + size]) + len(value).to_bytes(1 << size, "big") + value


def pack_str(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    if len(value) < 32:
        return bytes([0xA0 + len(value)]) + value
    size = next(i for i in range(3) if len(value) < 1 << (8 << i))
    return bytes([0xD9 + size]) + len(value).to_bytes(1 << size, "big") + value


def pack_array(count: int) -> bytes:
    """An array's head."""
    if count < 16:
        return bytes([0x90 + count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def pack_value(value: bytes | str | int | None) -> bytes:
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return pack_unsigned(value)
    return pack_str(value) if isinstance(value, str) else pack_bin(value)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def build_request(
    request_id: int,
    op: int,
    keyring: str,
    context: bytes | str | list[bytes | str | None] | None,
    items: list[bytes | str | None],
) -> bytes:
    """A whole frame in the shortest form."""
    if isinstance(context, list):
        packed = pack_array(len(context)) + b"".join(map(pack_value, context))
    else:
        packed = pack_value(context)
    head = pack_array(5) + pack_unsigned(request_id) + pack_unsigned(op) + pack_str(keyring) + packed
    return frame(head + pack_array(len(items)) + b"".join(map(pack_value, items)))


def build_response(request_id: int, status: int, body: list[bytes | int | None] | str) -> bytes:
    """A whole frame in the shortest form. Status 0 or 1 takes items, 16 and more a message."""
    packed = pack_str(body) if isinstance(body, str) else pack_array(len(body)) + b"".join(map(pack_value, body))
    return frame(pack_array(3) + pack_unsigned(request_id) + pack_unsigned(status) + packed)
