"""A pool of HTTP/1.1 connections to one server.

OSError
└── Broken        the connection ended before the answer did
ValueError
├── Malformed     (providers.http.answers) what came is no HTTP
└── UnfitHeader   a header value that would end its line
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from providers.http.answers import AnswerParser, HttpAnswer, Malformed
from providers.pool import Pool, PoolUsage
from providers.wiping import wipe

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Trust = Callable[[], Awaitable[ssl.SSLContext]]

PORTS: Final = {"http": 80, "https": 443}

_TURNS: Final = 8  # of the event loop: two read what is there, TLS may need more


class Broken(ConnectionError):
    """The connection was lost, or something came on it that nobody had asked for."""


class UnfitHeader(ValueError):
    """A header value holds a line end, or a character that no header may have."""


class HttpConnection(asyncio.Protocol):
    """One connection. Whatever goes wrong on it makes it unusable."""

    def __init__(self, largest: int, idle: float, aim: int) -> None:
        """`aim`: which of the pool's aims it was made for."""
        self.aim = aim
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._parser = AnswerParser(largest)
        self._idle = idle
        self._lost = False
        self._used_at = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._lost and time.monotonic() - self._used_at < self._idle

    async def exchange(self, head: bytes, body: bytes | bytearray) -> HttpAnswer:
        """Send one request and return its answer. Raises Broken, Malformed."""
        assert self._transport is not None
        await self._settle()
        if self._lost:
            raise Broken
        self._answer = answering = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        if body:
            self._transport.write(body)  # not joined to the head: that would make one more copy of a key
        try:
            answer: HttpAnswer = await answering
        except BaseException:
            self.abort()
            if answering.done() and not answering.cancelled() and answering.exception() is None:
                wipe(answering.result().body)  # cancelled in the moment of the answer: nobody else has it
            raise
        finally:
            self._answer = None
        self._used_at = time.monotonic()
        if not answer.keep_alive:
            self.abort()
        return answer

    async def _settle(self) -> None:
        """Let the event loop read what has come since the last answer, which nobody asked for: see `data_received`.

        Else a second answer to the last request, or a time-out's 408, would be taken for the next one's. What TLS
        says for itself, such as the tickets after a handshake, is read and is no answer.
        """
        assert self._transport is not None
        received = select.poll()
        received.register(self._transport.get_extra_info("socket"), select.POLLIN)
        for _ in range(_TURNS):
            if self._lost or not received.poll(0):
                return
            await asyncio.sleep(0)
        self.abort()

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._lost = True
        self._parser.wipe()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            wipe(data)
            return
        try:
            answer = self._parser.feed(data)
        except Malformed as error:
            self._fail(error)
            self.abort()
            return
        finally:
            wipe(data)  # made for us by the event loop, and copied by the parser
        if answer is not None:
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._fail(Broken())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Connections:
    """At most `size` connections, made when they are needed. Used from one event loop.

    `largest`: how many bytes an answer's body may have. `idle`: a connection that nobody used for so many seconds is
    not used again, for servers close theirs sooner or later.
    """

    def __init__(self, *, size: int, max_age: float, largest: int, idle: float) -> None:
        self._largest = largest
        self._idle = idle
        self._tls: Trust | None = None
        self._address: tuple[str, int] | str = ""
        self._host = b""
        self._aim = 0
        self._pool: Pool[HttpConnection] = Pool(
            self._connect, _dispose, size=size, max_age=max_age, usable=self._usable
        )

    def aim(self, origin: str, tls: Trust | None = None, *, socket_path: str | None = None) -> None:
        """Send to `origin` from now on, `http://HOST:PORT`; connections made before take no other request.

        `tls` is asked for the context of each new connection. `socket_path`: where a server of this machine listens.
        Raises ValueError for `https` without `tls`, and the other way round.
        """
        url = urlsplit(origin)
        if (url.scheme == "https") != (tls is not None):
            raise ValueError("TLS is for https, and https for TLS")
        name = f"[{url.hostname}]" if ":" in str(url.hostname) else url.hostname
        port = url.port or PORTS[url.scheme]
        self._host = f"{name}{'' if port == PORTS[url.scheme] else f':{port}'}".encode("ascii")
        self._address = (url.hostname or "", port) if socket_path is None else socket_path
        self._tls = tls
        self.drop_idle()

    async def exchange(
        self, method: str, target: str, headers: Iterable[tuple[str, str | bytes]], body: bytes | bytearray | None
    ) -> HttpAnswer:
        """Send one request, on a free connection or when one becomes free. The caller wipes `body`, and the answer's.

        Raises OSError (ssl.SSLError and Broken among them), Malformed, UnfitHeader.
        """
        head = self._head(method, target, headers, body)
        async with self._pool.lease() as connection:
            return await connection.exchange(head, body or b"")

    @property
    def usage(self) -> PoolUsage:
        """The pool's counts."""
        return self._pool.usage

    def drop_idle(self) -> None:
        """Let the next requests make new connections."""
        self._aim += 1
        self._pool.drop_idle()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def _head(
        self, method: str, target: str, headers: Iterable[tuple[str, str | bytes]], body: bytes | bytearray | None
    ) -> bytes:
        lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method.encode("ascii"), target.encode("ascii"), self._host)]
        lines += [b"%b: %b" % (name.encode("ascii"), _value(value)) for name, value in headers]
        if body is not None:
            lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join([*lines, b"", b""])

    async def _connect(self) -> HttpConnection:
        aim, address, loop = self._aim, self._address, asyncio.get_running_loop()
        tls = None if self._tls is None else await self._tls()

        def made() -> HttpConnection:
            return HttpConnection(self._largest, self._idle, aim)

        if isinstance(address, str):
            _, connection = await loop.create_unix_connection(made, address)
        else:
            host, port = address
            _, connection = await loop.create_connection(made, host, port, ssl=tls)
        return connection

    def _usable(self, connection: HttpConnection) -> bool:
        return connection.usable and connection.aim == self._aim


async def _dispose(connection: HttpConnection) -> None:
    connection.abort()


def _value(value: str | bytes) -> bytes:
    try:
        line = value if isinstance(value, bytes) else value.encode("latin-1")
    except UnicodeEncodeError:
        raise UnfitHeader from None  # its text may be a secret
    if b"\r" in line or b"\n" in line:
        raise UnfitHeader
    return line
