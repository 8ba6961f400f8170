"""What a Python application gets: batches beside in-process libraries, and single calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from keyside import Client

from benchmarks.loadgen import closed_loop
from benchmarks.processes import placed_on, worker_cpus
from benchmarks.rivals import Rival, installed, open_rival
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage, in_turns, median_ratio
from benchmarks.table import Row
from benchmarks.traffic import CONTEXT, WrongAnswerError, fields, limit_request, require_clean

KEYRING = "contacts"
BATCH = 1_000
SIZE = 64
BATCHES = 100
CALLS = 10_000
LIMIT_ROUNDS = 20_000

Seal = Callable[[Sequence[bytes]], list[Any]]
Open = Callable[[Sequence[Any]], list[Any]]


def measure(stage: Stage) -> list[Row]:
    with ExitStack() as stack:
        sidecar = stack.enter_context(Sidecar())
        sidecar.create_keyring(KEYRING)
        client = stack.enter_context(Client(sidecar.path))
        rivals = [open_rival(name) for name in installed()]
        for rival in rivals:
            stack.callback(rival.close)
        rows = batches(stage, client, rivals)
        for cpu, where in places(stage, sidecar):
            with placed_on({cpu}):
                rows.append(single_calls(stage, client, where))
        return rows


def places(stage: Stage, sidecar: Sidecar) -> list[tuple[int, str]]:
    """The worker's CPU and another one: what a round trip costs depends on it more than on anything else."""
    mine = os.sched_getaffinity(0)
    workers = worker_cpus(sidecar.pid) or [min(mine)]
    if stage.limit is not None:
        stage.limit.move_to(workers[0])
    others = mine - set(workers)
    return [(workers[0], "on the worker's CPU"), *([(min(others), "on another CPU")] if others else [])]


def batches(stage: Stage, client: Client, rivals: Sequence[Rival]) -> list[Row]:
    values = fields(BATCH, SIZE)
    sealers: dict[str, Seal] = {"Keyside": lambda items: client.encrypt_many(KEYRING, items, context=CONTEXT)}
    openers: dict[str, Open] = {"Keyside": lambda items: client.decrypt_many(KEYRING, items, context=CONTEXT)}
    for rival in rivals:
        sealers[rival.name] = partial(rival.encrypt_many, context=CONTEXT)
        openers[rival.name] = partial(rival.decrypt_many, context=CONTEXT)
    sealed = {name: seal(values) for name, seal in sealers.items()}
    for name, unseal in openers.items():
        if unseal(sealed[name]) != values:
            raise WrongAnswerError(f"{name} does not decrypt what it encrypted")
    times = stage.times(BATCHES)
    encrypted = in_turns(stage.rounds, {name: items_a_second(seal, values, times) for name, seal in sealers.items()})
    decrypted = in_turns(
        stage.rounds, {name: items_a_second(unseal, sealed[name], times) for name, unseal in openers.items()}
    )
    versions = {rival.name: rival.version for rival in rivals}
    return [
        *beside_rivals(f"encrypt_many, {BATCH:,} x {SIZE} B", encrypted, versions),
        *beside_rivals(f"decrypt_many, {BATCH:,} x {SIZE} B", decrypted, versions),
    ]


def items_a_second(work: Callable[[Any], Any], items: Sequence[Any], times: int) -> Callable[[], float]:
    def once() -> float:
        began = perf_counter()
        for _ in range(times):
            work(items)
        return times * len(items) / (perf_counter() - began)

    return once


def beside_rivals(what: str, measured: dict[str, list[float]], versions: dict[str, str]) -> list[Row]:
    """A row for each rival; the target is for asherah, the nearest to what Keyside does."""
    product = measured["Keyside"]
    rows = []
    for name in dict.fromkeys(["asherah", *versions]):
        rival = measured.get(name)
        ratio = median_ratio(product, rival) if rival else None
        aimed = name == "asherah"
        rows.append(
            Row(
                what,
                "/s",
                median(product),
                median(rival) if rival else None,
                f"{name} {versions.get(name, '')}".strip(),
                ratio,
                "ratio >= 2.0, aim 3" if aimed else "",
                ratio >= 2.0 if aimed and ratio is not None else None,
                "" if rival else "install it: pip install --group bench",
            )
        )
    return rows


def single_calls(stage: Stage, client: Client, where: str) -> Row:
    (value,) = fields(1, SIZE)
    if client.decrypt(KEYRING, client.encrypt(KEYRING, value, CONTEXT), CONTEXT) != value:
        raise WrongAnswerError("a single field does not decrypt to what it was")
    times = stage.times(CALLS)

    def calls() -> float:
        encrypt = client.encrypt
        began = perf_counter()
        for _ in range(times):
            encrypt(KEYRING, value, CONTEXT)
        return times / (perf_counter() - began)

    subjects: dict[str, Callable[[], float]] = {"Keyside": calls}
    if (limit := stage.limit) is not None:
        rounds = stage.times(LIMIT_ROUNDS)
        subjects["limit"] = lambda: (
            require_clean(closed_loop(limit.path, limit_request(SIZE), framing="limit", rounds=rounds), "limit").rate
        )
    measured = in_turns(stage.rounds, subjects)
    product = median(measured["Keyside"])
    ratio = median_ratio(measured["Keyside"], measured["limit"]) if "limit" in measured else None
    reached: bool | None = product >= 35_000
    if not reached:
        reached = ratio >= 0.5 if ratio is not None else None
    return Row(
        f"Client.encrypt, {SIZE} B, {where}",
        "/s",
        product,
        median(measured["limit"]) if "limit" in measured else None,
        "C limit",
        ratio,
        ">= 35 k/s or ratio >= 0.5",
        reached,
    )
