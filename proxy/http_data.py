"""HTTP on the data socket (docs/spec/http.md).

A worker that sees a letter as a connection's first byte hands the connection over. Its requests are put to the data
plane as frames, over a socket pair that the data plane serves under the identity of the HTTP peer: policy, rates, cache
and errors are the ones that binary frames meet, and there is no second implementation of any of them.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

from aiohttp import web

from proxy import log
from proxy.frames import (
    LENGTH,
    MOST_ITEMS,
    RESPONSE_SLACK_PER_ITEM,
    Answer,
    FrameError,
    Op,
    Status,
    decode_answer,
    encode_request,
)
from proxy.http_json import FieldRequest, Refused, parse_request, render_answer, render_error
from proxy.peers import Peer, peer_of
from proxy.shares import Pool, Room

OPERATIONS: Final = {
    "/v1/encrypt": Op.ENCRYPT,
    "/v1/decrypt": Op.DECRYPT,
    "/v1/blind-index": Op.BLIND_INDEX,
    "/v1/reencrypt": Op.REENCRYPT,
}
HTTP_STATUS: Final = {
    Status.BAD_REQUEST: 400,
    Status.DENIED: 403,
    Status.UNKNOWN_KEYRING: 404,
    Status.KEY_DISABLED: 409,
    Status.RATE_LIMITED: 429,
    Status.OVERLOADED: 503,
    Status.KMS_UNAVAILABLE: 503,
    Status.SHUTTING_DOWN: 503,
    Status.INTERNAL: 500,
}
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class HttpLimits:
    """Times in seconds, sizes in bytes."""

    max_frame: int
    connections: int
    buffer_bytes: int
    idle_timeout: float
    stall_timeout: float

    @property
    def max_body(self) -> int:
        """Base64 makes three bytes four; the rest is quotes, commas and white space."""
        return self.max_frame * 3 // 2 + 65_536

    @property
    def held(self) -> int:
        """What bodies and answers of all connections together may take; a few of the longest always fit."""
        return max(self.buffer_bytes, 4 * self.max_body)


class Plane(Protocol):
    """What this module asks of the data plane."""

    def adopt(self, fd: int, uid: int, gid: int, pid: int, groups: Sequence[int] = ()) -> None: ...


class ClientGone(Exception):
    """Who asked has closed the connection, so nobody is there to be answered."""


class LineClosed(Exception):
    """A worker closed the connection that carries an HTTP peer's requests to it."""


