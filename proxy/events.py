"""Events of the data plane, each to whoever answers it, in a task of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from proxy import log

if TYPE_CHECKING:
    from fastpath.dataplane import Event, KeyMiss, LowBudget, ScopeMiss

EVENTS_AT_ONCE: Final = 256


class EventSource(Protocol):
    """What this module asks of the data plane (fastpath/dataplane.pyi)."""

    @property
    def event_fd(self) -> int: ...

    def events(self, limit: int = 256) -> "list[Event]": ...

    def complete(self, token: int) -> None: ...


class EventPump:
    """Takes the data plane's events and runs one task for each; the loop never waits for any of them."""

    def __init__(
        self,
        plane: EventSource,
        keys: "Callable[[KeyMiss | ScopeMiss | LowBudget], Awaitable[None]]",
        http: Callable[[int], Awaitable[None]],
    ) -> None:
        self._plane = plane
        self._keys = keys
        self._http = http
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._plane.event_fd, self._take)

    async def stop(self) -> None:
        """Take no more, and end what is under way."""
        asyncio.get_running_loop().remove_reader(self._plane.event_fd)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def _take(self) -> None:
        while True:
            events = self._plane.events(EVENTS_AT_ONCE)
            for event in events:
                task = asyncio.get_running_loop().create_task(self._answer(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if len(events) < EVENTS_AT_ONCE:
                return

    async def _answer(self, event: "Event") -> None:
        try:
            if event.kind == "http":
                await self._http(event.fd)
            else:
                await self._keys(event)
        except Exception as error:  # a defect in answering one event must not cost the others
            self.failures += 1
            log.defect(f"answering a {event.kind} event failed", error)
            # requests that wait for it must not wait for ever: they run again, and time out or ask again
            self._plane.complete(event.token)


async def every(seconds: float, what: str, work: Callable[[], Awaitable[None] | None]) -> None:
    """Do `work` again and again until cancelled; a failure is logged and does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            done = work()
            if done is not None:
                await done
        except Exception as error:  # whatever it is, the next round may be better
            log.defect(f"{what} failed", error)
