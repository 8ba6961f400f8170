"""A bounded set of connections to a back end, each lent to one call at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from providers.errors import Closed, ProviderError, Timeout, Unavailable

PARTING_SECONDS: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """How busy a pool is, at one moment."""

    size: int  # the most connections that it opens
    active: int  # lent out
    idle: int  # open and free
    waiting: int  # calls that wait for one


@dataclass(slots=True)
class _Member(Generic[T]):
    connection: T
    made_at: float


class Pool(Generic[T]):
    """At most `size` connections, made when they are needed. Used from one event loop.

    A connection goes back after its call unless that call found the back end unavailable, ran out of time or was
    cancelled; it is replaced once it is older than `max_age` seconds or `usable` (cheap, no call) says no. The one
    that was used last is lent first, so that a quiet pool shrinks by age.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        dispose: Callable[[T], Awaitable[None]],
        *,
        size: int,
        max_age: float,
        usable: Callable[[T], bool] | None = None,
    ) -> None:
        self._make = make
        self._dispose = dispose
        self._usable = usable
        self._size = size
        self._max_age = max_age
        self._turns = asyncio.Semaphore(size)
        self._idle: deque[_Member[T]] = deque()
        self._active = 0
        self._waiting = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def lease(self, patience: float | None = None) -> AsyncIterator[T]:
        """Lend a connection. Raises Timeout after `patience` seconds without a free one, or what making one raises."""
        await self._turn(patience)
        try:
            member = await self._member()
            self._active += 1
            try:
                yield member.connection
            except BaseException as error:
                if _condemns(error):
                    self._discard(member)
                else:
                    self._give_back(member)
                raise
            else:
                self._give_back(member)
            finally:
                self._active -= 1
        finally:
            self._turns.release()

    @property
    def usage(self) -> PoolUsage:
        """The counts, now."""
        return PoolUsage(self._size, self._active, len(self._idle), self._waiting)

    def drop_idle(self) -> None:
        """Replace what is open: after credentials changed, or the back end came back."""
        while self._idle:
            self._discard(self._idle.pop())

    async def close(self) -> None:
        """Dispose of free connections now and of lent ones when they come back; later leases raise Closed.

        Waits PARTING_SECONDS at most for connections that do not go.
        """
        self._closed = True
        self.drop_idle()
        if self._leaving:
            _, stuck = await asyncio.wait(self._leaving, timeout=PARTING_SECONDS)
            for task in stuck:
                task.cancel()

    async def _turn(self, patience: float | None) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once, so without a timer
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Timeout(
                f"no connection became free within {patience:g} s: raise hsm.performance.connectionPoolSize"
            ) from error
        finally:
            self._waiting -= 1

    async def _member(self) -> _Member[T]:
        while True:
            if self._closed:
                raise Closed("the connections were closed: make a new provider")
            if not self._idle:
                return _Member(await self._make(), time.monotonic())
            member = self._idle.pop()
            if self._fresh(member):
                return member
            self._discard(member)

    def _fresh(self, member: _Member[T]) -> bool:
        if time.monotonic() - member.made_at >= self._max_age:
            return False
        return self._usable is None or self._usable(member.connection)

    def _give_back(self, member: _Member[T]) -> None:
        if self._closed or not self._fresh(member):
            self._discard(member)
        else:
            self._idle.append(member)

    def _discard(self, member: _Member[T]) -> None:
        # nobody waits for it: saying goodbye to a back end that hangs takes as long as it hangs
        task = asyncio.get_running_loop().create_task(self._part_with(member.connection))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _part_with(self, connection: T) -> None:
        try:
            await self._dispose(connection)
        except (ProviderError, OSError):
            return  # it was of no use already


def _condemns(error: BaseException) -> bool:
    return not isinstance(error, ProviderError) or isinstance(error, (Unavailable, Timeout))
