"""Requests over pooled connections, to a server of the standard library and to sockets that misbehave."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from providers.http import Broken, Connections, Malformed, UnfitHeader
from tests.servers.azure import make_authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def connections(size: int = 2, idle: float = 60.0) -> Connections:
    return Connections(size=size, max_age=60.0, largest=1000, idle=idle)


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Recorder:
    """Answers every request with `reply`, and keeps what was asked, by connection."""

    def __init__(self, reply: bytes = OK) -> None:
        self.reply = reply
        self.asked: list[list[bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.asked.append(mine)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
                mine.append(head + await reader.readexactly(length))
                writer.write(self.reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def test_requests_follow_each_other_on_one_connection() -> None:
    recorder = Recorder()
    async with listening(recorder) as port:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{port}")
        first = await pool.exchange("POST", "/v1/a?b=c", [("X-One", "1"), ("x-two", b"2")], b"body")
        second = await pool.exchange("GET", "/", [], None)
        assert (first.status, first.body, second.body) == (200, b"ok", b"ok")
        await pool.close()
    host = b"host: 127.0.0.1:%d" % port
    assert recorder.asked == [
        [
            b"POST /v1/a?b=c HTTP/1.1\r\n" + host + b"\r\nX-One: 1\r\nx-two: 2\r\ncontent-length: 4\r\n\r\nbody",
            b"GET / HTTP/1.1\r\n" + host + b"\r\n\r\n",
        ]
    ]


async def test_a_post_without_content_says_so() -> None:
    recorder = Recorder()
    async with listening(recorder) as port:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{port}")
        await pool.exchange("POST", "/", [], b"")
        await pool.close()
    assert recorder.asked[0][0].endswith(b"\r\ncontent-length: 0\r\n\r\n")


async def test_no_more_connections_than_allowed() -> None:
    recorder = Recorder()
    async with listening(recorder) as port:
        pool = connections(size=3)
        pool.aim(f"http://127.0.0.1:{port}")
        answers = await asyncio.gather(*(pool.exchange("GET", f"/{n}", [], None) for n in range(30)))
        assert [answer.body for answer in answers] == [b"ok"] * 30
        assert (pool.usage.idle, pool.usage.active) == (3, 0)
        await pool.close()
    assert len(recorder.asked) == 3
    assert sum(map(len, recorder.asked)) == 30


@pytest.mark.parametrize("reply", [b"", OK[:-1], OK[:20]])
async def test_a_connection_that_ends_early_is_broken(reply: bytes) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async with listening(hang_up) as port:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{port}")
        with pytest.raises(Broken):
            await pool.exchange("GET", "/", [], None)
        assert pool.usage.idle == 0
        await pool.close()


async def test_what_speaks_no_http_is_told_apart() -> None:
    async with listening(Recorder(b"220 mail.example.org ESMTP\r\n\r\n")) as port:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{port}")
        with pytest.raises(Malformed):
            await pool.exchange("GET", "/", [], None)
        await pool.close()


async def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    recorder = Recorder()
    async with listening(recorder) as port:
        pool = connections(idle=0.05)
        pool.aim(f"http://127.0.0.1:{port}")
        await pool.exchange("GET", "/", [], None)
        await asyncio.sleep(0.1)
        await pool.exchange("GET", "/", [], None)
        await pool.close()
    assert len(recorder.asked) == 2


async def test_a_cancelled_request_takes_its_connection_along() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(silent) as port:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{port}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.exchange("GET", "/", [], None)
        assert (pool.usage.idle, pool.usage.active) == (0, 0)
        await pool.close()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", b"a\r\nb", "\u20ac"])
async def test_no_header_ends_its_line(value: str | bytes) -> None:
    pool = connections()
    pool.aim("http://127.0.0.1:1")
    with pytest.raises(UnfitHeader) as refused:
        await pool.exchange("GET", "/", [("x", value)], None)
    assert str(refused.value) == ""
    await pool.close()


async def test_a_socket_of_this_machine(tmp_path: Path) -> None:
    recorder, path = Recorder(), str(tmp_path / "agent.sock")
    server = await asyncio.start_unix_server(recorder, path)
    async with server:
        pool = connections()
        pool.aim("http://agent", socket_path=path)
        assert (await pool.exchange("GET", "/", [], None)).body == b"ok"
        await pool.close()
    assert b"host: agent\r\n" in recorder.asked[0][0]


async def test_tls_is_asked_for_at_each_connection(tmp_path: Path) -> None:
    make_authority(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(tmp_path / "server.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    given = [ssl.create_default_context(), trusting]

    async def trust() -> ssl.SSLContext:
        return given.pop(0)

    async with listening(Recorder(), serving) as port:
        pool = connections()
        pool.aim(f"https://127.0.0.1:{port}", trust)
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.exchange("GET", "/", [], None)
        assert (await pool.exchange("GET", "/", [], None)).body == b"ok"
        await pool.close()


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        pool = connections()
        pool.aim(f"http://127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(ConnectionRefusedError):
            await pool.exchange("GET", "/", [], None)
        await pool.close()


async def test_tls_is_never_left_out() -> None:
    pool = connections()
    with pytest.raises(ValueError, match="TLS"):
        pool.aim("https://127.0.0.1:1")


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones() -> None:
    """Also when the event loop was too busy to read it before the next request."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_twice() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                if not connection.recv(1000):
                    return
                connection.sendall(OK)
                time.sleep(0.05)
                connection.sendall(OK.replace(b"ok", b"no"))
                connection.recv(1000)

    thread = threading.Thread(target=answer_twice)
    thread.start()
    pool = connections()
    try:
        pool.aim(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert (await pool.exchange("GET", "/1", [], None)).body == b"ok"
        time.sleep(0.2)  # noqa: ASYNC251 - nobody may read meanwhile
        with pytest.raises(Broken):
            await pool.exchange("GET", "/2", [], None)
        assert (await pool.exchange("GET", "/3", [], None)).body == b"ok"
    finally:
        await pool.close()
        await asyncio.to_thread(thread.join, 10)
        listener.close()


async def test_a_connection_that_was_lent_while_the_aim_changed_is_not_used_again() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go.wait()
        writer.write(OK)
        await reader.read()
        writer.close()

    recorder = Recorder()
    async with listening(slow) as old, listening(recorder) as new:
        pool = connections()
        pool.aim(f"http://127.0.0.1:{old}")
        first = asyncio.create_task(pool.exchange("GET", "/", [], None))
        await asked.wait()
        pool.aim(f"http://127.0.0.1:{new}")
        go.set()
        assert (await first).body == b"ok"
        assert pool.usage.idle == 0
        await pool.exchange("GET", "/secret", [], None)
        await pool.close()
    assert len(recorder.asked) == 1
