"""Back ends, each on its test server: what we add to the SDK's call, misses at once, a server that hangs.

The servers are real where there are real ones (OpenBao), and fakes that are quick enough otherwise; all run on this
machine, beside sidecar and load generator. A frozen server is one whose process is stopped: the kernel goes on taking
its connections and bytes, and nobody answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.bare import BARE, Call
from benchmarks.callers import CONTEXT, opened
from benchmarks.loadgen import Exchange, Run, closed_loop, open_loop
from benchmarks.processes import placed_on, worker_cpus
from benchmarks.services import STARTING, Service, service
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage, median_ratio, microseconds
from benchmarks.table import Row, failed
from benchmarks.traffic import decrypting, encrypting, require_clean
from providers import create
from providers.wiping import wipe
from tests.servers import launch

TOKEN = "LUNA_HSM"
POOL = 20
SIZE = 64

CALLS = 150  # of each side in a round

CROWD = 200
CROWDS = 5

COLD_KEYS = 10_000
LATENCY = 0.02
PATIENCE = 120.0

HANG_SECONDS = 60.0
HANGS = 12
SAMPLES = 4
SAMPLE_SECONDS = 0.25
SETTLE_SECONDS = 0.3
RATE = 5_000
TIMEOUT = 1.0
ALLOWANCE_MS = 100
UNLUCKY = 500  # keys that are asked for while the server hangs


def measure(stage: Stage) -> list[Row]:
    """Every back end that has a test server. One that cannot be measured is a row that says so; the others go on."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # or it comments on each process that is started
    rows: list[Row] = []
    for provider in (*STARTING, TOKEN):
        try:
            rows += over_network(stage, provider) if provider in STARTING else beside_us(stage, provider)
        except Exception as error:
            rows.append(failed(provider, error))
    return rows


