"""What HTTP peers share, and how much of it each may hold: the rule of fastpath/shares.pxd, for the control plane."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from proxy.frames import Status
from proxy.http_json import Refused

SHARE: Final = 7
"""A peer (a uid) may hold at most so many times what is left; one that holds nothing, all that is left."""


class Pool:
    """An amount shared by all uids. Used from one event loop."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._held: Counter[int] = Counter()

    def take(self, uid: int, count: int) -> bool:
        """Take `count` for `uid`; False, and nothing taken, when that is more than its share."""
        left, held = self._left - count, self._held[uid]
        if left < 0 or (held and held + count > SHARE * left):
            return False
        self._left = left
        self._held[uid] = held + count
        return True

    def give(self, uid: int, count: int) -> None:
        """Give back what was taken."""
        self._left += count
        self._held[uid] -= count
        if not self._held[uid]:
            del self._held[uid]


class Room:
    """Memory for bodies and answers, shared by all connections: workers bound theirs, and see nothing of these."""

    def __init__(self, size: int) -> None:
        self._pool = Pool(size)

    @contextmanager
    def share(self, uid: int) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes for `uid`, given back when the block ends. It raises Refused past the share."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if not self._pool.take(uid, count):
                raise Refused(
                    Status.OVERLOADED, "too much is being received and answered over HTTP; try again after a pause"
                )
            taken += count

        try:
            yield take
        finally:
            self._pool.give(uid, taken)
