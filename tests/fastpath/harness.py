"""A data plane with a key holder in place of the control plane: keys are fixed, answers can be held back or refused."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack

from fastpath import memory
from fastpath.dataplane import DataPlane, HttpConnection, KeyMiss, LowBudget, Options, Rule, ScopeMiss

CAPACITY = 4096
ALL = 0b11110
HELLO, ENCRYPT, DECRYPT, BLIND_INDEX, REENCRYPT = 0, 1, 2, 3, 4
FIELD, INDEX = 0, 1
BAD_REQUEST, DENIED, UNKNOWN_KEYRING, UNKNOWN_KEY, INVALID_CIPHERTEXT, KEY_DISABLED = 16, 17, 18, 19, 20, 21
RATE_LIMITED, OVERLOADED, KMS_UNAVAILABLE, INTERNAL, SHUTTING_DOWN = 22, 23, 24, 25, 26
EVERYONE = (Rule(None, None, ("*",), ALL, 0),)


def wait_for(what: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true value of `what`, looked at until it is or `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    return value


def open_memory() -> None:
    """The arena is one a process: tests share it."""
    if memory.report() is None:
        memory.open(CAPACITY, 4)


class KeyHolder(threading.Thread):
    """Answers misses from `keys`: {scope: [(key id, purpose, key)]}, the last of a purpose being the active one."""

    def __init__(self, plane: DataPlane, keys: dict[str, list[tuple[int, int, bytes]]], budget: int = 1 << 40) -> None:
        super().__init__(daemon=True)
        self.plane = plane
        self.keys = keys
        self.budget = budget
        self.ttl = 3_600_000
        self.negative_ttl = 200
        self.refusal = 18
        self.seen: list[KeyMiss | ScopeMiss | LowBudget | HttpConnection] = []
        self.keeping = False  # True: misses are kept in `kept` for the test to settle
        self.kept: list[Any] = []
        self.answering = threading.Event()
        self.answering.set()
        self.failure: BaseException | None = None
        self._stop_fd = os.eventfd(0)

    def run(self) -> None:
        try:
            self._loop()
        except BaseException as problem:  # seen by the test through close()
            self.failure = problem

    def _loop(self) -> None:
        while True:
            ready, _, _ = select.select([self.plane.event_fd, self._stop_fd], [], [])
            if self._stop_fd in ready:
                return
            while events := self.plane.events(256):
                for event in events:
                    self.seen.append(event)
                    self.answering.wait()
                    self.answer(event)

    def answer(self, event: Any) -> None:
        if self.keeping and event.token:
            self.kept.append(event)
        else:
            self.settle(event)

    def settle(self, event: Any) -> None:
        if isinstance(event, KeyMiss):
            found = [k for k in self.keys.get(event.scope, ()) if k[0] == event.key_id]
            if found:
                self.install(event.scope, found[0])
            else:
                elsewhere = any(k[0] == event.key_id for ring in self.keys.values() for k in ring)
                code = INVALID_CIPHERTEXT if elsewhere else UNKNOWN_KEY
                self.plane.refuse_key(event.key_id, event.scope, code, self.negative_ttl)
            self.plane.complete(event.token)
        elif isinstance(event, ScopeMiss):
            found = [k for k in self.keys.get(event.scope, ()) if k[1] == event.purpose]
            if found:
                self.install(event.scope, found[-1])
                self.plane.activate(found[-1][0], self.budget)
            else:
                self.plane.refuse_scope(event.scope, event.purpose, self.refusal, self.negative_ttl)
            self.plane.complete(event.token)

    def install(self, scope: str, key: tuple[int, int, bytes]) -> None:
        self.plane.install(key[0], scope, key[1], bytearray(key[2]), ttl=self.ttl, index_bits=128 if key[1] else 0)

    def close(self) -> None:
        self.answering.set()
        os.eventfd_write(self._stop_fd, 1)
        self.join(10)
        os.close(self._stop_fd)
        if self.failure is not None:
            raise self.failure

    def count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.seen)


class Serving:
    """A running plane, its key holder and its socket."""

    def __init__(self, plane: DataPlane, holder: KeyHolder, path: Path) -> None:
        self.plane = plane
        self.holder = holder
        self.path = path

    def connect(self) -> Peer:
        return Peer(self.path)

    def connect_as(self, uid: int) -> Peer:
        """A connection of another user's: credentials cannot be changed in a process with threads."""
        ours, theirs = socket.socketpair()
        self.plane.adopt(theirs.detach(), uid, uid, 1)
        return Peer.over(ours)

    def gauge(self, name: str) -> Any:
        return self.plane.stats()[name]

    def await_gauge(self, name: str, value: int) -> None:
        wait_for(lambda: self.gauge(name) == value)


class Peer:
    """A blocking client of whole frames, as plain as can be."""

    def __init__(self, path: Path | None, connected: socket.socket | None = None) -> None:
        self.socket = connected or socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        if path is not None:
            self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")

    @classmethod
    def over(cls, connected: socket.socket) -> Peer:
        return cls(None, connected)

    def send(self, *request: Any) -> None:
        body = msgpack.packb(list(request))
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self) -> list[Any]:
        head = self.stream.read(4)
        if len(head) < 4:
            raise EOFError
        body = self.stream.read(struct.unpack(">I", head)[0])
        return msgpack.unpackb(body)

    def call(self, op: int, keyring: str, items: list[Any], context: Any = None, request_id: int = 7) -> list[Any]:
        self.send(request_id, op, keyring, context, items)
        answer = self.receive()
        assert answer[0] == request_id
        return answer[1:]

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def closed(self) -> bool:
        """Whether the sidecar closes this connection without another byte."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:  # it closed while bytes of ours lay unread
            return True

    def alive(self) -> bool:
        self.send(0xA11FE, 0, "", None, [])
        return self.receive()[:2] == [0xA11FE, 0]

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(
    folder: Path,
    keys: dict[str, list[tuple[int, int, bytes]]],
    *,
    workers: int = 1,
    rules: tuple[Rule, ...] = EVERYONE,
    budget: int = 1 << 40,
    **limits: Any,
) -> Iterator[Serving]:
    """A data plane on a socket in `folder`."""
    open_memory()
    options: dict[str, Any] = {"workers": workers, "cpus": (), "key_capacity": CAPACITY} | limits
    plane = DataPlane(Options(**options))
    listener = socket.socket(socket.AF_UNIX)
    path = folder / "data.sock"
    listener.bind(str(path))
    listener.listen(4096)
    holder = KeyHolder(plane, keys, budget)
    try:
        plane.set_policy(rules)
        plane.start(listener.fileno())
        holder.start()
        try:
            yield Serving(plane, holder, path)
        finally:
            holder.close()
    finally:
        plane.stop()
        listener.close()
