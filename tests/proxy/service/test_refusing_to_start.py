"""Bad days at start-up: each is one line that names the remedy, and an exit code; never a traceback."""

import os
import shutil
import signal
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from proxy.exits import Exit
from tests.proxy.service.sidecar import PATIENCE, Sidecar, initialize, running, zygote


def serve(config: Path, locked: int | None = None) -> tuple[int, str]:
    """`keyside serve` where it must end by itself: its exit code, and what it says to people."""
    log = config.with_suffix(".refused")
    ended = zygote().start(config, log, {}, locked)
    deadline = time.monotonic() + PATIENCE
    while (code := ended.poll()) is None:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    said = log.read_text()
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("keyside: ")]
    assert errors, said
    return code, "\n".join(errors)


def test_every_problem_of_the_configuration_is_named_at_once(home: Path) -> None:
    config = initialize(home, cache="{ttl: soon, keys: -1}", log="{level: loud}", unknown="1")
    code, said = serve(config)
    assert code == Exit.CONFIG
    assert all(path in said for path in ("cache.ttl", "cache.keys", "log.level", "unknown"))


def test_no_configuration(home: Path) -> None:
    code, said = serve(home / "keyside.yaml")
    assert code == Exit.CONFIG
    assert "keyside init" in said


def test_another_sidecar_serves_on_the_socket(sidecar: Sidecar) -> None:
    code, said = serve(sidecar.config)
    assert code == Exit.TRY_LATER
    assert f"pid {sidecar.process.pid}" in said
    assert str(sidecar.data) in said


def test_another_sidecar_has_the_keystore(sidecar: Sidecar) -> None:
    config = sidecar.home / "second.yaml"
    text = sidecar.config.read_text()
    config.write_text(
        text.replace("#  path: run/keyside.sock", "  path: run/2.sock").replace(
            "#  path: run/admin.sock", "  path: run/3.sock"
        )
    )
    code, said = serve(config)
    assert code == Exit.TRY_LATER
    assert str(sidecar.process.pid) in said
    assert not (sidecar.home / "run" / "2.sock").exists()


def test_a_stale_socket_file_is_replaced(home: Path) -> None:
    config = initialize(home)
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(home / "run" / "keyside.sock"))
    with running(config) as sidecar:
        sidecar.run("keyring", "create", "contacts")


def test_something_else_is_where_the_socket_goes(home: Path) -> None:
    config = initialize(home)
    (home / "run" / "keyside.sock").write_text("precious")
    code, said = serve(config)
    assert code == Exit.CANNOT_CREATE
    assert "not a socket" in said
    assert (home / "run" / "keyside.sock").read_text() == "precious"


def test_the_socket_path_is_too_long(home: Path) -> None:
    code, said = serve(initialize(home, socket="{path: run/" + "x" * 100 + "}"))
    assert code == Exit.CONFIG
    assert "socket.path" in said
    assert "/run/keyside/keyside.sock" in said


def test_the_root_key_is_missing(home: Path) -> None:
    config = initialize(home)
    (home / "data" / "root.key").unlink()
    code, said = serve(config)
    assert code == Exit.CONFIG
    assert "root.key" in said
    assert "restore" in said


def test_others_may_read_the_root_key(home: Path) -> None:
    config = initialize(home)
    (home / "data" / "root.key").chmod(0o644)
    code, said = serve(config)
    assert code == Exit.CONFIG
    assert "chmod 600" in said


def test_it_is_another_root_key(home: Path) -> None:
    config = initialize(home)
    with running(config) as sidecar:
        sidecar.run("keyring", "create", "contacts")
        sidecar.run("encrypt", "contacts", stdin=b"x")
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
    other = home / "other"
    other.mkdir()
    initialize(other)
    shutil.copy(other / "data" / "root.key", home / "data" / "root.key")
    code, said = serve(config)
    assert code == Exit.CONFIG
    assert "restore the root key" in said


def test_there_is_no_keystore(home: Path) -> None:
    config = initialize(home)
    (home / "data" / "keystore.sqlite").unlink()
    code, said = serve(config)
    assert code == Exit.STORAGE
    assert "keyside init" in said
    assert not (home / "data" / "keystore.sqlite").exists()


def test_the_keystore_is_no_database(home: Path) -> None:
    config = initialize(home)
    (home / "data" / "keystore.sqlite").write_bytes(b"noise" * 1000)
    code, said = serve(config)
    assert code == Exit.STORAGE
    assert "keystore.sqlite" in said


def test_the_keystore_is_locked_by_a_tool(home: Path) -> None:
    config = initialize(home)
    tool = sqlite3.connect(home / "data" / "keystore.sqlite", isolation_level=None)
    tool.execute("BEGIN EXCLUSIVE")
    code, said = serve(config)
    tool.close()
    assert code == Exit.STORAGE
    assert "lock" in said


def test_others_may_write_the_keystore(home: Path) -> None:
    config = initialize(home)
    (home / "data").chmod(0o777)
    code, said = serve(config)
    assert code == Exit.STORAGE
    assert "chmod" in said


def test_the_lock_limit_is_too_low_and_the_sidecar_refuses(home: Path) -> None:
    config = initialize(home, cache="{keys: 200000}")
    code, said = serve(config, locked=4 << 20)
    assert code == Exit.SYSTEM
    for word in ("4 MiB", "200,000", "LimitMEMLOCK=", "ulimit -l", "cache.on_low_lock_limit: degrade"):
        assert word in said, said


def test_the_lock_limit_is_too_low_and_the_sidecar_degrades(home: Path) -> None:
    config = initialize(home, cache="{keys: 200000, on_low_lock_limit: degrade}")
    with running(config, locked=4 << 20) as sidecar:
        _, status = sidecar.ask("GET", "/v1/status")
        assert 256 <= status["keys"]["capacity"] < 200_000
        assert status["memory"]["locked_bytes"] <= status["memory"]["limit_bytes"] == 4 << 20
        assert "degrade" in status["warnings"][0]
        sidecar.run("keyring", "create", "contacts")
        sidecar.run("encrypt", "contacts", stdin=b"x")


def test_not_even_a_few_keys_can_be_locked(home: Path) -> None:
    config = initialize(home, cache="{on_low_lock_limit: degrade}")
    code, said = serve(config, locked=16 << 10)
    assert code == Exit.SYSTEM
    assert "LimitMEMLOCK=" in said


def test_the_report_says_what_is_locked_and_advises_only_where_that_is_too_little(sidecar: Sidecar, home: Path) -> None:
    (line,) = [line for line in sidecar.log.splitlines() if "locks " in line]
    assert " MiB for a cache of 131,072 data keys. " in line
    assert "raise" not in line
    with running(initialize(home), locked=1 << 20) as small:
        (line,) = [line for line in small.log.splitlines() if "locks " in line]
    for word in (" data keys of 131,072; for all of them raise LimitMEMLOCK=", "ulimit -l "):
        assert word in line


def test_the_serving_process_overwrites_freed_memory_and_shows_itself_to_root_alone(sidecar: Sidecar) -> None:
    environ = Path(f"/proc/{sidecar.process.pid}/environ")
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            environ.read_text()
        return
    assert environ.stat().st_uid == 0
    for word in ("PYTHONMALLOC=malloc", "glibc.malloc.perturb=165", "glibc.malloc.tcache_count=0"):
        assert word in environ.read_text()
