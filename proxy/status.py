"""Readings of the data plane's counters, and rates and percentiles between two of them."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

WINDOW_SECONDS: Final = 60.0
SAMPLE_SECONDS: Final = 5.0
_NANO: Final = 1e-9


@dataclass(frozen=True)
class Histogram:
    """Counts by the upper end of their bucket in nanoseconds; empty buckets may be left out."""

    counts: Mapping[int, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def since(self, earlier: "Histogram") -> "Histogram":
        return Histogram({bound: count - earlier.counts.get(bound, 0) for bound, count in self.counts.items()})

    def percentile(self, share: float) -> float | None:
        """Upper end, in seconds, of the bucket where `share` (0 to 1) of all counts is reached; None without counts."""
        total = self.total
        if not total:
            return None
        bounds = sorted(bound for bound, count in self.counts.items() if count)
        reached = zip(bounds, accumulate(self.counts[bound] for bound in bounds), strict=True)
        return next(bound for bound, seen in reached if seen >= total * share) * _NANO

    def at_most(self, bound: int) -> int:
        """How many counts lie in buckets that end at or below `bound` nanoseconds."""
        return sum(count for end, count in self.counts.items() if end <= bound)


@dataclass(frozen=True)
class Reading:
    """`DataPlane.stats()` at one moment; fastpath/stats.pyi says what the numbers mean."""

    at: float  # monotonic seconds
    numbers: Mapping[str, int]  # counters and gauges
    requests: Mapping[str, int]  # by operation
    items: Mapping[str, int]
    failed_requests: Mapping[int, int]  # by error code
    failed_items: Mapping[int, int]
    latency: Histogram
    waited: Histogram  # requests that had to wait for a data key

    @classmethod
    def of(cls, stats: Mapping[str, Any], at: float | None = None) -> "Reading":
        return cls(
            at=time.monotonic() if at is None else at,
            numbers={name: value for name, value in stats.items() if isinstance(value, int)},
            requests=stats["requests"],
            items=stats["items"],
            failed_requests=stats["failed_requests"],
            failed_items=stats["failed_items"],
            latency=Histogram(stats["latency_ns"]),
            waited=Histogram(stats["parked_latency_ns"]),
        )


class Recent:
    """Readings of the last minute, so that a rate can be told to whoever asks once."""

    def __init__(self, first: Reading) -> None:
        self._readings = deque([first])

    def add(self, reading: Reading) -> None:
        self._readings.append(reading)
        while len(self._readings) > 1 and self._readings[1].at <= reading.at - WINDOW_SECONDS:
            self._readings.popleft()

    def until(self, now: Reading) -> dict[str, object]:
        """Rates a second and latencies in seconds, since the oldest reading that is kept."""
        then = self._readings[0]
        seconds = max(now.at - then.at, 1e-3)
        return {
            "seconds": round(seconds, 3),
            "operations": {
                name: {
                    "requests_per_second": round((now.requests[name] - then.requests[name]) / seconds, 3),
                    "items_per_second": round((now.items[name] - then.items[name]) / seconds, 3),
                }
                for name in now.requests
            },
            "latency_seconds": _percentiles(now.latency.since(then.latency)),
            "waited_latency_seconds": _percentiles(now.waited.since(then.waited)),
        }


def _percentiles(histogram: Histogram) -> dict[str, object]:
    return {"count": histogram.total, "p50": histogram.percentile(0.50), "p99": histogram.percentile(0.99)}
