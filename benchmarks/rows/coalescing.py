"""How many calls of the provider a thousand requests cost that all need one key nobody has cached."""

from __future__ import annotations

from benchmarks.loadgen import Exchange, closed_loop
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage
from benchmarks.table import Row
from benchmarks.traffic import decrypting, encrypting, require_clean

REQUESTS = 1_000
SIZE = 64


def measure(stage: Stage) -> list[Row]:
    with Sidecar() as sidecar:
        for name in ("read", "written", "fresh"):
            sidecar.create_keyring(name)
        reading = decrypting(sidecar.path, ["read"], 1, SIZE)
        decrypting(sidecar.path, ["written"], 1, SIZE)
        sidecar.restart()
        return [
            row("decrypts at once, cold key: unwraps", *crowd(sidecar, reading, "unwraps")),
            row(
                "encrypts at once, cold key: unwraps",
                *crowd(sidecar, encrypting(["written"], 1, SIZE), "unwraps"),
            ),
            row(
                "encrypts at once, new keyring: wraps",
                *crowd(sidecar, encrypting(["fresh"], 1, SIZE), "wraps"),
            ),
        ]


def crowd(sidecar: Sidecar, exchanges: list[Exchange], counted: str) -> tuple[int, float]:
    """Calls of one kind that 1,000 connections with one request each cost, and the longest wait in milliseconds."""
    before = sidecar.status()["key_service"][counted]
    run = require_clean(closed_loop(sidecar.path, exchanges, connections=REQUESTS, rounds=1), "cold key")
    return sidecar.status()["key_service"][counted] - before, run.latency.largest / 1e6


def row(what: str, calls: int, slowest_ms: float) -> Row:
    return Row(
        f"{REQUESTS:,} {what}", "", calls, target="1", met=calls == 1, note=f"slowest answer {slowest_ms:.0f} ms"
    )
