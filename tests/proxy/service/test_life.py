"""From ready to gone: reports to the service manager, reload, drain, socket activation, and outages while serving."""

import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from proxy.exits import Exit
from tests.proxy.service.sidecar import KEYSIDE, Sidecar, command, environment, initialize, replace_section, running


def exchange(connected: socket.socket, *request: object) -> list[Any]:
    """One frame there and one back, written from docs/spec/wire.md and not with our codec."""
    body = msgpack.packb(request, use_bin_type=True)
    connected.sendall(struct.pack(">I", len(body)) + body)
    return receive(connected)


def receive(connected: socket.socket) -> list[Any]:
    (length,) = struct.unpack(">I", connected.recv(4, socket.MSG_WAITALL))
    answer: list[Any] = msgpack.unpackb(connected.recv(length, socket.MSG_WAITALL), raw=False)
    return answer


def connect(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(10)
    connected.connect(str(path))
    return connected


def keystore_tool(sidecar: Sidecar) -> sqlite3.Connection:
    """Another process's hand on the keystore, such as a backup."""
    return sqlite3.connect(sidecar.home / "data" / "keystore.sqlite", isolation_level=None)


@pytest.fixture
def own(home: Path) -> Iterator[Sidecar]:
    """A sidecar that a test may change and end, with the keyring `contacts`."""
    with running(initialize(home)) as started:
        started.run("keyring", "create", "contacts")
        yield started


def test_sigterm_ends_it_cleanly_and_removes_its_sockets(own: Sidecar) -> None:
    own.signal(signal.SIGTERM)
    assert own.notification()["STOPPING"] == "1"
    assert own.wait() == 0
    assert not own.data.exists()
    assert not own.admin.exists()
    assert (own.home / "data" / "keystore.sqlite").exists()


def test_draining_answers_what_was_asked_and_refuses_what_comes_later(own: Sidecar) -> None:
    with connect(own.data) as busy, connect(own.data) as slow, closing(keystore_tool(own)) as tool:
        (envelope,) = exchange(busy, 1, 1, "contacts", None, [b"x"])[2]
        # the keystore is locked: this first use of a keyring waits for a data key while the sidecar begins to drain
        own.run("keyring", "create", "fresh")
        tool.execute("BEGIN IMMEDIATE")
        body = msgpack.packb([7, 1, "fresh", None, [b"y"]], use_bin_type=True)
        slow.sendall(struct.pack(">I", len(body)) + body)
        time.sleep(0.2)
        own.signal(signal.SIGTERM)
        assert own.notification()["STOPPING"] == "1"
        assert exchange(busy, 8, 2, "contacts", None, [envelope])[:2] == [8, 26]
        tool.execute("ROLLBACK")
        answered = receive(slow)
        assert answered[:2] == [7, 0]
    assert own.wait() == 0


def test_a_second_signal_does_not_wait_for_those_who_never_read(own: Sidecar) -> None:
    with connect(own.data) as greedy:
        body = msgpack.packb([1, 1, "contacts", None, [b"x" * 65_536] * 100], use_bin_type=True)
        greedy.sendall(struct.pack(">I", len(body)) + body)
        time.sleep(0.3)
        own.signal(signal.SIGTERM)
        assert own.notification()["STOPPING"] == "1"
        own.signal(signal.SIGTERM)
        started = time.monotonic()
        assert own.wait() == 0
        assert time.monotonic() - started < 5


def test_sighup_puts_a_new_policy_into_force_for_open_connections(own: Sidecar) -> None:
    with connect(own.data) as connected:
        assert exchange(connected, 1, 1, "contacts", None, [b"x"])[1] == 0
        text = own.config.read_text()
        own.config.write_text(text.replace('keyrings: ["*"]', 'keyrings: ["others"]'))
        own.signal(signal.SIGHUP)
        assert own.notification()["RELOADING"] == "1"
        assert own.notification()["READY"] == "1"
        assert exchange(connected, 2, 1, "contacts", None, [b"x"])[1] == 17


def test_a_configuration_with_problems_is_not_put_into_force(own: Sidecar) -> None:
    own.config.write_text(own.config.read_text().replace('["*"]', "[]") + "\nnonsense: 1\n")
    own.signal(signal.SIGHUP)
    reloading, ready = own.notification(), own.notification()
    assert (reloading["RELOADING"], ready["READY"]) == ("1", "1")
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert "nonsense" in own.log
    assert "policy.peers[0].keyrings" in own.log
    with connect(own.data) as connected:
        assert exchange(connected, 1, 1, "contacts", None, [b"x"])[1] == 0
    status, answer = own.ask("POST", "/v1/reload")
    assert status == 400
    assert {problem["path"] for problem in answer["error"]["problems"]} == {"nonsense", "policy.peers[0].keyrings"}


def test_a_reload_names_what_needs_a_restart(own: Sidecar) -> None:
    assert own.ask("POST", "/v1/reload") == (200, {"restart_needed_for": [], "provider_kept": None})
    text = (
        own.config.read_text().replace("workers:", "workers:\n  count: 7", 1).replace("#  keys: auto", "  keys: 1000")
    )
    own.config.write_text(text)
    for _ in range(2):  # it stays pending until the restart
        _, answer = own.ask("POST", "/v1/reload")
        assert answer["restart_needed_for"] == ["workers", "cache.keys"]


def test_the_watchdog_is_fed(home: Path) -> None:
    with running(initialize(home), environ={"WATCHDOG_USEC": "200000"}) as sidecar:
        for _ in range(3):
            assert sidecar.notification() == {"WATCHDOG": "1"}


def test_sockets_from_systemd_are_served_and_left_in_place(home: Path) -> None:
    config = initialize(home)
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for name, listening in zip(("admin", "keyside"), opened, strict=True):
            listening.bind(str(home / "run" / f"{name}.sock"))
            listening.listen()
        process = stack.enter_context(activated(config, opened, "admin:data"))
        # the connection waits in the backlog until the sidecar is there
        with connect(home / "run" / "keyside.sock") as connected:
            assert exchange(connected, 1, 0, "", None, [])[1] == 0
        process.terminate()
        assert process.wait(10) == 0
    assert (home / "run" / "keyside.sock").exists()
    assert (home / "run" / "admin.sock").exists()


@contextmanager
def activated(config: Path, sockets: list[socket.socket], names: str) -> "Iterator[subprocess.Popen[bytes]]":
    """`keyside serve` started the way systemd does: descriptors from 3 on, and its own pid in LISTEN_PID."""
    moves = " ".join(f"{3 + place}<&{given.fileno()}" for place, given in enumerate(sockets))
    variables = f"LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}"
    shell = ["/bin/bash", "-c", f'exec {moves}; {variables} exec "$@"', "sh"]
    process = subprocess.Popen(
        [*shell, *KEYSIDE, "serve", "--config", str(config)],
        pass_fds=[given.fileno() for given in sockets],
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_locked_keystore_costs_only_requests_that_need_it(own: Sidecar) -> None:
    with connect(own.data) as connected, closing(keystore_tool(own)) as tool:
        (envelope,) = exchange(connected, 1, 1, "contacts", None, [b"x"])[2]
        own.run("keyring", "create", "other")
        tool.execute("BEGIN IMMEDIATE")
        answer = exchange(connected, 2, 1, "other", None, [b"x"])
        assert answer[1] == 24
        assert exchange(connected, 3, 2, "contacts", None, [envelope]) == [3, 0, [b"x"]]
        status, ready = own.ask("GET", "/v1/ready")
        assert status == 503
        assert "keystore" in ready["missing"][0]
        status, refused = own.ask("POST", "/v1/keyrings", {"name": "third"})
        assert (status, refused["error"]["code"]) == (503, "unavailable")
        tool.execute("ROLLBACK")
        assert own.ask("GET", "/v1/ready") == (200, {"ready": True, "missing": []})
        assert own.ask("GET", "/v1/health") == (200, {"status": "ok"})
    assert "lock" in own.log


def test_python_gives_way_to_the_workers(sidecar: Sidecar) -> None:
    cpus = os.sched_getaffinity(0)
    nice: dict[str, int] = {}
    places: dict[str, set[int]] = {}
    for task in Path(f"/proc/{sidecar.process.pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        nice[task.name] = int(fields[16])
        places[task.name] = os.sched_getaffinity(int(task.name))
    python = str(sidecar.process.pid)
    assert nice[python] == 10
    workers = [task for task, niceness in nice.items() if niceness == 0]
    assert len(workers) == max(1, len(cpus) - 1)
    if len(cpus) > 1:
        assert all(len(places[worker]) == 1 for worker in workers)
        assert not places[python] & places[workers[0]]


def test_status_and_hits_of_concurrent_clients(own: Sidecar) -> None:
    def work() -> None:
        with connect(own.data) as connected:
            for number in range(50):
                exchange(connected, number, 1, "contacts", None, [b"x", b"y"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = json.loads(own.run("status", "--json"))
    assert status["operations"]["encrypt"] == {"requests": 200, "items": 400}
    assert status["key_service"]["created"] == 1
    assert status["keys"]["cached"] == 1
    assert status["recent"]["operations"]["encrypt"]["items_per_second"] > 0
    assert 0 < status["recent"]["latency_seconds"]["p50"] <= status["recent"]["latency_seconds"]["p99"]
    assert status["recent"]["latency_seconds"]["count"] + status["recent"]["waited_latency_seconds"]["count"] == 200
    shown = own.run("status").decode()
    for word in ("keys cached", "1 of", "locked memory", "p50", "p99", "hits", "encrypt", "400"):
        assert word in shown, shown


def test_after_a_bad_edit_the_running_sidecar_can_still_be_asked(home: Path) -> None:
    config = initialize(home)
    with running(config) as sidecar:
        sidecar.run("keyring", "create", "contacts")
        config.write_text(replace_section(config.read_text(), "cache", "{ttl: soon, surprise: 1}"))
        envelope = command("encrypt", "contacts", "--config", config, stdin=b"secret")
        said = [
            envelope,
            command("decrypt", "contacts", "--config", config, stdin=envelope.stdout),
            command("status", "--config", config),
            command("keyring", "show", "contacts", "--config", config),
            command("keyring", "list", "--json", "--config", config),
            command("keyring", "create", "users", "--config", config),
        ]
        for one in said:
            assert one.returncode == 0, one.stderr
            assert one.stderr.count(b"\n") == 1
            assert b"warning" in one.stderr
            assert b"config check" in one.stderr
        assert said[1].stdout == b"secret"
        for bad in ("{paht: run/admin.sock}", "{path: 7}", "[]"):
            config.write_text(replace_section(config.read_text(), "admin", bad))
            assert command("status", "--config", config).returncode == Exit.CONFIG
        config.write_text("cache: [")
        assert command("status", "--config", config).returncode == Exit.CONFIG


def test_status_says_when_the_root_key_or_the_keystore_is_gone(home: Path) -> None:
    config = initialize(home)
    with running(config) as sidecar:
        well = json.loads(sidecar.run("status", "--json"))["health"]
        assert (well["provider"]["status"], well["keystore"]["status"]) == ("ok", "ok")
        (home / "data" / "root.key").unlink()
        (home / "data" / "keystore.sqlite").rename(home / "data" / "elsewhere")
        ill = json.loads(sidecar.run("status", "--json"))["health"]
        assert (ill["provider"]["status"], ill["keystore"]["status"]) == ("degraded", "down")
        table = sidecar.run("status")
        assert b"DEGRADED: " in table
        assert b"DOWN: " in table
