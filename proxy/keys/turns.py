"""Peers take turns: misses that wait for the key service are begun round robin over the uids that ask.

Without this, one peer that asks for ten thousand unknown keys would have everybody else wait behind them all. A miss
that several peers want stands in the line of each and is begun when the first of them has its turn.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar

from proxy.keys.flights import SingleFlight

Turn = asyncio.Future[None]

_leave: ContextVar[Callable[[], None]] = ContextVar("_leave", default=lambda: None)


def step_aside() -> None:
    """Let the next miss begin: the one at hand has passed what misses wait for, and goes on without a place."""
    _leave.get()()


class FairFlights:
    """Single flights, few at a time. Used from one event loop.

    How many wait is bounded by whoever asks: the data plane bounds its misses, and each peer's share of them.
    """

    def __init__(self, flights: SingleFlight, places: Callable[[], int]) -> None:
        self._flights = flights
        self._places = places
        self._taken = 0
        self._waiting: dict[Hashable, Turn] = {}
        self._lines: OrderedDict[int, deque[Turn]] = OrderedDict()  # by uid; whose turn is next comes first
        self.given_up = 0  # flights that got no turn within their patience

    async def run(self, name: Hashable, uid: int, patience: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` when it is the turn of `uid`, or wait for the flight of that name.

        After `patience` seconds without a turn nothing is done: whoever asked for it has been answered by then.
        """
        if name in self._waiting or not self._flights.under_way(name):
            self._line_up(name, uid)
        await self._flights.run(name, lambda: self._in_turn(name, uid, patience, work))

    @property
    def waiting(self) -> int:
        """Flights that have not begun."""
        return len(self._waiting)

    def _line_up(self, name: Hashable, uid: int) -> Turn:
        if (turn := self._waiting.get(name)) is None:
            turn = self._waiting[name] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(uid, deque()).append(turn)
        self._call()
        return turn

    async def _in_turn(self, name: Hashable, uid: int, patience: float, work: Callable[[], Awaitable[None]]) -> None:
        # there is none when whoever lined up first was cancelled
        turn = self._waiting.get(name) or self._line_up(name, uid)
        left = False

        def leave() -> None:
            nonlocal left
            # called, even if it gave up in the same instant
            if not left and turn.done() and not turn.cancelled():
                left = True
                self._taken -= 1
                self._call()

        inherited = _leave.set(leave)
        try:
            try:
                if not turn.done():  # a timer costs as much as the rest of this
                    async with asyncio.timeout(patience):
                        await turn
            except TimeoutError:
                self.given_up += 1
                return
            finally:
                del self._waiting[name]
            await work()
        finally:
            _leave.reset(inherited)
            leave()

    def _call(self) -> None:
        """Begin what there is place for: the first of each line, line after line."""
        while self._lines and self._taken < self._places():
            uid, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[uid] = line
            # it may have been called from another line, or given up
            if not turn.done():
                turn.set_result(None)
                self._taken += 1
