"""How long the provider takes to answer, as a histogram with fixed buckets."""

from bisect import bisect_left
from typing import Final

BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds in seconds; one more bucket takes what is slower."""


class Latency:
    """Calls to the provider, by duration."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0  # of all calls together
        self.count = 0

    def observe(self, seconds: float) -> None:
        """Count one call."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.count += 1

    def buckets(self) -> list[tuple[float, int]]:
        """(upper bound in seconds, calls that took at most so long), sorted; the last bound is infinity."""
        cumulated, total = [], 0
        for bound, count in zip((*BOUNDS, float("inf")), self._counts, strict=True):
            total += count
            cumulated.append((bound, total))
        return cumulated
