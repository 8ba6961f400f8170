"""Log lines that an outage must not turn into a flood."""

import logging
import time
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 5.0


class Complaints:
    """The first line of a kind is logged at once, later ones every QUIET_SECONDS at most, with how many were not."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # when last logged, how many unlogged since

    def log(self, level: int, kind: str, message: str) -> None:
        """Log `message`, or count it. `kind` comes from a small set, such as the names of error classes."""
        last, unlogged = self._kinds.get(kind, (float("-inf"), 0))
        now = self._clock()
        if now - last < QUIET_SECONDS:
            self._kinds[kind] = last, unlogged + 1
            return
        self._kinds[kind] = now, 0
        self._logger.log(level, "%s%s", message, f" ({unlogged} more of this kind were not logged)" if unlogged else "")
