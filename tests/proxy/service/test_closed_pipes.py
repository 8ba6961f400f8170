"""`keyside ... | head -1`: a reader who leaves early changes neither what a command does nor its exit code."""

import os
import subprocess
from pathlib import Path
from typing import IO

import pytest

from proxy.exits import Exit
from tests.proxy.service.sidecar import KEYSIDE, PATIENCE, Sidecar, environment, initialize, replace_section

NOBODY = (
    'hsm: {provider: VAULT_TRANSIT, kek: keyside, connection: {endpoint: "http://127.0.0.1:1"}, credentials: '
    "{type: TOKEN, data: {token: abc}}, performance: {retryPolicy: {maxRetries: 0}}}\n"
)


def unread(*words: str | Path, both: bool = False) -> tuple[int, str]:
    """Run a command whose standard output (or `both`, standard error too) has no reader; exit code and what is left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        error: IO[bytes] | int = out if both else subprocess.PIPE
        done = subprocess.run(
            [*KEYSIDE, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
    return done.returncode, (done.stderr or b"").decode()


@pytest.mark.parametrize("words", [("provider", "check"), ("provider", "check", "--json")])
def test_a_failed_check_exits_as_documented(home: Path, words: tuple[str, ...]) -> None:
    config = home / "keyside.yaml"
    config.write_text(NOBODY)
    code, said = unread(*words, "--config", config)
    assert (code, said) == (Exit.TRY_LATER, "keyside: 1 of 10 steps failed, the first: server\n")
    assert unread(*words, "--config", config, both=True) == (Exit.TRY_LATER, "")


def test_problems_exit_as_documented(home: Path) -> None:
    config = home / "keyside.yaml"
    config.write_text("nonsense: 1\n")
    code, said = unread("config", "check", "--json", "--config", config)
    assert code == Exit.CONFIG
    assert "nonsense" in said
    assert unread("config", "check", config, both=True) == (Exit.CONFIG, "")
    assert unread("keyring", "what", both=True) == (Exit.USAGE, "")


def test_what_is_done_is_done(home: Path) -> None:
    assert unread("--help") == (0, "")
    config = initialize(home)
    assert unread("config", "check", config) == (0, "")
    sidecar = Sidecar(config)
    try:
        sidecar.until_ready()
        for words in (("status",), ("status", "--json"), ("keyring", "create", "contacts"), ("keyring", "list")):
            assert unread(*words, "--config", config) == (0, "")
        assert unread("keyring", "create", "contacts", "--config", config)[0] == Exit.CANNOT_CREATE
    finally:
        sidecar.close()


def test_a_sidecar_that_does_not_start_exits_as_documented(home: Path) -> None:
    config = initialize(home)
    config.write_text(replace_section(config.read_text(), "workers", "{count: many}"))
    assert unread("serve", "--config", config, both=True) == (Exit.CONFIG, "")
