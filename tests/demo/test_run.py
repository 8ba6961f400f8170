"""The demo, whole and interrupted: it tells the truth by its exit code and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.servers import LAUNCHERS

PID = re.compile(r"pid (\d+)")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short name: pytest's own can be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="ks-") as name:
        yield Path(name)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(pid: int) -> bool:
    """Whether the process is gone within five seconds; a zombie is gone."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def read_until_serving(demo: subprocess.Popen[str]) -> int:
    """The sidecar's pid, once the demo has printed it."""
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if found := PID.search(line):
            return int(found[1])
    raise AssertionError("".join(said))


def begun_by(ancestor: int) -> set[int]:
    """That process, and all that it and its children started and that still run."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # a process may end while this looks
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.parametrize("provider", ["LOCAL", *LAUNCHERS])
def test_the_whole_run_ends_with_its_figures_and_leaves_nothing(folder: Path, provider: str) -> None:
    demo = start(folder, "--rows", "200", "--provider", provider)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output
    figures = output.strip().splitlines()[-1]
    assert re.match(r"200 rows, 1,\d{3} fields, \d+ data keys: encrypted in .* and all equal; 0 of \d{3} ", figures)
    assert "InvalidCiphertext" in output
    assert f"provider {provider}" in output
    pids = {int(pid) for pid in PID.findall(output)}
    assert len(pids) == 2
    assert all(ended(pid) for pid in pids)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("provider", LAUNCHERS)
def test_a_killed_run_takes_its_test_server_along(folder: Path, provider: str) -> None:
    with start(folder, "--provider", provider) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "done" in line:  # the first step starts the server
                break
        running = begun_by(demo.pid)
        assert len(running) > 1 or provider.endswith("_HSM")  # a token is files alone
        demo.kill()
        demo.communicate(timeout=30)
    assert all(ended(pid) for pid in running)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_stops_its_sidecar_and_removes_its_folder(folder: Path, number: signal.Signals) -> None:
    with start(folder) as demo:
        sidecar = read_until_serving(demo)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, output
    assert ended(sidecar)
    assert list(folder.iterdir()) == []


def test_a_killed_run_takes_its_sidecar_along(folder: Path) -> None:
    with start(folder) as demo:
        sidecar = read_until_serving(demo)
        demo.kill()
        demo.communicate(timeout=30)
    assert ended(sidecar)


def test_a_sidecar_that_does_not_start_fails_the_run_with_its_words(folder: Path) -> None:
    long = folder / ("x" * 100)  # the socket's path then has more than 107 bytes
    long.mkdir()
    demo = start(long, "--rows", "10")
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert "demo failed" in output
    assert "107" in output
    assert list(long.iterdir()) == []
