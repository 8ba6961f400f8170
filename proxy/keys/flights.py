"""One miss, one piece of work: whoever asks for what is already under way waits for that."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Work under way, by name. Used from one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Flight] = {}
        self.joined = 0  # how often somebody found the work under way

    async def run(self, name: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, or wait for the one of that name. Its outcome, errors included, goes to all who wait.

        The first caller does it in its own task: a task for each piece of work would cost a tenth of a miss. Should
        that caller be cancelled, the next of those who wait does the work.
        """
        while (flight := self._under_way.get(name)) is not None:
            self.joined += 1
            await flight.end()
            if not flight.abandoned:
                if flight.error is not None:
                    raise flight.error
                result: T = flight.result
                return result
        flight = self._under_way[name] = _Flight(asyncio.current_task())
        try:
            flight.result = result = await work()
        except asyncio.CancelledError:
            flight.abandoned = True
            raise
        except BaseException as error:
            flight.error = error
            raise
        finally:
            del self._under_way[name]
            flight.land()
        return result

    def under_way(self, name: Hashable) -> bool:
        """Whether `run` would join a flight of that name."""
        return name in self._under_way

    async def close(self) -> None:
        """Cancel what is under way, and those who do it; wait for its end."""
        while tasks := {flight.task for flight in self._under_way.values() if flight.task is not None}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Flight:
    """Written by the task that does the work, read by those who wait for `end`."""

    __slots__ = ("_waiting", "abandoned", "error", "result", "task")

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self.task: Final = task
        self.result: Any = None
        self.error: BaseException | None = None
        self.abandoned = False
        self._waiting: list[asyncio.Future[None]] = []

    async def end(self) -> None:
        """Wait for it. Each has a future of its own, for cancelling a task cancels what it awaits."""
        landed = asyncio.get_running_loop().create_future()
        self._waiting.append(landed)
        await landed

    def land(self) -> None:
        for landed in self._waiting:
            if not landed.done():
                landed.set_result(None)
