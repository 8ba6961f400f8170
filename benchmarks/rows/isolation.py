"""Whether Python in the sidecar can delay the data plane: p99 while the control plane burns a core, over p99 idle.

The control plane is kept busy the honest way: a client of the admin socket asks for /v1/status without pause. Its share
of a core is read from /proc and shown. Requests leave on a fixed schedule, from the worker's own CPU when workers are
pinned, so that the load generator does not compete with what it wants to disturb.

A virtual machine stands still for a millisecond now and then, often enough to decide a p99. So rounds are short and
many, idle and busy ones alternate, and the median of the ratios within each pair counts: a standstill hits one round.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks.loadgen import Exchange, Run, open_loop
from benchmarks.processes import control_threads, cpu_seconds, placed_on, stop, worker_cpus
from benchmarks.sidecar import Sidecar
from benchmarks.stage import Stage, in_turns, median_ratio, microseconds
from benchmarks.table import Row
from benchmarks.traffic import encrypting, require_clean
from demo.sidecar import end_with_parent

RATE = 5_000
PAIRS = 10  # for each round that the other rows take
SECONDS = 0.25
SETTLE_SECONDS = 0.05
START_SECONDS = 1.0  # until the hammer has its connection
SIZE = 64
BUSY_CORES = 0.8  # less, because others wanted the core too, is no proof


@dataclass(frozen=True)
class Sample:
    """A run and the cores that the sidecar's Python threads used meanwhile."""

    run: Run
    cores: float


def measure(stage: Stage) -> list[Row]:
    with Sidecar(workers=1) as sidecar:
        sidecar.create_keyring("contacts")
        exchanges = encrypting(["contacts"], 1, SIZE)
        cpus = worker_cpus(sidecar.pid)
        with hammer(sidecar) as process, placed_on({cpus[0]} if cpus else os.sched_getaffinity(0)):
            samples = in_turns(
                stage.rounds * PAIRS,
                {
                    "idle": partial(sample, stage, sidecar, exchanges),
                    "burning": partial(burning, stage, sidecar, exchanges, process),
                },
            )
    return [row(samples["idle"], samples["burning"], bool(cpus))]


def sample(stage: Stage, sidecar: Sidecar, exchanges: list[Exchange]) -> Sample:
    tids = control_threads(sidecar.pid)
    before, began = cpu_seconds(sidecar.pid, tids), time.perf_counter()
    run = open_loop(sidecar.path, exchanges, rate=RATE, seconds=stage.seconds(SECONDS))
    used = cpu_seconds(sidecar.pid, tids) - before
    return Sample(require_clean(run, "open loop"), used / (time.perf_counter() - began))


def burning(stage: Stage, sidecar: Sidecar, exchanges: list[Exchange], hammer: subprocess.Popen[bytes]) -> Sample:
    hammer.send_signal(signal.SIGCONT)
    try:
        time.sleep(SETTLE_SECONDS)
        return sample(stage, sidecar, exchanges)
    finally:
        hammer.send_signal(signal.SIGSTOP)
        time.sleep(SETTLE_SECONDS)


@contextmanager
def hammer(sidecar: Sidecar) -> Iterator[subprocess.Popen[bytes]]:
    """A process, stopped, that asks the admin socket without pause; of lowest priority: the sidecar gets the core."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hammer", sidecar.admin_path],
        preexec_fn=partial(_background, os.sched_getaffinity(sidecar.pid)),
    )
    try:
        time.sleep(START_SECONDS)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        stop(process)


def _background(cpus: set[int]) -> None:
    end_with_parent()
    os.sched_setaffinity(0, cpus)
    os.nice(19)


def row(idle: list[Sample], burning: list[Sample], pinned: bool) -> Row:
    calm = microseconds([sample.run for sample in idle], 99)
    disturbed = microseconds([sample.run for sample in burning], 99)
    ratio = median_ratio(disturbed, calm)
    cores = median(sample.cores for sample in burning)
    asked = f"{RATE:,}/s open loop; Python used {cores:.0%} of a core (idle {median(s.cores for s in idle):.0%})"
    return Row(
        "p99 while the control plane is busy",
        "us",
        median(disturbed),
        median(calm),
        "the same, idle",
        ratio,
        "ratio <= 1.3",
        ratio <= 1.3 if cores >= BUSY_CORES else None,
        asked if pinned else f"{asked}; workers not pinned",
    )
