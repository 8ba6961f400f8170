"""Run by test_connections: takes every descriptor that the limit allows, twice, and looks at what the plane does."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from pathlib import Path

from tests.fastpath.harness import ENCRYPT, FIELD, Peer, Serving, serving, wait_for

KEYS = {"contacts": [(0xA1, FIELD, b"\x01" * 32)]}
LIMIT = 128


def hoard() -> list[int]:
    """Every descriptor there is."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    return taken


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def starve(running: Serving, spare_too: bool) -> None:
    """Connect while nothing can be accepted; `spare_too`: not even with the descriptor that a worker keeps for this."""
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    taken = hoard()
    for late in waiting:
        late.settimeout(5)
        late.connect(str(running.path))
    if spare_too:
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            taken += hoard()  # whatever the worker gives up for a moment
            time.sleep(0.0001)
    time.sleep(0.1)
    before = processor_seconds()
    time.sleep(0.5)
    used = processor_seconds() - before
    assert used < 0.2, f"{used} seconds of processor time in half a second of nothing to do"
    for descriptor in taken:
        os.close(descriptor)
    for late in waiting:
        late.close()


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    with serving(folder, KEYS, workers=2) as running, running.connect() as old:
        assert old.call(ENCRYPT, "contacts", [b"x"])[0] == 0
        for spare_too in (False, True, False):
            starve(running, spare_too)
            assert old.call(ENCRYPT, "contacts", [b"x"])[0] == 0

            def answered() -> bool:
                with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError), Peer(running.path) as fresh:
                    return bool(fresh.call(ENCRYPT, "contacts", [b"x"])[0] == 0)
                return False

            wait_for(answered)
        flood(running)
        assert old.call(ENCRYPT, "contacts", [b"x"])[0] == 0


def flood(running: Serving) -> None:
    """More peers than descriptors, both ends in this process: every one is served or closed, none hangs."""
    peers: list[socket.socket] = []
    with contextlib.suppress(OSError):
        while len(peers) < LIMIT:
            peer = socket.socket(socket.AF_UNIX)
            peers.append(peer)
            peer.connect(str(running.path))
    for peer in peers:
        peer.close()
    running.await_gauge("connections", 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
