"""Two thousand connections of which two hundred are busy: is anyone refused, is anyone starved."""

from __future__ import annotations

import resource
import socket
import struct
from contextlib import ExitStack
from statistics import median

import msgpack

from benchmarks.loadgen import closed_loop
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage
from benchmarks.table import Row
from benchmarks.traffic import encrypting, frame

OPEN, BUSY = 2_000, 200
DEPTH = 4
ROUNDS = 500
SIZE = 64
HELLO = frame(0, "", [], b"")


def measure(stage: Stage) -> list[Row]:
    raise_descriptor_limit(OPEN + 200)
    with Sidecar() as sidecar, ExitStack() as stack:
        sidecar.create_keyring("contacts")
        idle = [stack.enter_context(connected(sidecar.path)) for _ in range(OPEN - BUSY)]
        run = closed_loop(
            sidecar.path,
            encrypting(["contacts"], 1, SIZE),
            connections=BUSY,
            depth=DEPTH,
            rounds=stage.times(ROUNDS),
        )
        silent = sum(not answers(link) for link in idle)
    refused = run.errors.get("refused", 0) + silent
    middle, slowest = median(run.finished), max(run.finished)
    return [
        Row(
            f"{OPEN:,} connections, {BUSY} busy: refused or broken",
            "",
            refused + run.failed,
            target="0",
            met=refused + run.failed == 0,
            note=f"{len(idle):,} idle ones asked afterwards, {len(idle) - silent:,} answered",
        ),
        Row(
            f"{BUSY} busy connections, {run.good // BUSY:,} requests each: slowest",
            "s",
            slowest,
            middle,
            "median connection",
            slowest / middle,
            "ratio <= 3",
            slowest <= 3 * middle,
            f"{run.rate / 1e3:,.0f} k/s together, p99 {run.latency.percentile(99) / 1e6:.2f} ms",
        ),
    ]


def raise_descriptor_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"this needs {needed} descriptors and the hard limit is {hard}: raise it with ulimit -Hn")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def connected(path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(10)
    link.connect(path)
    return link


def answers(link: socket.socket) -> bool:
    """Whether a connection that was silent so far is served."""
    try:
        link.sendall(HELLO)
        with link.makefile("rb") as stream:
            (length,) = struct.unpack(">I", stream.read(4))
            return bool(msgpack.unpackb(stream.read(length))[1] == 0)
    except (OSError, struct.error):
        return False
