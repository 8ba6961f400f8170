"""Frames of docs/spec/wire.md: building requests, reading answers. Bytes in, bytes out; no sockets here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgpack  # type: ignore[import-untyped]  # msgpack ships no types

from keyside.errors import ProtocolError

HELLO: Final = 0
ENCRYPT: Final = 1
DECRYPT: Final = 2
BLIND_INDEX: Final = 3
REENCRYPT: Final = 4

BAD_REQUEST: Final = 16
CLOSING: Final = frozenset({BAD_REQUEST, 26})
"""Refusals after which the sidecar closes, or may close: BAD_REQUEST and SHUTTING_DOWN."""

MAX_FRAME: Final = 8 << 20
MAX_ITEMS: Final = 131_072
MAX_CONTEXT: Final = 65_535
MAX_ID: Final = 2**32 - 1
GROWTH: Final = 48
"""A response is at most so many bytes an item longer than its request."""
ANSWER_SLACK: Final = 4096
"""Room for a response's head, or the message of a refusal."""

Value: TypeAlias = "bytes | str | None"
Context: TypeAlias = "bytes | str | None"
Contexts: TypeAlias = "bytes | str | Sequence[Context] | None"
Body: TypeAlias = "list[bytes | int | None] | str"

_NONE: Final = type(None)
_KINDS: Final = {0: {bytes, _NONE}, 1: {bytes, _NONE, int}}
"""Status to the types of its items; exact types, since a boolean is an int to Python."""


class Hello(NamedTuple):
    """What a sidecar says of itself."""

    product: str
    protocol: str
    max_frame: int
    max_items: int


class Answer(NamedTuple):
    """A response. `body` is a list when status is 0 or 1 (an int is the code of a failed item), else the message."""

    number: int
    status: int
    body: Body
    nulls: bool
    """Whether some items are None."""


_BIN8: Final = [b"\xc4" + bytes([size]) for size in range(256)]
_START: Final = [b"\x95" + bytes([number]) for number in range(128)]
# the first five bytes of a response that is `total` bytes long: its length and the head of an array of 3
_RESPONSE: Final = [total.to_bytes(4, "big") + b"\x93" for total in range(262)]
_ONE_GOOD: Final = b"\x00\x91\xc4"
SHORT: Final = 265
"""The longest frame with one good value of under 256 bytes."""


def new_packer() -> msgpack.Packer:
    return msgpack.Packer(autoreset=True)


def head_of(op: int, keyring: str, context: bytes | None) -> bytes:
    """What lies between the id and the value in a batch of one."""
    return b"".join((bytes([op]), msgpack.packb(keyring), msgpack.packb(context), b"\x91"))


def single(number: int, head: bytes, value: bytes) -> bytes:
    """The frame of a batch of one. `number` is 1 to 127."""
    size = len(value)
    if size < 256:
        return b"".join(((len(head) + size + 4).to_bytes(4, "big"), _START[number], head, _BIN8[size], value))
    item = b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")
    return b"".join(((2 + len(head) + len(item) + size).to_bytes(4, "big"), _START[number], head, item, value))


def batch(packer: msgpack.Packer, number: int, op: int, keyring: str, context: Contexts, items: list[Value]) -> bytes:
    """The frame of any request. Raises TypeError for items that MessagePack cannot hold."""
    body: bytes = packer.pack((number, op, keyring, context, items))
    return len(body).to_bytes(4, "big") + body


def renumbered(frame: bytes, number: int) -> bytes:
    """The frame of a request with another id; both are 1 to 127."""
    return b"".join((frame[:4], _START[number], frame[6:]))


def short_value(frame: bytes, number: int) -> bytes | None:
    """The value in a frame that is a good answer to a batch of one, if it is the shortest form; else None: use
    `read`."""
    total = len(frame)
    if (
        10 <= total <= SHORT
        and frame[5] == number
        and frame[9] == total - 10
        and frame[6:9] == _ONE_GOOD
        and frame[:5] == _RESPONSE[total - 4]
    ):
        return frame[10:]
    return None


def read(body: bytes | bytearray | memoryview) -> Answer:
    """An answer from the body of its frame (without the length). Raises ProtocolError."""
    try:
        fields = msgpack.unpackb(body, max_map_len=0, max_ext_len=0)
    except ValueError:
        raise ProtocolError("the answer is not MessagePack that the protocol allows") from None
    if type(fields) is not list or len(fields) != 3 or type(fields[0]) is not int or type(fields[1]) is not int:
        raise ProtocolError("the answer is not a response")
    number, status, result = fields
    kinds = set(map(type, result)) if type(result) is list else set()
    if status >= BAD_REQUEST:
        good = type(result) is str
    else:
        good = type(result) is list and status in _KINDS and kinds <= _KINDS[status]
    if status == 1 and good:
        good = all(item >= BAD_REQUEST for item in result if type(item) is int)
    if not good or number < 0:
        raise ProtocolError("the answer is not a response")
    return Answer(number, status, result, _NONE in kinds)


def check(answer: Answer, number: int, items: Sequence[Value]) -> None:
    """Raise ProtocolError unless the answer belongs to request `number` with these items."""
    if answer.number != number and not (answer.number == 0 and answer.status == BAD_REQUEST):
        raise ProtocolError("the answer belongs to no request of this connection")
    if answer.status >= BAD_REQUEST:
        return
    if len(answer.body) != len(items):
        raise ProtocolError("the answer has another number of items than the request")
    if answer.nulls and any(got is None and sent is not None for got, sent in zip(answer.body, items, strict=True)):
        raise ProtocolError("the answer has NULLs where the request has none")


def ceiling(frame: bytes, items: int) -> int:
    """The longest frame that may answer a request frame of so many items."""
    return len(frame) + GROWTH * items + ANSWER_SLACK


def hello_of(body: Body) -> Hello:
    """Raises ProtocolError."""
    try:
        product, protocol, max_frame, max_items = (item.decode("ascii") for item in body if isinstance(item, bytes))
        return Hello(product, protocol, int(max_frame), int(max_items))
    except ValueError:
        raise ProtocolError("HELLO was answered with something else") from None


def bytes_of(value: object) -> bytes:
    """A single value or context as bytes; str as UTF-8. Raises TypeError."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"expected bytes or str, not {type(value).__name__}")


def explain_types(items: Sequence[object], contexts: object) -> None:
    """Raise TypeError with the position of the first item or context that is not bytes, str or None."""
    several = contexts if isinstance(contexts, (list, tuple)) else ()
    for what, values in (("item", items), ("context", several)):
        for index, value in enumerate(values):
            if not isinstance(value, (bytes, str, bytearray, memoryview, _NONE)):
                raise TypeError(f"{what} {index}: expected bytes, str or None, not {type(value).__name__}")
