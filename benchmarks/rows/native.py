"""One worker beside the C limit server, both asked by the same native client with the same pipelining.

Server and client share one CPU. There a wake-up is cheapest, so the limit is at its best and whatever the product does
more weighs most; on two CPUs both mostly wait for the kernel and look alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from benchmarks.loadgen import Exchange, Run, closed_loop
from benchmarks.processes import placed_on, worker_cpus
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage, in_turns, median_ratio, microseconds, rates
from benchmarks.table import Row
from benchmarks.traffic import check_encrypted, decrypting, encrypting, limit_request, require_clean

KEYRING = "contacts"
SIZE = 64
DEEP = 128
DEEP_ROUNDS = 8_000
SINGLE_ROUNDS = 40_000


def measure(stage: Stage) -> list[Row]:
    with Sidecar(workers=1) as sidecar:
        sidecar.create_keyring(KEYRING)
        sidecar.create_keyring("users", partitioned=True)
        cpus = worker_cpus(sidecar.pid)
        cpu = cpus[0] if cpus else min(os.sched_getaffinity(0))
        if stage.limit is not None:
            stage.limit.move_to(cpu)
        with placed_on({cpu}):
            rows = pipelined(stage, sidecar) + one_at_a_time(stage, sidecar)
        elsewhere = os.sched_getaffinity(0) - {cpu}
        if elsewhere:
            with placed_on({min(elsewhere)}):
                rows += other_cpu(stage, sidecar)
        return rows


def asked(path: str, exchanges: Sequence[Exchange], depth: int, rounds: int, limit: bool = False) -> Run:
    run = closed_loop(path, exchanges, depth=depth, rounds=rounds, framing="limit" if limit else "keyside")
    return require_clean(run, f"depth {depth}")


def subjects(
    stage: Stage, sidecar: Sidecar, depth: int, rounds: int, **more: Sequence[Exchange]
) -> dict[str, Callable[[], Run]]:
    """The limit (when present), the product encrypting, and further exchanges by name."""
    found: dict[str, Callable[[], Run]] = {}
    if stage.limit is not None:
        found["limit"] = partial(asked, stage.limit.path, limit_request(SIZE), depth, rounds, limit=True)
    for name, exchanges in {"encrypt": encrypting([KEYRING], 1, SIZE), **more}.items():
        found[name] = partial(asked, sidecar.path, exchanges, depth, rounds)
    return found


def pipelined(stage: Stage, sidecar: Sidecar) -> list[Row]:
    users = [f"users/{number}" for number in range(DEEP)]
    runs = in_turns(
        stage.rounds,
        subjects(
            stage,
            sidecar,
            DEEP,
            stage.times(DEEP_ROUNDS),
            decrypt=decrypting(sidecar.path, [KEYRING], 1, SIZE),
            users=decrypting(sidecar.path, users, 1, SIZE),
        ),
    )
    checked = sum(check_encrypted(sidecar.path, [KEYRING], 1, SIZE, run) for run in runs["encrypt"])
    note = f"{checked} answers decrypted and compared"
    limit = rates(runs["limit"]) if "limit" in runs else None
    return [
        share(f"encrypt {SIZE} B, 1 connection, depth {DEEP}, 1 worker", rates(runs["encrypt"]), limit, 0.6, note),
        share(f"decrypt {SIZE} B, likewise", rates(runs["decrypt"]), limit, None, "each answer compared"),
        share(f"decrypt {SIZE} B, {DEEP} users' keys in turn", rates(runs["users"]), limit, None, "a key a request"),
    ]


def share(what: str, product: list[float], limit: list[float] | None, least: float | None, note: str) -> Row:
    ratio = median_ratio(product, limit) if limit else None
    return Row(
        what,
        "/s",
        median(product),
        median(limit) if limit else None,
        "C limit",
        ratio,
        f"ratio >= {least}, aim 0.9" if least else "",
        ratio >= least if ratio is not None and least else None,
        note,
    )


def one_at_a_time(stage: Stage, sidecar: Sidecar) -> list[Row]:
    runs = in_turns(stage.rounds, subjects(stage, sidecar, 1, stage.times(SINGLE_ROUNDS)))
    return [
        slower("one request at a time, p50", runs, 50, 1.25),
        slower("one request at a time, p99", runs, 99, 1.5),
    ]


def other_cpu(stage: Stage, sidecar: Sidecar) -> list[Row]:
    runs = in_turns(stage.rounds, subjects(stage, sidecar, 1, stage.times(SINGLE_ROUNDS // 4)))
    return [slower("the same, client on another CPU, p50", runs, 50, None)]


def slower(what: str, runs: dict[str, list[Run]], percent: float, most: float | None) -> Row:
    product = microseconds(runs["encrypt"], percent)
    limit = microseconds(runs["limit"], percent) if "limit" in runs else None
    ratio = median_ratio(product, limit) if limit else None
    return Row(
        what,
        "us",
        median(product),
        median(limit) if limit else None,
        "C limit",
        ratio,
        f"ratio <= {most}" if most else "",
        ratio <= most if ratio is not None and most else None,
    )
