"""Connections handed over for HTTP: slow, stalled, too many, and what they cost the data plane. The plane is a fake."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from keyside.testing import frames as twin

from proxy.http_data import HttpData, HttpLimits
from proxy.peers import Peer

BODY = b'{"keyring":"k","items":["YQ=="]}'
LIMITS = HttpLimits(max_frame=4096, connections=3, buffer_bytes=1 << 20, idle_timeout=0.6, stall_timeout=0.3)


def request(body: bytes = BODY) -> bytes:
    return b"POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class TwinPlane:
    """Answers frames on adopted connections with the twin's codec; `answer` decides what, `adopted` who asked."""

    def __init__(self) -> None:
        self.adopted: list[tuple[int, int, int, tuple[int, ...]]] = []
        self.answer: object = [b"\xc1\x01sealed"]
        self.closes = False  # after the answer
        self.tasks: list[asyncio.Task[None]] = []

    def adopt(self, fd: int, uid: int, gid: int, pid: int, groups: Sequence[int] = ()) -> None:
        self.adopted.append((uid, gid, pid, tuple(groups)))
        self.tasks.append(asyncio.get_running_loop().create_task(self.serve(socket.socket(fileno=fd))))

    async def serve(self, connected: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connected)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                asked = twin.parse_request(await reader.readexactly(length))
                assert isinstance(asked, twin.Request)
                if isinstance(self.answer, int):
                    writer.write(twin.build_response(asked.id, self.answer, "as told"))
                elif isinstance(self.answer, list):
                    writer.write(twin.build_response(asked.id, 0, self.answer))
                elif isinstance(self.answer, bytes):
                    writer.write(self.answer)
                if self.closes:
                    return
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@pytest.fixture
async def plane() -> AsyncIterator[TwinPlane]:
    started = TwinPlane()
    yield started
    await asyncio.gather(*started.tasks)


@pytest.fixture
async def http(plane: TwinPlane) -> AsyncIterator[HttpData]:
    served = HttpData(plane, LIMITS)
    await served.start()
    yield served
    await served.stop()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> tuple[int, dict[str, object]]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")
        )
        body = await self.reader.readexactly(length)
        return int(head.split()[1]), json.loads(body) if body else {}

    async def ask(self, body: bytes = BODY) -> tuple[int, dict[str, object]]:
        self.writer.write(request(body))
        return await self.response()

    async def closed_after(self) -> float:
        started = time.monotonic()
        async with asyncio.timeout(5):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionResetError:
                pass
        return time.monotonic() - started


@pytest.fixture
async def clients(http: HttpData) -> AsyncIterator["Clients"]:
    opened = Clients(http)
    yield opened
    for client in opened.opened:
        client.writer.close()


class Clients:
    def __init__(self, http: HttpData) -> None:
        self.http = http
        self.opened: list[Client] = []

    async def connect(self) -> Client:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        await self.http.adopt(theirs.detach())
        self.opened.append(Client(*await asyncio.open_connection(sock=ours)))
        return self.opened[-1]


async def test_a_request_is_put_to_the_plane_under_the_peers_identity(clients: Clients, plane: TwinPlane) -> None:
    client = await clients.connect()
    for _ in range(2):
        assert await client.ask() == (200, {"items": ["ks1.wQFzZWFsZWQ"]})
    assert plane.adopted == [(os.geteuid(), os.getegid(), os.getpid(), tuple(os.getgroups()))]


@pytest.mark.parametrize(
    ("code", "status"),
    [(16, 400), (17, 403), (18, 404), (21, 409), (22, 429), (23, 503), (24, 503), (25, 500), (26, 503)],
)
async def test_statuses_of_the_plane(clients: Clients, plane: TwinPlane, code: int, status: int) -> None:
    plane.answer = code
    got, answer = await (await clients.connect()).ask()
    assert got == status
    assert answer["error"] == {"code": code, "name": twin.Code(code).name, "message": "as told"}


@pytest.mark.parametrize("answer", [b"\x00\x00\x00\x01\xc0", b"\xff\xff\xff\xff"])
async def test_a_plane_that_answers_nonsense_is_a_defect(clients: Clients, plane: TwinPlane, answer: object) -> None:
    plane.answer = answer
    client = await clients.connect()
    status, said = await client.ask()
    assert status == 500
    assert "correlation=" in str(said)
    plane.answer = [b"\xc1\x01sealed"]
    assert (await client.ask())[0] == 200


@pytest.mark.parametrize("part", [b"", b"\x00\x00\x00\x40\x93"])
async def test_a_worker_that_closes_in_the_middle_is_an_outage_and_not_a_defect(
    clients: Clients, plane: TwinPlane, http: HttpData, part: bytes
) -> None:
    plane.answer, plane.closes = part, True
    client = await clients.connect()
    status, said = await client.ask()
    assert status == 503
    assert said["error"] == {
        "code": 23,
        "name": "OVERLOADED",
        "message": "a worker gave the request up before it was answered; try again after a pause",
    }
    plane.answer, plane.closes = [b"\xc1\x01sealed"], False
    assert (await client.ask())[0] == 200


