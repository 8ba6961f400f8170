"""Requests for the load generator, the same values for every system, and the check of answers by decrypting them."""

import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from random import Random

import msgpack

from benchmarks.loadgen import Exchange, Run

ENCRYPT, DECRYPT = 1, 2
ENVELOPE_OVERHEAD = 38  # docs/spec/envelope.md
LIMIT_OVERHEAD = 28  # nonce and tag
CONTEXT = b"users.email"
FIXED_ID = 65536  # five bytes in MessagePack; the load generator overwrites four of them


class WrongAnswerError(Exception):
    """A system under test gave an answer that is not the right one; its speed means nothing."""


def fields(count: int, size: int, seed: int = 1) -> list[bytes]:
    """`count` values of `size` bytes, the same in every run and for every system."""
    source = Random(seed)
    return [source.randbytes(size) for _ in range(count)]


def frame(op: int, keyring: str, items: Sequence[bytes], context: bytes = CONTEXT) -> bytes:
    """A request frame of docs/spec/wire.md whose id takes five bytes."""
    body: bytes = msgpack.packb([FIXED_ID, op, keyring, context, items])
    return struct.pack(">I", len(body)) + body


def ask(path: str, request: bytes, patience: float = 10.0) -> tuple[int, object]:
    """Status and body of the answer to one frame, over a connection of its own."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as link:
        link.settimeout(patience)
        link.connect(path)
        link.sendall(request)
        stream = link.makefile("rb")
        (length,) = struct.unpack(">I", stream.read(4))
        _, status, body = msgpack.unpackb(stream.read(length))
    return status, body


def ask_items(path: str, request: bytes) -> list[bytes]:
    """The items of a wholly good answer. Raises WrongAnswerError."""
    status, body = ask(path, request)
    if status != 0 or not isinstance(body, list):
        raise WrongAnswerError(f"status {status}: {body!r:.200}")
    return body


def encrypting(keyrings: Sequence[str], batch: int, size: int) -> list[Exchange]:
    """One ENCRYPT request of `batch` fields of `size` bytes for each keyring."""
    values = fields(batch, size)
    return [Exchange(frame(ENCRYPT, name, values), batch, size + ENVELOPE_OVERHEAD) for name in keyrings]


def decrypting(path: str, keyrings: Sequence[str], batch: int, size: int) -> list[Exchange]:
    """One DECRYPT request for each keyring; the envelopes are made by asking the sidecar now."""
    values = fields(batch, size)
    return [
        Exchange(frame(DECRYPT, name, ask_items(path, frame(ENCRYPT, name, values))), batch, size, b"".join(values))
        for name in keyrings
    ]


def limit_request(size: int) -> list[Exchange]:
    """A field in the framing of the C limit server, which encrypts it."""
    (value,) = fields(1, size)
    return [Exchange(struct.pack("=I", size) + value, 1, size + LIMIT_OVERHEAD)]


def check_encrypted(path: str, keyrings: Sequence[str], batch: int, size: int, run: Run) -> int:
    """Decrypt the answers that an encrypting run kept and compare; returns how many fields. Raises WrongAnswerError."""
    values = fields(batch, size)
    checked = 0
    for exchange, body in run.samples:
        _, _, envelopes = msgpack.unpackb(body)
        if ask_items(path, frame(DECRYPT, keyrings[exchange], envelopes)) != values:
            raise WrongAnswerError(f"an envelope of {keyrings[exchange]} decrypts to another value")
        checked += batch
    return checked


def require_clean(run: Run, what: str) -> Run:
    """The run itself when every request was answered well. Raises WrongAnswerError."""
    if run.failed or not run.good:
        raise WrongAnswerError(f"{what}: {run.good} good answers, errors {run.errors}")
    return run
