"""A loopback TCP proxy that misbehaves on request: slow, hung, refusing, cutting connections.

    with mishap(server_port) as proxy:
        proxy.delay(to_client=0.02)
        provider = ...  # of an endpoint at 127.0.0.1:{proxy.port}
        proxy.hang()
        ...
        proxy.normal()

It is a process of its own, so a test's event loop neither slows it nor is slowed by it, and each command has taken
effect when it returns. Bytes pass unread, TLS included. It ends when its standard input does: with its parent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

HOST: Final = "127.0.0.1"
ROOT: Final = Path(__file__).parents[2]
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # linger for no time: close(2) sends RST


class Mishap:
    """The hand on the proxy. `port` is where clients connect."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def normal(self) -> None:
        """Pass everything on at once; what a hang held back is delivered now."""
        self._do("normal")

    def delay(self, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Deliver each burst of bytes so many seconds after it came. Bursts behind each other do not add up."""
        self._do("delay", to_server, to_client)

    def last(self, seconds: float) -> None:
        """Deliver each answer so many seconds after the last bytes of its request, the server's own work included."""
        self._do("last", seconds)

    def hang(self) -> None:
        """Accept connections and bytes, and pass nothing on in either direction."""
        self._do("hang")

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._do("refuse")

    def drop(self) -> None:
        """Reset every open connection, once."""
        self._do("drop")

    def cut_answers(self) -> None:
        """Reset a connection when the server's answer arrives: the call was made, and its outcome is lost."""
        self._do("cut_answers")

    def unplug(self) -> None:
        """Refuse new connections and reset those that are open: the server is gone."""
        self._do("refuse")
        self._do("drop")

    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._do("accepted")

    def open_connections(self) -> int:
        """How many of them are open now."""
        return self._do("open_connections")

    def _do(self, command: str, *numbers: float) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, *numbers]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the proxy ended with {self._process.wait()}"
        return int(answer)


@contextmanager
def mishap(port: int) -> Iterator[Mishap]:
    """A proxy in front of whoever listens on that port of 127.0.0.1, now or later."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.mishap", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Mishap(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()


@dataclass
class Mood:
    """How the proxy behaves now; every connection reads it."""

    to_server: float = 0.0
    to_client: float = 0.0
    lasting: float = 0.0
    hung: bool = False
    cuts_answers: bool = False


class Half(asyncio.Protocol):
    """One direction: what arrives here is delivered to `other`, when the mood allows."""

    def __init__(self, proxy: Proxy, from_client: bool) -> None:
        self._proxy = proxy
        self._from_client = from_client
        self._waiting: deque[tuple[float, bytes]] = deque()  # due, bytes; b"" is the end
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0.0
        self._read_all = False
        self._wrote_all = False
        self.other: Half | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._from_client:
            self._proxy.halves.add(self)
            self._proxy.accepted += 1
            self._proxy.connect(self)

    def data_received(self, data: bytes) -> None:
        mood = self._proxy.mood
        if mood.cuts_answers and not self._from_client:
            self.reset()
            return
        now = asyncio.get_running_loop().time()
        due = now + (mood.to_server if self._from_client else mood.to_client)
        if self._from_client:
            self._asked_at = now
        elif mood.lasting and self.other is not None:
            due = max(due, self.other._asked_at + mood.lasting)
        self._waiting.append((due, data))
        self.deliver()

    def eof_received(self) -> bool:
        self._read_all = True
        self.data_received(b"")
        return not self._wrote_all  # the other direction may go on

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy.halves.discard(self)
        self._transport = None
        if self.other is not None:
            self.other.close()

    def deliver(self) -> None:
        """Pass on what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._proxy.mood.hung or self.other is None:
            return
        loop = asyncio.get_running_loop()
        while self._waiting:
            due, data = self._waiting[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.deliver)
                return
            self._waiting.popleft()
            self.other.send(data)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            return
        if data:
            self._transport.write(data)
        elif self._read_all:
            self._transport.close()
        else:
            self._wrote_all = True
            self._transport.write_eof()

    def close(self) -> None:
        """End this side once what it was given is sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End both sides with RST."""
        for half in (self, self.other):
            if half is not None and half._transport is not None:
                half._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                half._transport.abort()


class Proxy:
    """The proxy's own process."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self.mood = Mood()
        self.halves: set[Half] = set()  # those towards clients
        self.accepted = 0

    async def listen(self) -> None:
        if self._server is None:
            self._listener.close()
            self._listener = bound(self.port)
            self._server = await asyncio.get_running_loop().create_server(lambda: Half(self, True), sock=self._listener)

    def connect(self, client: Half) -> None:
        """Give a new client its way to the server."""
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: Half) -> None:
        server = Half(self, False)
        server.other = client
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, HOST, self._target)
        except OSError:
            client.reset()
            return
        client.other = server
        if client not in self.halves:  # gone in the meantime
            server.close()
        client.deliver()

    async def obey(self, command: str, *numbers: float) -> int:
        """Do what a line of standard input says; the answer goes back."""
        match command:
            case "normal":
                self.mood = Mood()
                await self.listen()
                self._deliver_held()
            case "delay":
                self.mood.to_server, self.mood.to_client = numbers
            case "last":
                (self.mood.lasting,) = numbers
            case "hang":
                self.mood.hung = True
            case "cut_answers":
                self.mood.cuts_answers = True
            case "refuse":
                await self._refuse()
            case "drop":
                for half in list(self.halves):
                    half.reset()
            case "accepted":
                return self.accepted
            case "open_connections":
                return len(self.halves)
            case _:
                raise AssertionError(f"no such command: {command}")
        return 0

    def _deliver_held(self) -> None:
        for half in list(self.halves):
            half.deliver()
            if half.other is not None:
                half.other.deliver()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            # bound and not listening: connections are refused, and nobody else is given the port
            self._listener = bound(self.port)


def bound(port: int) -> socket.socket:
    """A socket that owns a port of 127.0.0.1 and does not listen yet."""
    owner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    owner.bind((HOST, port))
    return owner


async def serve(target: int) -> None:
    proxy = Proxy(target)
    await proxy.listen()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    sys.stdout.write(f"{proxy.port}\n")
    sys.stdout.flush()
    while line := await commands.readline():
        answer = await proxy.obey(*json.loads(line))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