async def test_a_body_beyond_the_limits_is_refused_and_the_connection_lives(clients: Clients) -> None:
    client = await clients.connect()
    status, answer = await client.ask(b'{"keyring":"k","items":["' + b"A" * 8000 + b'"]}')
    assert (status, "max_frame" in str(answer)) == (400, True)
    assert (await client.ask())[0] == 200
    status, _ = await client.ask(b" " * (LIMITS.max_body + 1))
    assert status == 400


async def test_nothing_said_is_not_waited_for(clients: Clients) -> None:
    assert await (await clients.connect()).closed_after() < 2


@pytest.mark.parametrize("part", [b"P", b"POST /v1/encrypt HTTP/1.1\r\nHo", request()[:-1]])
async def test_a_request_that_stalls_is_cut_off(clients: Clients, part: bytes) -> None:
    client = await clients.connect()
    client.writer.write(part)
    assert 0.2 < await client.closed_after() < 2


async def test_a_request_that_trickles_is_served(clients: Clients) -> None:
    client = await clients.connect()
    client.writer.write(request()[:-6])
    for byte in request()[-6:]:
        await asyncio.sleep(0.1)
        client.writer.write(bytes([byte]))
    assert (await client.response())[0] == 200


async def test_a_reader_that_stalls_is_cut_off(clients: Clients, plane: TwinPlane, http: HttpData) -> None:
    plane.answer = [b"x" * 4000]
    client = await clients.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, as sockets have
    client.writer.write(request() * 400)
    await asyncio.sleep(1.0)
    assert http.stats()["open"] == 0


async def test_a_reader_that_stalls_and_trickles_is_cut_off(clients: Clients, plane: TwinPlane, http: HttpData) -> None:
    plane.answer = [b"x" * 600_000]
    client = await clients.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, as sockets have
    client.writer.write(request())
    for byte in request()[:20]:
        await asyncio.sleep(0.05)
        client.writer.write(bytes([byte]))
    assert http.stats()["open"] == 0


async def test_an_idle_connection_is_closed_after_its_time(clients: Clients) -> None:
    client = await clients.connect()
    assert (await client.ask())[0] == 200
    await asyncio.sleep(0.4)  # longer than a stall, shorter than idleness
    assert (await client.ask())[0] == 200
    assert await client.closed_after() < 3


async def test_connections_over_the_limit_are_turned_away(clients: Clients, http: HttpData) -> None:
    for _ in range(LIMITS.connections - 1):
        assert (await (await clients.connect()).ask())[0] == 200
    assert (await (await clients.connect()).response())[0] == 503
    assert http.stats()["turned_away"] == 1


async def test_a_peer_that_takes_all_it_can_leaves_connections_to_others(
    clients: Clients, http: HttpData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await clients.connect()
    assert http.stats()["turned_away"] == 3
    monkeypatch.setattr("proxy.http_data.peer_of", lambda _: Peer(1, 4242, 4242, ()))
    other = await clients.connect()
    assert (await other.ask())[0] == 200
    assert (await (await clients.connect()).response())[0] == 503


async def test_connections_that_end_make_room_again(clients: Clients, http: HttpData) -> None:
    for _ in range(4 * LIMITS.connections):
        client = await clients.connect()
        assert (await client.ask())[0] == 200
        client.writer.close()
        for _ in range(1000):
            if http.stats()["open"]:
                await asyncio.sleep(0.001)
    assert http.stats()["turned_away"] == 0


async def test_draining_refuses_new_requests(clients: Clients, http: HttpData) -> None:
    client = await clients.connect()
    assert (await client.ask())[0] == 200
    http.drain()
    status, answer = await client.ask()
    assert (status, "SHUTTING_DOWN" in str(answer)) == (503, True)


async def test_a_descriptor_that_died_on_the_way_is_forgotten(http: HttpData) -> None:
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(OSError, match="socket"):
        await http.adopt(read)
    os.close(read)
    assert http.stats()["open"] == 0


@pytest.mark.parametrize(
    "cut", [request()[:-5], request()[:-5] + b"!", request(), request() * 5, b"\x00\x01 noise", b"GET"]
)
async def test_a_client_that_leaves_is_no_defect(
    clients: Clients, http: HttpData, caplog: pytest.LogCaptureFixture, cut: bytes
) -> None:
    client = await clients.connect()
    client.writer.write(cut)
    await client.writer.drain()
    client.writer.transport.abort()
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.name == "proxy"]
    assert http.stats()["open"] == 0
