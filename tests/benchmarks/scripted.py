"""A server that speaks frames and answers as a test tells it: right, wrong, late, or not at all."""

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import msgpack

Answer = Callable[[list], bytes | None]

HEADER = b"\xc1\x01" + bytes(20)
TAG = bytes(16)


def reply(*parts: object) -> bytes:
    body = msgpack.packb(list(parts))
    return struct.pack(">I", len(body)) + body


def encrypt(request: list) -> bytes:
    """What looks like an envelope from outside."""
    return reply(request[0], 0, [HEADER + item + TAG for item in request[4]])


def decrypt(request: list) -> bytes:
    return reply(request[0], 0, [item[len(HEADER) : -len(TAG)] for item in request[4]])


class ScriptedServer:
    """Serves every connection in a thread of its own. `answer` gives the bytes to send, or None to close."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = str(path)
        self.answer = answer
        self.received = 0
        self._links: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> "ScriptedServer":
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)
        for link in self._links:
            link.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return  # the listener was shut down: the test is over
            self._links.append(link)
            self._spawn(self._serve, link)

    def _serve(self, link: socket.socket) -> None:
        stream = link.makefile("rb")
        try:
            while head := stream.read(4):
                request = msgpack.unpackb(stream.read(struct.unpack(">I", head)[0]))
                self.received += 1
                answer = self.answer(request)
                if answer is None:
                    link.shutdown(socket.SHUT_RDWR)
                    return
                link.sendall(answer)
        except OSError:
            return  # the load generator gave the connection up
        finally:
            stream.close()
