"""Locked bytes a cached data key, and resident memory of a sidecar with nothing to do."""

from __future__ import annotations

import time

from benchmarks.loadgen import closed_loop
from benchmarks.processes import memory_kib
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage
from benchmarks.table import Row
from benchmarks.traffic import encrypting, require_clean

SMALL = 16_384
USERS = 4_000
AT_ONCE = 200
IDLE_SECONDS = 2.0


def measure(stage: Stage) -> list[Row]:
    users = stage.times(USERS)
    with Sidecar(cache={"keys": SMALL}) as sidecar:
        few = memory_kib(sidecar.pid, "VmLck")
    with Sidecar() as sidecar:
        time.sleep(stage.seconds(IDLE_SECONDS))
        resident = megabytes(memory_kib(sidecar.pid, "VmRSS"))
        first_use(sidecar, users)
        many = memory_kib(sidecar.pid, "VmLck")
        keys = sidecar.status()["keys"]
    each = (many - few) * 1024 / (keys["capacity"] - SMALL)
    return [
        Row(
            "locked memory a cached data key",
            "B",
            each,
            target="<= 128 B",
            met=each <= 128 and keys["cached"] >= users,
            note=f"VmLck, room for {keys['capacity']:,} less {SMALL:,}; {keys['cached']:,} cached",
        ),
        Row(
            "resident memory, idle",
            "MB",
            resident,
            target="<= 80 MB",
            met=resident <= 80,
            note="VmRSS, default configuration",
        ),
    ]


def first_use(sidecar: Sidecar, users: int) -> None:
    """Encrypt one field for each of so many users, so that each has a data key in the cache."""
    sidecar.create_keyring("users", partitioned=True)
    for first in range(0, users, AT_ONCE):
        scopes = [f"users/{number}" for number in range(first, min(first + AT_ONCE, users))]
        run = closed_loop(sidecar.path, encrypting(scopes, 1, 64), depth=len(scopes), rounds=1)
        require_clean(run, "first use")


def megabytes(kib: int) -> float:
    return kib * 1024 / 1e6
