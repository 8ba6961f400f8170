"""Reading HTTP/1.1 answers, from bytes as they come. RFC 9112, as far as a server of JSON uses it.

ValueError
└── Malformed    not HTTP, or more of it than a back end ever answers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from providers.wiping import wipe

MAX_HEAD_BYTES: Final = 32_768

_MAX_SIZE_LINE: Final = 64

_BODILESS: Final = (204, 304)
_HEXADECIMAL: Final = frozenset(b"0123456789abcdefABCDEF")


class Malformed(ValueError):
    """What was received cannot be an answer."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One whole answer."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(repr=False)
    keep_alive: bool  # whether another request may follow on the connection


class AnswerParser:
    """Collects one answer after another; what it held of one is wiped before the next."""

    def __init__(self, largest: int) -> None:
        """`largest`: how many bytes a body may have."""
        self._largest = largest
        self._received = bytearray()
        self._head: tuple[str, int, dict[str, str], int] | None = (
            None  # version, status, headers, where the body starts
        )
        self._joined = bytearray()  # the chunks so far
        self._chunk = 0  # where the next one starts; 0 before the first

    def feed(self, data: bytes) -> HttpAnswer | None:
        """Take what was received; return the answer once it is whole. Raises Malformed."""
        self._received += data
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        version, status, headers, start = self._head
        whole: tuple[bytes, int] | None
        if status in _BODILESS:
            whole = b"", start
        elif "transfer-encoding" in headers:
            whole = self._chunked(start)
        else:
            whole = self._counted(headers, start)
        if whole is None:
            return None
        body, end = whole
        if end != len(self._received):
            raise Malformed("more than one answer")
        self.wipe()
        return HttpAnswer(status, headers, body, _keeps_alive(version, headers.get("connection", "").lower()))

    def wipe(self) -> None:
        """Forget what was received so far."""
        wipe(self._received)
        wipe(self._joined)
        self._received = bytearray()
        self._joined = bytearray()
        self._head = None
        self._chunk = 0

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4)
        if end < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                raise Malformed("a head without an end")
            return False
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        status = first[9:12]
        if not first.startswith(("HTTP/1.1 ", "HTTP/1.0 ")) or not (status.isascii() and status.isdigit()):
            raise Malformed("no status line")
        if not 200 <= int(status) <= 599:
            raise Malformed("an interim answer that nobody asked for")
        self._head = first[:8], int(status), _headers(lines), end + 4
        return True

    def _counted(self, headers: Mapping[str, str], start: int) -> tuple[bytes, int] | None:
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length[:9]) > self._largest or len(length) > 9:
            raise Malformed("a body without a length, or a very long one")
        end = start + int(length)
        return (bytes(memoryview(self._received)[start:end]), end) if len(self._received) >= end else None

    def _chunked(self, start: int) -> tuple[bytes, int] | None:
        if len(self._received) - start > 2 * self._largest + MAX_HEAD_BYTES:
            raise Malformed("chunks of next to nothing")
        self._chunk = self._chunk or start
        while (line_end := self._received.find(b"\r\n", self._chunk, self._chunk + _MAX_SIZE_LINE)) >= 0:
            size = _chunk_size(bytes(self._received[self._chunk : line_end]))
            end = line_end + 2 + size
            if len(self._joined) + size > self._largest:
                raise Malformed("a very long body")
            if len(self._received) < end + 2:
                return None
            if self._received[end : end + 2] != b"\r\n":
                raise Malformed("a chunk without an end")
            if size == 0:
                return bytes(self._joined), end + 2
            self._joined += memoryview(self._received)[line_end + 2 : end]
            self._chunk = end + 2
        if len(self._received) - self._chunk >= _MAX_SIZE_LINE:
            raise Malformed("no chunk size")
        return None


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise Malformed("a header without a name")
        if name in headers and name in ("content-length", "transfer-encoding"):
            raise Malformed("two lengths")
        headers[name] = value.strip(" \t")
    if "transfer-encoding" in headers and (
        "content-length" in headers or headers["transfer-encoding"].lower() != "chunked"
    ):
        raise Malformed("two lengths")
    return headers


def _keeps_alive(version: str, connection: str) -> bool:
    return connection == "keep-alive" if version == "HTTP/1.0" else connection != "close"


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip()
    if not 1 <= len(size) <= 8 or not _HEXADECIMAL.issuperset(size):
        raise Malformed("no chunk size")
    return int(size, 16)
