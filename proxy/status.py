"""What the data plane did lately: readings of its counters, and rates and percentiles between two of them."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.frames import Op, Status

WINDOW_SECONDS: Final = 60.0
SAMPLE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Histogram:
    """Counts by bucket; `bounds[i]` is the upper end of bucket i in seconds, ascending."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)

    def since(self, earlier: "Histogram") -> "Histogram":
        return Histogram(self.bounds, tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True)))

    def percentile(self, share: float) -> float | None:
        """Upper end, in seconds, of the bucket where `share` (0 to 1) of all counts is reached; None without counts."""
        wanted, seen = self.total * share, 0
        if not self.total:
            return None
        for bound, count in zip(self.bounds, self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return self.bounds[-1]

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """How many counts lie at or below each of `bounds`, which must be bounds of this histogram."""
        reached = dict(zip(self.bounds, _running(self.counts), strict=True))
        return [reached[bound] for bound in bounds]


@dataclass(frozen=True)
class Reading:
    """The data plane's counters at one moment. Counters only grow; gauges are what is now."""

    at: float  # monotonic seconds
    requests: Mapping[Op, int]
    items: Mapping[Op, int]
    failed_requests: Mapping[Status, int]
    failed_items: Mapping[Status, int]
    latency: Histogram
    parked_latency: Histogram
    counters: Mapping[str, int]
    gauges: Mapping[str, int]


class Recent:
    """Readings of the last minute, so that a rate can be told without asking twice."""

    def __init__(self, first: Reading) -> None:
        self._readings = deque([first])

    def add(self, reading: Reading) -> None:
        self._readings.append(reading)
        while len(self._readings) > 1 and self._readings[1].at <= reading.at - WINDOW_SECONDS:
            self._readings.popleft()

    def window(self, now: Reading) -> dict[str, object]:
        """Rates a second and latency percentiles since the oldest reading kept."""
        then = self._readings[0]
        seconds = max(now.at - then.at, 1e-3)
        latency = now.latency.since(then.latency)
        waited = now.parked_latency.since(then.parked_latency)
        return {
            "seconds": round(seconds, 3),
            "operations": {
                op.name.lower(): {
                    "requests_per_second": round((now.requests[op] - then.requests[op]) / seconds, 3),
                    "items_per_second": round((now.items[op] - then.items[op]) / seconds, 3),
                }
                for op in now.requests
            },
            "latency_seconds": _percentiles(latency),
            "waited_latency_seconds": _percentiles(waited),
        }


def _percentiles(histogram: Histogram) -> dict[str, object]:
    return {
        "count": histogram.total,
        "p50": histogram.percentile(0.50),
        "p99": histogram.percentile(0.99),
    }


def _running(counts: Sequence[int]) -> list[int]:
    total, sums = 0, []
    for count in counts:
        total += count
        sums.append(total)
    return sums


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123  (a kernel file, read as a stream)
        for line in lines:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def monotonic() -> float:
    return time.monotonic()
