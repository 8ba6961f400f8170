"""What every measurement is given, and how several subjects are measured fairly on a machine that is never quiet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from benchmarks.limit import Limit
from benchmarks.loadgen import Run

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """`rounds`: how often each subject is measured, in turns; `scale` shortens (below 1) or lengthens every round."""

    limit: Limit | None
    rounds: int = 7
    scale: float = 1.0

    def times(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def seconds(self, seconds: float) -> float:
        return max(0.05, seconds * self.scale)


def in_turns(rounds: int, subjects: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure every subject once a round, the other way round every second time.

    A disturbance that lasts longer than a round hits all of them, so ratios within a round hold where rates do not.
    """
    measured: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(rounds):
        names = list(subjects)
        for name in names if number % 2 == 0 else reversed(names):
            measured[name].append(subjects[name]())
    return measured


def median_ratio(of: Sequence[float], over: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median(a / b for a, b in zip(of, over, strict=True))


def rates(runs: Sequence[Run]) -> list[float]:
    return [run.rate for run in runs]


def microseconds(runs: Sequence[Run], percent: float) -> list[float]:
    return [run.latency.percentile(percent) / 1000 for run in runs]