class FrameLine:
    """A connection to the data plane under a peer's identity: one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_frame: int) -> None:
        self._reader = reader
        self._writer = writer
        self._max_frame = max_frame
        self._id = 0

    @classmethod
    async def open(cls, plane: Plane, peer: Peer, max_frame: int) -> "FrameLine":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        plane.adopt(theirs.detach(), peer.uid, peer.gid, peer.pid, peer.groups)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(reader, writer, max_frame)

    async def ask(self, op: Op, request: FieldRequest) -> Answer:
        """Raises Refused, LineClosed, or FrameError when the data plane answered nonsense."""
        self._id = (self._id + 1) & 0xFFFFFFFF
        frame = encode_request(self._id, op, request.keyring, request.context, request.items)
        # past its limit the data plane answers and closes; refusing here keeps the connection
        if len(frame) - LENGTH.size > self._max_frame:
            raise Refused(
                Status.BAD_REQUEST, f"the request is longer than max_frame, {self._max_frame} bytes; split it"
            )
        try:
            self._writer.write(frame)
            await self._writer.drain()
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > self._max_frame + RESPONSE_SLACK_PER_ITEM * MOST_ITEMS:
                raise FrameError("the data plane's answer is longer than any answer can be")
            answer = decode_answer(await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise LineClosed from error
        if answer.id != self._id:
            raise FrameError("the data plane answered another request")
        return answer

    @property
    def closed(self) -> bool:
        """The data plane closed it: idle for too long, or stopping."""
        return self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()


class HandedOver(asyncio.Protocol):
    """Around aiohttp's protocol of one connection: the patience that it lacks, and what belongs to the connection.

    aiohttp waits for ever for a first request, for the rest of a body and for a slow reader. Here a connection is
    aborted when nothing moved for `stall_timeout` seconds while a request was arriving or a response was leaving.
    """

    def __init__(
        self, inner: asyncio.Protocol, peer: Peer, stall_timeout: float, closed: Callable[["HandedOver"], None]
    ) -> None:
        self.peer = peer
        self.line: FrameLine | None = None
        self.lost = False
        self.transport: asyncio.Transport | None = None
        self._inner = inner
        self._stall_timeout = stall_timeout
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._receiving = True
        self._serving = False
        self._moved = self._loop.time()
        self._unread = 0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)
        self._check()

    def data_received(self, data: bytes) -> None:
        self._receiving = True
        assert self.transport is not None  # connection_made set it
        # while an answer waits to be read, only reading counts: by sending, a peer could keep its memory for ever
        if not self.transport.get_write_buffer_size():
            self._moved = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        if self.line is not None:
            self.line.close()
        self._inner.connection_lost(exc)
        self._closed(self)

    def request_arrived(self) -> None:
        """The whole request is here: from now on the client waits for us."""
        self._receiving = False
        self._serving = True

    def request_served(self) -> None:
        self._serving = False
        self._moved = self._loop.time()

    def _check(self) -> None:
        assert self.transport is not None  # connection_made set it
        unread = self.transport.get_write_buffer_size()
        now = self._loop.time()
        if unread != self._unread or (self._serving and not unread):
            self._moved = now
        self._unread = unread
        waiting = self._moved + self._stall_timeout - now
        if waiting <= 0 and (unread or self._receiving):
            self.transport.abort()
            return
        self._watch = self._loop.call_later(max(waiting, self._stall_timeout / 4), self._check)


class HttpData:
    """Serves the connections that workers hand over."""

    def __init__(self, plane: Plane, limits: HttpLimits) -> None:
        self._plane = plane
        self._limits = limits
        app = web.Application(client_max_size=limits.max_body, middlewares=[self._guard])
        for path in OPERATIONS:
            app.router.add_post(path, self._serve)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=limits.idle_timeout,
            # a request of a few bytes must not become gigabytes
            auto_decompress=False,
            shutdown_timeout=1.0,
        )
        self._connections: dict[asyncio.BaseTransport, HandedOver] = {}
        self._room = Room(limits.held)
        self._places = Pool(limits.connections)
        self._draining = False
        self._counts = dict.fromkeys(("connections", "turned_away", "requests", "failed"), 0)

    async def start(self) -> None:
        await self._runner.setup()

    def drain(self) -> None:
        """Answer SHUTTING_DOWN to requests that arrive from now on."""
        self._draining = True

    async def stop(self) -> None:
        """Let requests in progress finish for a second, then close every connection."""
        await self._runner.cleanup()

    def stats(self) -> dict[str, int]:
        return {**self._counts, "open": len(self._connections)}

    async def adopt(self, descriptor: int) -> None:
        """Serve a connected, non-blocking socket, of which nothing was read. Takes ownership of the descriptor."""
        connected = socket.socket(fileno=descriptor)
        try:
            peer = peer_of(connected.fileno())
        except OSError:
            # it closed while it was handed over
            connected.close()
            return
        if not self._places.take(peer.uid, 1):
            self._counts["turned_away"] += 1
            with suppress(OSError):  # who left already needs no answer
                connected.send(_FULL)
            connected.close()
            return
        try:
            protocol = HandedOver(self._inner(), peer, self._limits.stall_timeout, self._forget)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connected)
        except OSError:
            self._places.give(peer.uid, 1)
            connected.close()
            return
        self._counts["connections"] += 1
        assert protocol.transport is not None  # connection_made set it
        if not protocol.lost:
            self._connections[protocol.transport] = protocol

    def _inner(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # start() came first
        return cast(asyncio.Protocol, server())

    def _forget(self, connection: HandedOver) -> None:
        self._places.give(connection.peer.uid, 1)
        if connection.transport is not None:
            self._connections.pop(connection.transport, None)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._counts["requests"] += 1
        try:
            return await handler(request)
        except Refused as refusal:
            return self._failure(refusal.status, refusal.message)
        except web.HTTPException as error:
            paths = ", ".join(OPERATIONS)
            return self._failure(Status.BAD_REQUEST, f"{error.reason}; POST to one of {paths}", error.status)
        except (ClientGone, ConnectionError, web.RequestPayloadError):
            return self._failure(Status.BAD_REQUEST, "the connection was closed before the request was answered")
        except Exception as error:  # whatever it is, the client gets an answer and the log its type
            correlation = log.defect("an HTTP request failed", error)
            return self._failure(Status.INTERNAL, f"a defect; the sidecar's log has it under correlation={correlation}")

    def _failure(self, status: Status, message: str, http_status: int | None = None) -> web.Response:
        self._counts["failed"] += 1
        headers = {"Retry-After": "1"} if status is Status.RATE_LIMITED else None
        return web.json_response(
            render_error(status, message), status=http_status or HTTP_STATUS[status], headers=headers
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        connection = self._connections.get(cast(asyncio.BaseTransport, request.transport))
        if connection is None:
            raise ClientGone
        with self._room.share(connection.peer.uid) as take:
            body = await self._body(request, take)
            connection.request_arrived()
            try:
                op = OPERATIONS[request.path]
                answer = await self._ask(connection, op, parse_request(op, body))
            finally:
                connection.request_served()
            if answer.status >= Status.BAD_REQUEST:
                raise Refused(answer.status, answer.message)
            response = web.json_response(render_answer(op, answer))
            take(response.content_length or 0)
            # sent here and not by aiohttp afterwards: an answer that nobody reads takes room until the connection ends
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
            return response

    async def _body(self, request: web.Request, take: Callable[[int], None]) -> bytes:
        """The body, as much of it as arrived paid for with `take`. Raises Refused."""
        body = bytearray()
        async for chunk in request.content.iter_any():
            take(len(chunk))
            body += chunk
            if len(body) > self._limits.max_body:
                raise Refused(Status.BAD_REQUEST, f"the body is longer than {self._limits.max_body} bytes; split it")
        return bytes(body)

    async def _ask(self, connection: HandedOver, op: Op, request: FieldRequest) -> Answer:
        if self._draining:
            raise Refused(Status.SHUTTING_DOWN, "the sidecar is stopping; try again on a new connection")
        if connection.line is not None and connection.line.closed:
            connection.line.close()
            connection.line = None
        if connection.line is None:
            connection.line = await FrameLine.open(self._plane, connection.peer, self._limits.max_frame)
        if connection.lost:
            connection.line.close()
            raise ClientGone
        try:
            return await connection.line.ask(op, request)
        except (LineClosed, FrameError) as error:
            connection.line.close()
            connection.line = None
            if connection.lost:
                raise ClientGone from error
            if self._draining:
                raise Refused(Status.SHUTTING_DOWN, "the sidecar is stopping; try again on a new connection") from error
            if isinstance(error, LineClosed):
                # nothing of the request is known to be wrong: buffers were short, or a limit on patience was met
                raise Refused(
                    Status.OVERLOADED, "a worker gave the request up before it was answered; try again after a pause"
                ) from error
            raise
