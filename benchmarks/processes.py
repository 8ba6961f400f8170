"""Waiting for and ending child processes, and what /proc says about memory, CPU time and CPUs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 15.0
WORKER_THREAD = "keyside-worker"
TICKS = os.sysconf("SC_CLK_TCK")


class NotListeningError(Exception):
    """A server ended, or never listened."""


def listens(path: str) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        return probe.connect_ex(path) == 0


def wait_until_listening(path: str, process: subprocess.Popen[bytes]) -> None:
    """Return once somebody accepts on `path`. Raises NotListeningError."""
    deadline = time.monotonic() + START_SECONDS
    while not listens(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotListeningError(f"nobody listens on {path}; exit code {process.poll()}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for who does not hear it."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def memory_kib(pid: int, field: str) -> int:
    """A field of /proc/PID/status that counts KiB: VmRSS, VmLck."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(f"/proc/{pid}/status has no {field}")


def threads(pid: int) -> Iterator[tuple[int, str]]:
    """Thread id and name of every thread of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield int(task.name), (task / "comm").read_text().strip()


def worker_threads(pid: int) -> list[int]:
    return sorted(tid for tid, name in threads(pid) if name == WORKER_THREAD)


def control_threads(pid: int) -> list[int]:
    return sorted(tid for tid, name in threads(pid) if name != WORKER_THREAD)


def worker_cpus(pid: int) -> list[int]:
    """The CPU that each worker is pinned to; empty when they are not pinned."""
    allowed = [os.sched_getaffinity(tid) for tid in worker_threads(pid)]
    return sorted(min(cpus) for cpus in allowed if len(cpus) == 1)


def cpu_seconds(pid: int, tids: list[int]) -> float:
    """CPU time that some threads of a process have used."""
    ticks = 0
    for tid in tids:
        # the name in parentheses may hold spaces: count fields from behind it
        after_name = Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / TICKS


def pin(pid: int, cpus: set[int]) -> None:
    """Every thread of a process to these CPUs."""
    for tid, _ in list(threads(pid)):
        os.sched_setaffinity(tid, cpus)


@contextmanager
def placed_on(cpus: set[int]) -> Iterator[None]:
    """The calling thread on these CPUs for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
