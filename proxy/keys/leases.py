"""How many messages to lease at a time: few for a quiet scope, as a restart forfeits them, many for a busy one."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from proxy.keyring import Scope

QUICK_SECONDS: Final = 10.0
"""A lease spent faster than this is followed by one twice as large."""

REMEMBERED: Final = 16_384
"""Scopes whose last lease is remembered; others begin again with the smallest."""


class LeaseSizes:
    """The next block of each scope."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: OrderedDict[Scope, tuple[int, float]] = OrderedDict()

    def next(self, scope: Scope, first: int, largest: int) -> int:
        """The block to ask for now, from `first` doubling up to `largest` while leases are spent quickly."""
        now = self._clock()
        block, at = self._last.pop(scope, (0, now))
        if block and now - at < QUICK_SECONDS:
            block *= 2
        block = min(max(block, first), largest)
        self._last[scope] = block, now
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return block
