"""Threads that call the token, each with a session of its own, so that no call ever waits on the event loop.

A token that hangs holds its callers for their time and their threads for as long as it hangs: the threads are daemons,
at most `size`, and everybody else's work goes on in the others.

Threads are woken as the token needs them. One that answers in microseconds is served best by one thread that stays
awake; one that takes milliseconds gets a thread for each call. A watchdog wakes another thread when calls wait although
the token was thought to be quick.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

from providers.errors import Closed
from providers.pool import PoolUsage

QUICK_SECONDS: Final = 0.0005  # calls shorter than this are left to one thread
WATCH_SECONDS: Final = 0.002  # how long a call waits at most for a thread because others are expected to be quick
BATCH_SECONDS: Final = 0.0002  # how long a thread may keep a result back while it has more to do

S = TypeVar("S")
T = TypeVar("T")


class Seat(Generic[S]):
    """What one thread keeps from call to call."""

    def __init__(self) -> None:
        self.holding: S | None = None


class _Job(Generic[S]):
    __slots__ = ("call", "error", "future", "result")

    def __init__(self, call: Callable[[Seat[S]], Any], future: asyncio.Future[Any]) -> None:
        self.call = call
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Workers(Generic[S]):
    """At most `size` threads. Used from one event loop; `discard` gets results that nobody waits for any more."""

    def __init__(self, name: str, size: int, discard: Callable[[Any], None], retire: Callable[[Seat[S]], None]) -> None:
        self._name = name
        self._size = size
        self._discard = discard
        self._retire = retire
        self._permits = asyncio.Semaphore(size)
        self._waiting = 0
        self._active = 0
        self._jobs: deque[_Job[S]] = deque()
        self._done: deque[_Job[S]] = deque()
        self._lock = threading.Lock()  # guards the next three
        self._gone = threading.Condition(self._lock)
        self._sleeping: list[threading.Semaphore] = []
        self._awake = 0
        self._threads = 0
        self._seconds = 0.0  # what a call took lately
        self._taken = 0
        self._signalled = False
        self._watching = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, call: Callable[[Seat[S]], T]) -> T:
        """Call it in a thread and await what it returns. A caller that goes away leaves the call to its thread."""
        self._waiting += 1
        try:
            await self._permits.acquire()
        finally:
            self._waiting -= 1
        if self._closed:
            self._permits.release()
            raise Closed(f"{self._name} was closed: make a new provider")
        self._loop = loop = asyncio.get_running_loop()
        job: _Job[S] = _Job(call, loop.create_future())
        self._active += 1
        self._jobs.append(job)
        self._wake(loop)
        return cast("T", await job.future)

    @property
    def usage(self) -> PoolUsage:
        """The counts, now: threads that hang are active."""
        return PoolUsage(self._size, self._active, self._threads - min(self._active, self._threads), self._waiting)

    def close(self) -> None:
        """Let every thread give up its session and end, once it is through with what it does."""
        with self._lock:
            self._closed = True
            sleeping, self._sleeping = self._sleeping, []
            self._awake += len(sleeping)
        for bell in sleeping:
            bell.release()

    def join(self, seconds: float) -> None:
        """Wait in another thread for the end of all threads, at most so long: one may hang."""
        with self._lock:
            self._gone.wait_for(lambda: not self._threads, seconds)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._awake and self._seconds < QUICK_SECONDS:
            if not self._watching:
                self._watching = True
                loop.call_later(WATCH_SECONDS, self._watch, loop, self._taken)
            return
        self._one_more()

    def _watch(self, loop: asyncio.AbstractEventLoop, taken: int) -> None:
        self._watching = False
        if not self._jobs:
            return
        if self._taken == taken:  # nobody took a job for so long: the token is not as quick as it was
            for _ in range(len(self._jobs)):
                self._one_more()
        self._watching = True
        loop.call_later(WATCH_SECONDS, self._watch, loop, self._taken)

    def _one_more(self) -> None:
        with self._lock:
            if self._sleeping:
                self._awake += 1
                self._sleeping.pop().release()
            elif self._threads < self._size:
                self._awake += 1
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name} {self._threads}", daemon=True).start()

    def _work(self) -> None:
        seat: Seat[S] = Seat()
        bell = threading.Semaphore(0)
        try:
            while self._next_jobs(bell):
                self._do_all(seat)
        finally:
            self._retire(seat)
            with self._lock:
                self._threads -= 1
                self._awake -= 1
                self._gone.notify_all()

    def _next_jobs(self, bell: threading.Semaphore) -> bool:
        """Sleep until there may be a job; False: it is over."""
        with self._lock:
            if self._closed and not self._jobs:
                return False
            if self._jobs:
                return True
            self._awake -= 1
            self._sleeping.append(bell)
            if self._jobs:  # came in between, from somebody who saw this thread awake
                self._sleeping.remove(bell)
                self._awake += 1
                return True
        bell.acquire()
        return True

    def _do_all(self, seat: Seat[S]) -> None:
        began = time.monotonic()
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if self._done:  # kept back for a job that another thread has taken
                    self._signal()
                return
            self._taken += 1
            started = time.monotonic()
            self._do(job, seat)
            ended = time.monotonic()
            self._seconds += (ended - started - self._seconds) / 8
            self._done.append(job)
            if not self._jobs or ended - began >= BATCH_SECONDS:
                began = ended
                self._signal()

    def _do(self, job: _Job[S], seat: Seat[S]) -> None:
        if job.future.cancelled():
            return
        try:
            job.result = job.call(seat)
        except BaseException as error:
            job.error = error  # raised where the call is awaited

    def _signal(self) -> None:
        if self._signalled:
            return
        self._signalled = True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop ended while the token hung: nobody waits for anything any more
            self._deliver_to_nobody()

    def _deliver(self) -> None:
        self._signalled = False
        while self._done:
            job = self._done.popleft()
            self._active -= 1
            self._permits.release()
            if job.future.done():
                self._discard(job.result)
            elif job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
            job.error = None

    def _deliver_to_nobody(self) -> None:
        while self._done:
            self._discard(self._done.popleft().result)
