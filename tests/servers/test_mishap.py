"""The proxy that makes servers misbehave does so, and only so."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers.mishap import HOST, ROOT, Mishap, mishap

LINE = b"a field, sixteen"


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """A server that sends back what it gets, until its client is done."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(link,), daemon=True).start()

        def answer(link: socket.socket) -> None:
            with link:
                try:
                    while data := link.recv(65536):
                        link.sendall(data)
                except ConnectionError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def running(echo: int) -> Iterator[Mishap]:
    with mishap(echo) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Mishap) -> Mishap:
    running.normal()
    return running


def connected(proxy: Mishap) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=5)


def receive(link: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += link.recv(size - len(received))
    return received


def echoed(link: socket.socket, data: bytes = LINE) -> float:
    """Seconds of one round trip."""
    began = time.monotonic()
    link.sendall(data)
    assert receive(link, len(data)) == data
    return time.monotonic() - began


def test_it_passes_bytes_and_the_end_of_them(proxy: Mishap) -> None:
    with connected(proxy) as link:
        assert echoed(link, bytes(range(256)) * 4096) < 5
        link.shutdown(socket.SHUT_WR)
        assert link.recv(1) == b""


def test_delays_of_both_directions_add_up(proxy: Mishap) -> None:
    with connected(proxy) as link:
        echoed(link)
        proxy.delay(to_server=0.05, to_client=0.1)
        assert 0.15 <= echoed(link) < 0.6
        proxy.delay(to_client=0.05)
        assert 0.05 <= echoed(link) < 0.5


def test_bursts_under_way_do_not_wait_for_each_other(proxy: Mishap) -> None:
    proxy.delay(to_client=0.3)
    with connected(proxy) as link:
        began = time.monotonic()
        for _ in range(5):
            link.sendall(LINE)
            time.sleep(0.02)
        assert receive(link, 5 * len(LINE)) == 5 * LINE
        assert time.monotonic() - began < 1


def test_a_hang_takes_bytes_and_gives_none_until_it_ends(proxy: Mishap) -> None:
    with connected(proxy) as old:
        echoed(old)
        proxy.hang()
        old.sendall(LINE)
        with connected(proxy) as new:
            new.sendall(LINE)
            for link in (old, new):
                link.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    link.recv(1)
            proxy.normal()
            for link in (old, new):
                link.settimeout(5)
                assert receive(link, len(LINE)) == LINE


def test_a_refusal_is_for_new_connections(proxy: Mishap) -> None:
    with connected(proxy) as link:
        echoed(link)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
        echoed(link)
    proxy.normal()
    with connected(proxy) as link:
        echoed(link)


def test_dropped_connections_are_reset_and_new_ones_served(proxy: Mishap) -> None:
    with connected(proxy) as link:
        echoed(link)
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with connected(proxy) as link:
        echoed(link)


def test_an_unplugged_server_is_gone_for_everybody(proxy: Mishap) -> None:
    with connected(proxy) as link:
        echoed(link)
        proxy.unplug()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)


def test_an_answer_is_cut_off_after_the_call_was_made(proxy: Mishap) -> None:
    proxy.cut_answers()
    with connected(proxy) as link:
        link.sendall(LINE)
        with pytest.raises(ConnectionResetError):
            link.recv(1)


def test_connections_are_counted(proxy: Mishap) -> None:
    before, still_open = proxy.accepted(), proxy.open_connections()
    with connected(proxy) as one, connected(proxy) as other:
        echoed(one)
        echoed(other)
        assert proxy.accepted() == before + 2
        assert proxy.open_connections() >= 2
    deadline = time.monotonic() + 5
    while proxy.open_connections() > still_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_behind_it_is_a_reset() -> None:
    with socket.socket() as owner:
        owner.bind((HOST, 0))
        # the reset may come while we connect, or after
        with mishap(owner.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError), connected(proxy) as link:
            link.recv(1)


def test_it_ends_when_its_parent_is_killed(echo: int) -> None:
    source = (
        "import os, signal\n"
        "from tests.servers.mishap import mishap\n"
        f"with mishap({echo}) as proxy:\n"
        "    print(proxy.port, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 5
    while listens(int(done.stdout)):
        assert time.monotonic() < deadline, "the proxy outlives its parent"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_a_call_lasts_as_long_as_it_is_told_whatever_the_server_does(proxy: Mishap) -> None:
    with connected(proxy) as link:
        proxy.last(0.2)
        for _ in range(2):
            began = time.monotonic()
            link.sendall(LINE)
            assert link.recv(100) == LINE
            assert 0.19 < time.monotonic() - began < 0.4
        proxy.last(0.0)
        began = time.monotonic()
        link.sendall(LINE)
        assert link.recv(100) == LINE
        assert time.monotonic() - began < 0.15
