"""One miss, one piece of work: whoever asks for what is already under way waits for that."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Work under way, by name. Used from one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}
        self.joined = 0  # how often somebody found the work under way

    async def run(self, name: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, or wait for the one of that name. Its outcome, errors included, goes to all who wait.

        The work goes on when somebody who waits is cancelled: others may wait for it too.
        """
        task: asyncio.Task[T] | None = self._under_way.get(name)
        if task is None:
            task = asyncio.ensure_future(_awaited(work))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        else:
            self.joined += 1
        return await asyncio.shield(task)

    def under_way(self, name: Hashable) -> bool:
        """Whether `run` would join a flight of that name."""
        return name in self._under_way

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
