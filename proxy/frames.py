"""Frames of the data socket and text envelopes (docs/spec/wire.md, docs/spec/envelope.md), from the asking side.

For HTTP, which is answered by asking the data plane in frames, and for the command line. Applications use the client
library.

    FrameError      an answer that is not a frame of this protocol
    NotAnEnvelope   text that is not a text envelope
"""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgpack

LENGTH: Final = struct.Struct(">I")
# a response may be longer than max_frame by at most this much an item
RESPONSE_SLACK_PER_ITEM: Final = 48
LARGEST_FRAME: Final = (256 << 20) - 1
MOST_ITEMS: Final = 131_072
LARGEST_ANSWER: Final = LARGEST_FRAME + RESPONSE_SLACK_PER_ITEM * MOST_ITEMS
PREFIX: Final = "ks1."
_TEXT: Final = re.compile(r"ks1\.[A-Za-z0-9_-]*", re.ASCII)

Context = bytes | None | Sequence[bytes | None]


class Op(IntEnum):
    HELLO = 0
    ENCRYPT = 1
    DECRYPT = 2
    BLIND_INDEX = 3
    REENCRYPT = 4


class Status(IntEnum):
    """Statuses of a response; from 16 on the whole request failed, or an item did."""

    OK = 0
    SOME_FAILED = 1
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


class FrameError(Exception):
    """The other side sent something that is not a response of this protocol."""


class NotAnEnvelope(ValueError):
    """The text is not an envelope's one text form."""


@dataclass(frozen=True)
class Answer:
    """A response: `items` when status is OK or SOME_FAILED, where a failed item is its Status; else `message`."""

    id: int
    status: Status
    items: list[bytes | Status | None]
    message: str


def encode_request(request_id: int, op: Op, keyring: str, context: Context, items: Sequence[bytes | None]) -> bytes:
    """A request with its length in front."""
    body: bytes = msgpack.packb([request_id, int(op), keyring, context, items], use_bin_type=True)
    return LENGTH.pack(len(body)) + body


def decode_answer(body: bytes) -> Answer:
    """A response without its length. Raises FrameError."""
    try:
        value = msgpack.unpackb(body, raw=False, use_list=True, max_ext_len=0, max_map_len=0)
        answered, code, rest = value
        status = Status(code)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FrameError("the sidecar's answer is not a response of protocol version 1") from error
    if not isinstance(answered, int):
        raise FrameError("the sidecar's answer has no id")
    if status >= Status.BAD_REQUEST:
        if not isinstance(rest, str):
            raise FrameError("the sidecar's answer has no message")
        return Answer(answered, status, [], rest)
    if not isinstance(rest, list):
        raise FrameError("the sidecar's answer has no items")
    return Answer(answered, status, [_item(item) for item in rest], "")


def _item(item: object) -> bytes | Status | None:
    if item is None or isinstance(item, bytes):
        return item
    try:
        return Status(item)  # type: ignore[arg-type]  # whatever else it is, Status refuses it
    except ValueError as error:
        raise FrameError("the sidecar's answer has an item that is neither bytes, nil nor an error code") from error


def envelope_to_text(envelope: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(envelope).rstrip(b"=").decode("ascii")


def envelope_from_text(text: str) -> bytes:
    """The bytes of a text envelope. Raises NotAnEnvelope for anything but the one text that an envelope has."""
    if not _TEXT.fullmatch(text) or (len(text) - len(PREFIX)) % 4 == 1:
        raise NotAnEnvelope("not a text envelope: it must be ks1. followed by base64url without padding")
    digits = text[len(PREFIX) :]
    envelope = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    if envelope_to_text(envelope) != text:
        raise NotAnEnvelope("not a text envelope: its last character has bits set that belong to no byte")
    return envelope
