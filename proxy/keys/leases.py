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
        block, at = self._last.get(scope, (0, 0.0))
        if self._clock() - at < QUICK_SECONDS:
            block *= 2
        return min(max(block, first), largest)

    def granted(self, scope: Scope, block: int) -> None:
        """Remember that a block was leased now."""
        self._last.pop(scope, None)
        self._last[scope] = block, self._clock()
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
