"""Threads that call the token, each with a session of its own, so that no call ever waits on the event loop.

A token that hangs holds its callers for their time and their threads for as long as it hangs: the threads are daemons,
at most `size`, and everybody else's work goes on in the others.

Threads are woken as the token needs them. One that computes in this process is served best by one thread that stays
awake and hands its results over in batches, for several would only take the interpreter from each other; one that is
waited for, as one behind a network is, gets a thread for each call. A watch wakes another thread when calls wait
although the token was quick, and hands over what was kept back.
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

THREAD_SECONDS: Final = 0.0001  # a token that is waited for this long gets one more thread, and another for each of it
WATCH_SECONDS: Final = 0.002  # how long a call waits at most because too few threads were woken
BATCH_SECONDS: Final = 0.0005  # how long a thread keeps results back while it has more to do
FORGETTING: Final = 1.01  # by how much a call the least wait seen is taken for longer, until it is seen again
LEAST_SECONDS: Final = 1e-7  # what a wait is taken for that the two clocks do not show

S = TypeVar("S")
T = TypeVar("T")


class Seat(Generic[S]):
    """What one thread keeps from call to call."""

    __slots__ = ("holding",)

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
        self._sleeping: list[tuple[threading.Semaphore, Seat[S]]] = []
        self._awake: set[Seat[S]] = set()
        self._threads = 0
        self._stuck: set[Seat[S]] = set()  # of those awake: took longer than the watch has patience for
        self._least = (
            0.0  # seconds without computing in the quickest call lately: others' hold waits for the interpreter
        )
        self._taken = 0
        self._signalled = False
        self._waking = False
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
        if not self._waking:
            self._waking = True
            loop.call_soon(self._wake)
        return cast("T", await job.future)

    @property
    def usage(self) -> PoolUsage:
        """The counts, now: threads that hang are active."""
        return PoolUsage(self._size, self._active, self._threads - min(self._active, self._threads), self._waiting)

    def close(self) -> None:
        """Let every thread give up its session and end, once it is through with what it does."""
        with self._lock:
            self._closed = True
            while self._sleeping:
                self._ring()

    def join(self, seconds: float) -> None:
        """Wait in another thread for the end of all threads, at most so long: one may hang."""
        with self._lock:
            self._gone.wait_for(lambda: not self._threads, seconds)

    def _wake(self) -> None:
        """Once all callers that are ready to run have handed in their jobs: what they did is done without the thread
        that they wake getting in their way."""
        self._waking = False
        useful = min(self._active, 1 + int(self._least / THREAD_SECONDS))
        for _ in range(useful - len(self._awake) + len(self._stuck)):
            self._one_more()
        if not self._watching:
            self._watch_for(self._taken)

    def _watch_for(self, taken: int) -> None:
        assert self._loop is not None
        self._watching = True
        self._loop.call_later(WATCH_SECONDS, self._watch, taken)

    def _watch(self, taken: int) -> None:
        self._watching = False
        self._deliver()
        if not self._jobs:
            return
        if self._taken == taken:  # nobody took a job for so long
            with self._lock:
                self._stuck |= self._awake
            self._one_more()
        self._watch_for(self._taken)

    def _one_more(self) -> None:
        with self._lock:
            if self._sleeping:
                self._ring()
            elif self._threads < self._size:
                self._threads += 1
                seat: Seat[S] = Seat()
                self._awake.add(seat)
                name = f"{self._name} {self._threads}"
                threading.Thread(target=self._work, args=(seat,), name=name, daemon=True).start()

    def _ring(self) -> None:
        bell, seat = self._sleeping.pop()
        self._awake.add(seat)
        bell.release()

    def _work(self, seat: Seat[S]) -> None:
        bell = threading.Semaphore(0)
        try:
            while self._next_jobs(bell, seat):
                self._do_all(seat)
        finally:
            self._retire(seat)
            with self._lock:
                self._threads -= 1
                self._awake.discard(seat)
                self._stuck.discard(seat)
                self._gone.notify_all()

    def _next_jobs(self, bell: threading.Semaphore, seat: Seat[S]) -> bool:
        """Sleep until there may be a job; False: it is over."""
        with self._lock:
            self._stuck.discard(seat)
            if self._jobs or self._closed:
                return bool(self._jobs)
            self._awake.discard(seat)
            self._sleeping.append((bell, seat))
            if self._jobs:  # came in between, from somebody who saw this thread awake
                self._sleeping.remove((bell, seat))
                self._awake.add(seat)
                return True
        bell.acquire()
        return True

    def _do_all(self, seat: Seat[S]) -> None:
        began = started = time.monotonic()
        computed = time.thread_time()
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                if self._done:  # kept back for a job that another thread has taken
                    self._signal()
                return
            self._taken += 1
            self._do(job, seat)
            ended, by_now = time.monotonic(), time.thread_time()
            waited = max(LEAST_SECONDS, (ended - started) - (by_now - computed))
            self._least = min(self._least * FORGETTING or 1.0, waited)
            started, computed = ended, by_now
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
            self._loop.call_soon_threadsafe(self._handed_over)
        except RuntimeError:  # the loop ended while the token hung: nobody waits for anything any more
            self._deliver_to_nobody()

    def _handed_over(self) -> None:
        self._signalled = False
        self._deliver()

    def _deliver(self) -> None:
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
