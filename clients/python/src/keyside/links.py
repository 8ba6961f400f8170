"""One asyncio connection to the sidecar, shared by many requests at a time; answers are matched by id."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, Protocol

from keyside import wire
from keyside.batches import Job
from keyside.connection import PeerGone
from keyside.errors import ConnectionLost, DeadlineExceeded, KeysideError, ProtocolError
from keyside.wire import Answer

MOST_ABANDONED: Final = 1024
"""Answers that nobody waits for any more; a connection that owes more of them is closed."""


class Outcome(Protocol):
    """Who waits for an answer: an asyncio future, or what does its work without the tick of the loop that a future
    costs."""

    def done(self) -> bool: ...
    def set_result(self, answer: Answer, /) -> None: ...
    def set_exception(self, error: KeysideError, /) -> None: ...


class Waiting(NamedTuple):
    """A request that was sent and not answered yet."""

    future: Outcome
    job: Job
    arrivals: int
    """What the link's count of arrivals was when the request was sent."""


class Link(asyncio.Protocol):
    """Requests go out as they come; a caller that gives up leaves the connection to the others."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, Waiting] = {}
        self._abandoned: set[int] = set()
        self._received = bytearray()
        self._arrivals = 0
        self._room = 0  # the longest answer that any request so far may have
        self._number = 0
        self._retired = False
        self.packer = wire.new_packer()
        self.proven = False
        """Whether it has answered before."""

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._retired and not self._transport.is_closing()

    @property
    def load(self) -> int:
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._received:
            self._fail(ConnectionLost("the sidecar closed the connection in the middle of an answer"))
        else:
            self._fail(PeerGone("the sidecar closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._arrivals += 1
        self._received += data
        start = 0
        try:
            with memoryview(self._received) as received:
                while size := self._whole_frame(received[start:]):
                    with received[start + 4 : start + size] as body:
                        answer = wire.read(body)
                    self._deliver(answer)
                    start += size
        except ProtocolError as error:
            self._fail(error)
            self.abort()
            return
        del self._received[:start]

    def _whole_frame(self, received: memoryview) -> int:
        """The size of the frame that `received` begins with; 0 while it is not whole."""
        if len(received) < 4:
            return 0
        size = int.from_bytes(received[:4], "big") + 4
        if not 4 < size <= self._room:
            raise ProtocolError("the answer is longer than any answer on this connection could be")
        return size if len(received) >= size else 0

    def _deliver(self, answer: Answer) -> None:
        waiting = self._waiting.pop(answer.number, None)
        if waiting is None:
            if answer.number in self._abandoned:
                self._abandoned.discard(answer.number)
                return
            if answer.number == 0 and isinstance(answer.body, str) and self._waiting:
                # the sidecar could not read the id of one of them, and closes
                for other in [*self._waiting.values()]:
                    _settle(other.future, answer)
                self._waiting.clear()
                self.abort()
                return
            raise ProtocolError("the answer belongs to no request of this connection")
        try:
            wire.check(answer, answer.number, waiting.job.items)
        except ProtocolError as error:
            _refuse(waiting.future, error)
            raise
        self.proven = True
        if answer.status in wire.CLOSING:
            # others on this connection are answered before the sidecar closes, or are sent again
            self._retired = True
        _settle(waiting.future, answer)
        if self._retired and not self._waiting:
            self.abort()

    def pack(self, job: Job) -> tuple[int, bytes]:
        """The id and frame of a request."""
        self._number = number = self._number % wire.MAX_ID + 1
        return number, wire.batch(self.packer, number, *job)

    def send(self, job: Job, number: int, frame: bytes, future: Outcome) -> None:
        """Send a packed request. `future` gets the answer, or PeerGone, ConnectionLost, DeadlineExceeded or
        ProtocolError."""
        assert self._transport is not None
        self._room = max(self._room, wire.ceiling(frame, len(job.items)))
        self._waiting[number] = Waiting(future, job, self._arrivals)
        self._transport.write(frame)

    def expire(self, number: int) -> None:
        """The time of a request is up. When nothing at all has come since it was sent, the connection is given up
        too."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        self.abandon(number)
        if not waiting.future.done():
            waiting.future.set_exception(DeadlineExceeded("the sidecar did not answer in time"))
        if waiting.arrivals == self._arrivals or len(self._abandoned) > MOST_ABANDONED:
            self.abort()

    def abandon(self, number: int) -> None:
        """Nobody waits for this answer any more; it is thrown away when it comes."""
        if self._waiting.pop(number, None) is not None:
            self._abandoned.add(number)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: KeysideError) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            _refuse(one.future, type(error)(*error.args))


def _settle(future: Outcome, answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _refuse(future: Outcome, error: KeysideError) -> None:
    if not future.done():
        future.set_exception(error)