def over_network(stage: Stage, provider: str) -> list[Row]:
    crowds, cold_keys = stage.times(CROWDS), max(POOL, stage.times(COLD_KEYS) // CROWD * CROWD)
    crowded = crowd_size(stage) * (crowds + 1)
    unlucky = max(POOL, min(UNLUCKY, stage.times(10 * UNLUCKY)))
    with tempfile.TemporaryDirectory(prefix="keyside-service-") as folder, service(provider, Path(folder)) as running:
        rows = [overhead(stage, running)]
        hsm = section(running.slowed_hsm)
        with with_cold_keys(hsm, running.served.environment, crowded + cold_keys + unlucky) as (sidecar, exchanges):
            rows += crowd(stage, provider, sidecar, exchanges[:crowded])
            rows.append(cold(running, sidecar, exchanges[crowded : crowded + cold_keys]))
            return rows + hang(stage, running, hsm, sidecar, exchanges[crowded + cold_keys :])


def beside_us(stage: Stage, provider: str) -> list[Row]:
    """A token in the sidecar's own process: there is no server to freeze, and `pkcs11` has the comparison."""
    keys = crowd_size(stage) * (stage.times(CROWDS) + 1)
    with (
        tempfile.TemporaryDirectory(prefix="keyside-service-") as folder,
        launch(provider, Path(folder)) as served,
        with_cold_keys(section(served.hsm), served.environment, keys) as (sidecar, exchanges),
    ):
        return crowd(stage, provider, sidecar, exchanges)


def section(hsm: Mapping[str, Any]) -> dict[str, Any]:
    return {**hsm, "performance": {"connectionPoolSize": POOL, "requestTimeout": round(TIMEOUT * 1000)}}


# the provider beside the SDK


def overhead(stage: Stage, running: Service) -> Row:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours, bare = runner.run(beside_bare_calls(stage, running))
    ratio = median_ratio(ours, bare)
    return Row(
        f"{running.provider}: unwrap, p50",
        "us",
        median(ours),
        median(bare),
        "the SDK's bare call",
        ratio,
        "ratio <= 1.1",
        ratio <= 1.1,
    )


async def beside_bare_calls(stage: Stage, running: Service) -> tuple[list[float], list[float]]:
    """The p50 of each round in microseconds: ours, and bare. Calls alternate, so that both meet the same machine."""
    provider = create(section(running.served.hsm), Path("/"))
    ours: list[float] = []
    theirs: list[float] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(provider.close)
        await opened(provider)
        wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
        bare = await stack.enter_async_context(BARE[running.provider](running.served, wrapped, CONTEXT))

        async def unwrap() -> None:
            wipe(await provider.unwrap_key(wrapped, CONTEXT))

        for _ in range(10):
            await unwrap()
            await bare()
        for _ in range(stage.rounds):
            pairs = [(await timed(unwrap), await timed(bare)) for _ in range(stage.times(CALLS))]
            ours.append(median(pair[0] for pair in pairs))
            theirs.append(median(pair[1] for pair in pairs))
    return ours, theirs


async def timed(call: Call) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e6


# keys that nobody has cached


@contextmanager
def with_cold_keys(
    hsm: dict[str, Any], environment: Mapping[str, str], keys: int
) -> Iterator[tuple[Sidecar, list[Exchange]]]:
    """A sidecar with `keys` users of whom it has no key in memory, and a request of each."""
    scopes = [f"users/{number}" for number in range(keys)]
    limits = {"park_timeout": f"{PATIENCE:.0f}s"}
    with Sidecar(workers=1, hsm=hsm, environment=environment, limits=limits) as sidecar:
        sidecar.create_keyring("users", partitioned=True)
        sidecar.create_keyring("contacts")
        for at in range(0, keys, CROWD):  # as many at once as the service makes in time
            some = encrypting(scopes[at : at + CROWD], 1, SIZE)
            require_clean(closed_loop(sidecar.path, some, connections=len(some), rounds=1), "first uses")
        exchanges = decrypting(sidecar.path, scopes, 1, SIZE)
        sidecar.restart()
        yield sidecar, exchanges


def crowd_size(stage: Stage) -> int:
    return min(CROWD, stage.times(10 * CROWD))


def crowd(stage: Stage, provider: str, sidecar: Sidecar, exchanges: list[Exchange]) -> list[Row]:
    """A crowd of requests at once, each for a key of its own, several times."""
    size = crowd_size(stage)
    first, *others = [exchanges[at : at + size] for at in range(0, len(exchanges), size)]
    asked_by(sidecar, first)  # finds a pool without connections
    before = durations(sidecar)
    runs = [asked_by(sidecar, some) for some in others]
    after = durations(sidecar)
    counts = {bound: count - before[bound] for bound, count in after.items()}
    p95 = min(bound for bound, count in counts.items() if count >= 0.95 * max(counts.values())) * 1000
    answer = median(microseconds(runs, 95)) / 1000
    what = f"{provider}: {size} misses at once, pool {POOL}"
    note = f"{len(runs)} crowds, slowest answer {max(run.latency.largest for run in runs) / 1e6:.0f} ms"
    return [
        Row(f"{what}: operation, p95 at most", "ms", p95, target="<= 100 ms", met=p95 <= 100),
        Row(f"{what}: answer to the last in line, p95", "ms", answer, note=note),
    ]


def asked_by(sidecar: Sidecar, some: list[Exchange]) -> Run:
    return require_clean(closed_loop(sidecar.path, some, connections=len(some), rounds=1), "cold keys")


def durations(sidecar: Sidecar) -> dict[float, int]:
    """Calls of the provider that took at most so many seconds each, as the sidecar counts them."""
    found = re.findall(r'^keyside_provider_call_duration_seconds_bucket{le="(.+)"} (\d+)', metrics(sidecar), re.M)
    return {float(bound): int(count) for bound, count in found}


def metrics(sidecar: Sidecar) -> str:
    return sidecar.admin("/metrics").decode()


def cold(running: Service, sidecar: Sidecar, exchanges: list[Exchange]) -> Row:
    """A service that takes its time, and many keys at once."""
    keys = len(exchanges)
    links = min(CROWD, keys)
    running.slow(LATENCY)
    try:
        run = closed_loop(sidecar.path, exchanges, connections=links, depth=keys // links, rounds=1, patience=PATIENCE)
    finally:
        running.slow(0.0)
    require_clean(run, "cold keys")
    ideal = keys * LATENCY / POOL
    ratio = run.seconds / ideal
    return Row(
        f"{running.provider}: {keys:,} cold keys at {LATENCY * 1000:.0f} ms, pool {POOL}",
        "s",
        run.seconds,
        ideal,
        "ideal",
        ratio,
        "ratio <= 1.2",
        ratio <= 1.2,
    )


# a server that hangs


def hang(stage: Stage, running: Service, hsm: dict[str, Any], sidecar: Sidecar, exchanges: list[Exchange]) -> list[Row]:
    return [
        longest_call(stage, running, hsm),
        cached_meanwhile(stage, running, sidecar, exchanges),
    ]


def longest_call(stage: Stage, running: Service, hsm: dict[str, Any]) -> Row:
    seconds = stage.seconds(HANG_SECONDS)
    with Calls(hsm) as calls, running.frozen():
        calls.begin()
        time.sleep(seconds)
        calls.end()
    over = calls.over * 1000
    return Row(
        f"{running.provider}: hung {seconds:.3g} s: longest call, over requestTimeout",
        "ms",
        over,
        target=f"<= {ALLOWANCE_MS} ms",
        met=over <= ALLOWANCE_MS if calls.failed else None,
        note=f"{calls.failed:,} calls failed",
    )


def cached_meanwhile(stage: Stage, running: Service, sidecar: Sidecar, exchanges: list[Exchange]) -> Row:
    """A p99 on a virtual machine takes short rounds and many, in turns; `isolation` says why.

    A round begins when the first of the calls have run into their time, so that all of what a hang brings goes on.
    """
    cached = encrypting(["contacts"], 1, SIZE)
    require_clean(closed_loop(sidecar.path, cached, rounds=1), "first use")
    calm: list[Run] = []
    hung: list[Run] = []
    refused: list[int] = []
    for _ in range(stage.times(HANGS)):
        time.sleep(stage.seconds(SETTLE_SECONDS))
        calm += samples(stage, sidecar, cached)
        with running.frozen(), missing(sidecar, exchanges, refused):
            time.sleep(TIMEOUT + stage.seconds(SETTLE_SECONDS))
            hung += samples(stage, sidecar, cached)
    before, during = microseconds(calm, 99), microseconds(hung, 99)
    ratio = median_ratio(during, before)
    return Row(
        f"{running.provider}: hung: cached key, p99",
        "us",
        median(during),
        median(before),
        "the same, calm",
        ratio,
        "ratio <= 1.3",
        ratio <= 1.3 if sum(refused) else None,
        note=f"{RATE:,}/s open loop; {sum(refused)} requests of other keys were refused meanwhile",
    )


def samples(stage: Stage, sidecar: Sidecar, cached: list[Exchange]) -> list[Run]:
    """Cached fields on schedule, from the CPU of the worker."""
    cpus = worker_cpus(sidecar.pid)
    with placed_on({cpus[0]} if cpus else os.sched_getaffinity(0)):
        runs = [
            open_loop(sidecar.path, cached, rate=RATE, seconds=stage.seconds(SAMPLE_SECONDS)) for _ in range(SAMPLES)
        ]
    return [require_clean(run, "cached key") for run in runs]


@contextmanager
def missing(sidecar: Sidecar, cold: list[Exchange], refused: list[int]) -> Iterator[None]:
    """All the time some requests for keys that nobody has cached; `refused` gets how many failed, crowd by crowd."""
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            some = cold[POOL * len(refused) % len(cold) :][:POOL]
            refused.append(closed_loop(sidecar.path, some, connections=len(some), rounds=1, patience=PATIENCE).failed)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


class Calls:
    """A provider in a process of its own, called by twice as many callers as it has connections."""

    def __init__(self, hsm: dict[str, Any]) -> None:
        self._hsm = hsm
        self.failed = 0
        self.over = 0.0  # seconds by which the longest of those outlasted its time

    def __enter__(self) -> Calls:
        command = [sys.executable, "-m", "benchmarks.callers", str(TIMEOUT), str(2 * POOL)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(self._hsm))
        self._heard()
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self) -> None:
        self._say("begin")

    def end(self) -> None:
        self._say("end")
        self.failed, self.over = json.loads(self._heard())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _heard(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the process that calls the provider ended")
        return line
