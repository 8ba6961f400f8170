"""One blocking connection to the sidecar: whole frames out, whole frames in, and deadlines without an extra system
call.

Python's own `settimeout` makes a socket non-blocking and polls before every call. Here the socket blocks and the
kernel keeps the
time (SO_RCVTIMEO, SO_SNDTIMEO); a call that needs more than one wait arms it anew with what is left. Python restarts
a call
that a signal interrupted, so a signal handled in the calling thread begins the current wait anew.
"""

from __future__ import annotations

import socket
import struct
from time import monotonic

from keyside import wire
from keyside.errors import ConnectionLost, DeadlineExceeded, ProtocolError, unreachable

FIRST_READ = 8192
_BUFFER = 256 << 10


class PeerGone(ConnectionLost):
    """The sidecar closed before a byte of the answer: the request may be sent again.

    That is safe for every operation, also when the sidecar had done it: DECRYPT and BLIND_INDEX change nothing, and
    ENCRYPT and
    REENCRYPT only make an envelope, which nobody has seen.
    """


class Connection:
    """Used by one thread at a time. Not connected until `connect`, and again after `close`."""

    __slots__ = ("_buffer", "_path", "_recv", "_send", "_socket", "armed", "number", "packer", "proven")

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.armed = 0.0
        """Seconds that a wait may last; 0 when not connected."""
        self._buffer = bytearray()
        self.number = 0
        """The id of the last request, 1 to 127: one request is under way at a time."""
        self.proven = False
        """Whether it has answered before: then its end is no news about the sidecar, and a new one is worth a try."""
        self.packer = wire.new_packer()

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def connect(self, deadline: float) -> None:
        """Raises SidecarUnreachable, DeadlineExceeded."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket, self._send, self._recv = link, link.send, link.recv
        self.proven = False
        self.packer = wire.new_packer()
        try:
            self.arm(deadline - monotonic())
            link.connect(self._path)
        except DeadlineExceeded:
            self.close()
            raise
        except BlockingIOError:
            self.close()
            raise DeadlineExceeded("the sidecar accepted no connection in time") from None
        except OSError as error:
            self.close()
            raise unreachable(self._path, error) from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.armed = 0.0
            del self._send, self._recv

    def arm(self, seconds: float) -> None:
        """Let the next waits last at most so long. Raises DeadlineExceeded when no time is left."""
        if seconds == self.armed:
            return
        if seconds <= 0:
            raise _late()
        assert self._socket is not None
        interval = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        self.armed = seconds

    def next_number(self) -> int:
        self.number = number = self.number % 127 + 1
        return number

    def exchange(self, frame: bytes, deadline: float) -> bytes:
        """Send a small frame and return the frame that answers it.

        Raises PeerGone, ConnectionLost, DeadlineExceeded, ProtocolError; then the connection must be closed.
        """
        try:
            whole = self._send(frame) == len(frame)
            answer: bytes = self._recv(FIRST_READ) if whole else b""
        except BlockingIOError:
            raise _late() from None
        except OSError:
            raise PeerGone("the sidecar closed the connection") from None
        size = len(answer)
        if size > 4 and int.from_bytes(answer[:4], "big") == size - 4:
            return answer
        if not whole:
            raise _late()
        return bytes(self._rest(answer, wire.ceiling(frame, 1), deadline))

    def send(self, frame: bytes, deadline: float) -> None:
        """Send a frame of any size. When the sidecar has closed, `receive` tells, since it may have said why before."""
        try:
            sent = self._send(frame)
        except BlockingIOError:
            raise _late() from None
        except OSError:
            return
        while sent < len(frame):
            self.arm(deadline - monotonic())
            try:
                sent += self._send(memoryview(frame)[sent:])
            except BlockingIOError:
                raise _late() from None
            except OSError:
                return

    def receive(self, ceiling: int, deadline: float) -> memoryview:
        """The body of the next frame, good until the next call. Raises as `exchange` does."""
        if not self._buffer:
            self._buffer = bytearray(_BUFFER)
        assert self._socket is not None
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            raise _late() from None
        except OSError:
            raise PeerGone("the sidecar closed the connection") from None
        return memoryview(self._rest(memoryview(self._buffer)[:size], ceiling, deadline))[4:]

    def some(self) -> bytes:
        """Whatever has come of one or several answers, as soon as there is anything. Raises PeerGone at the end."""
        try:
            received: bytes = self._recv(_BUFFER)
        except BlockingIOError:
            raise _late() from None
        except OSError:
            received = b""
        if not received:
            raise PeerGone("the sidecar closed the connection")
        return received

    def _rest(self, begun: bytes | memoryview, ceiling: int, deadline: float) -> bytes | bytearray | memoryview:
        """The whole frame that `begun` is the beginning of."""
        if not begun:
            raise PeerGone("the sidecar closed the connection")
        if len(begun) < 4:
            begun = self._fill(begun, 4, deadline)
        size = int.from_bytes(begun[:4], "big") + 4
        if not 4 < size <= ceiling:
            raise ProtocolError("the answer is longer than any answer to this request could be")
        if len(begun) > size:
            raise ProtocolError("there are bytes after the answer")
        if len(begun) == size:
            return begun
        return self._fill(begun, size, deadline)

    def _fill(self, begun: bytes | memoryview, size: int, deadline: float) -> memoryview:
        # the kernel copies on behind what is in the buffer already; only a frame longer than the buffer moves
        have = len(begun)
        if isinstance(begun, memoryview) and size <= len(self._buffer):
            whole = memoryview(self._buffer)[:size]
        else:
            whole = memoryview(bytearray(size))
            whole[:have] = begun
        while have < size:
            have += self._more(whole[have:], deadline)
        return whole

    def _more(self, room: memoryview, deadline: float) -> int:
        """Fill some of `room` with what follows of an answer that has begun; returns how much."""
        assert self._socket is not None
        self.arm(deadline - monotonic())
        try:
            size = self._socket.recv_into(room, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            raise _late() from None
        except OSError:
            size = 0
        if not size:
            raise ConnectionLost("the sidecar closed the connection in the middle of an answer")
        return size


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the sidecar did not answer in time")
