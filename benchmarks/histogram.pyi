class Histogram:
    """Durations in nanoseconds in log-linear slots (as in HdrHistogram): percentiles are at most 1/128 too high."""

    def __len__(self) -> int:
        """How many durations were recorded."""
    def record(self, nanoseconds: int) -> None: ...
    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts to this one."""
    @property
    def largest(self) -> int:
        """The longest duration, exact, in nanoseconds; 0 when nothing was recorded."""
    def percentile(self, percent: float) -> int:
        """The duration, in nanoseconds, that `percent` of all are not longer than (nearest rank).

        Raises ValueError when nothing was recorded or `percent` is not in (0, 100].
        """
