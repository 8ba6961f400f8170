"""How the asyncio client makes a call: links, deadlines, retries, and single calls of one tick gathered into one
frame."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Coroutine
from typing import Final

from keyside import wire
from keyside.batches import HELLO_JOB, MOST_ITEMS, PIECE_BYTES, Body, Job, cut
from keyside.calls import PACKER_BYTES, SPREAD, SURE_FRAME, FrameTooLong
from keyside.connection import PeerGone
from keyside.errors import (
    BadRequest,
    ClientClosed,
    DeadlineExceeded,
    KeysideError,
    from_code,
    unreachable,
)
from keyside.links import Link
from keyside.retries import pause, retryable_items, worth_retrying
from keyside.wire import Answer, Value

SHARED_VALUE: Final = 32 << 10
"""A longer value travels in a frame of its own, in bytes."""


class Group:
    """Single calls of one tick with the same operation and keyring, until they leave as one frame."""

    def __init__(self, op: int, keyring: str, deadline: float) -> None:
        self.op = op
        self.keyring = keyring
        self.deadline = deadline
        self.values: list[Value] = []
        self.contexts: list[wire.Context] = []
        self.futures: list[asyncio.Future[bytes]] = []
        self.room = PIECE_BYTES

    def add(self, value: bytes, context: bytes | None, future: asyncio.Future[bytes]) -> None:
        self.values.append(value)
        self.contexts.append(context)
        self.futures.append(future)
        self.room -= len(value) + len(context or b"")

    @property
    def full(self) -> bool:
        return self.room <= 0 or len(self.values) >= MOST_ITEMS

    def job(self) -> Job:
        first = self.contexts[0]
        same = self.contexts.count(first) == len(self.contexts)
        return Job(self.op, self.keyring, first if same else self.contexts, self.values)

    def settle(self, body: Body) -> None:
        for future, item in zip(self.futures, body, strict=True):
            if future.done():
                continue
            if isinstance(item, int):
                future.set_exception(from_code(item))
            else:
                assert item is not None  # the answer was checked: NULLs only where the request has them
                future.set_result(item)

    def fail(self, error: Exception) -> None:
        for future in self.futures:
            if not future.done():
                # an error of its own for each caller: a shared one would gather the tracebacks of all of them
                future.set_exception(copy.copy(error))


class ShortWay:
    """The outcome of a group that was sent without a task: settled on the spot when all went well."""

    def __init__(self, calls: AsyncCalls, group: Group, timer: asyncio.TimerHandle, proven: bool) -> None:
        self._calls = calls
        self._group = group
        self._timer = timer
        self._proven = proven

    def done(self) -> bool:
        return False

    def set_result(self, answer: Answer, /) -> None:
        self._timer.cancel()
        if answer.status == 0 and not isinstance(answer.body, str):
            self._group.settle(answer.body)
        else:
            self._calls.finish(self._group, answer)

    def set_exception(self, error: KeysideError, /) -> None:
        self._timer.cancel()
        # a connection that had served before and is found dead is no attempt: it is replaced
        replaced = self._proven and isinstance(error, PeerGone)
        self._calls.finish(self._group, None if replaced else error)


class AsyncCalls:
    """Links, patience and limits of one client on one event loop of one process."""

    def __init__(self, path: str, timeout: float, pool_size: int, retries: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self._path = path
        self._timeout = timeout
        self._pool_size = pool_size
        self._retries = retries
        self._links: list[Link] = []
        self._opening: set[asyncio.Task[Link]] = set()
        self._groups: dict[tuple[int, str], Group] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._limits: wire.Hello | None = None
        self._closed = False

    def one(self, op: int, keyring: str, value: bytes | str, context: wire.Context) -> asyncio.Future[bytes]:
        """The result for one value, sent with others of this tick."""
        data = value if type(value) is bytes else wire.bytes_of(value)
        about = context if context is None or type(context) is bytes else wire.bytes_of(context)
        if not isinstance(keyring, str):
            raise TypeError(f"keyring: expected str, not {type(keyring).__name__}")
        if about is not None and len(about) > wire.MAX_CONTEXT:
            # found here, since it would cost the others in the frame their answers
            raise BadRequest("the context is longer than 65,535 bytes")
        future: asyncio.Future[bytes] = self.loop.create_future()
        if len(data) > SHARED_VALUE:
            group = Group(op, keyring, self._deadline())
            group.add(data, about, future)
            self._start(group)
            return future
        key = (op, keyring)
        group_or_none = self._groups.get(key)
        if group_or_none is None:
            if not self._groups:
                self.loop.call_soon(self._flush)
            group_or_none = self._groups[key] = Group(op, keyring, self._deadline())
        group_or_none.add(data, about, future)
        if group_or_none.full:
            self._start(self._groups.pop(key))
        return future

    async def many(self, job: Job) -> tuple[Body, bool]:
        """The results of a batch, and whether some are codes of failed items. Raises what failed as a whole."""
        deadline = self._deadline()
        try:
            pieces = cut(job.items)
            if len(pieces) == 1:
                return await self._piece(job, deadline)
            results: list[tuple[Body, bool]] = [([], False)] * len(pieces)
            todo = iter(range(len(pieces)))

            async def lane() -> None:
                for index in todo:
                    results[index] = await self._piece(job.part(pieces[index]), deadline)

            await _all([lane() for _ in range(min(SPREAD, len(pieces)))])
            return [item for body, _ in results for item in body], any(failed for _, failed in results)
        except (BadRequest, TypeError):
            wire.explain_types(job.items, job.context)
            raise

    async def hello(self) -> wire.Hello:
        body, _ = await self._piece(HELLO_JOB, self._deadline())
        return wire.hello_of(body)

    async def close(self) -> None:
        """Fail what is under way with ClientClosed and close the links."""
        self._closed = True
        groups, self._groups = self._groups, {}
        for group in groups.values():
            group.fail(ClientClosed("the client was closed"))
        tasks = [*self._running, *self._opening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links:
            link.abort()
        self._links.clear()
        await asyncio.sleep(0)  # the loop closes aborted transports in its next tick

    def _deadline(self) -> float:
        return self.loop.time() + self._timeout

    def _flush(self) -> None:
        groups, self._groups = self._groups, {}
        for group in groups.values():
            self._start(group)

    def _start(self, group: Group) -> None:
        """Send a group at once when a link is free, and without a task, which costs two ticks of the loop; else with
        one."""
        link = next((link for link in self._links if link.usable and not link.load), None)
        if link is None:
            return self.finish(group)
        job = group.job()
        number, frame = link.pack(job)
        if len(frame) > SURE_FRAME:
            return self.finish(group)
        timer = self.loop.call_at(group.deadline, link.expire, number)
        link.send(job, number, frame, ShortWay(self, group, timer, link.proven))

    def finish(self, group: Group, first: Answer | KeysideError | None = None) -> None:
        """Do for a group all that it takes, after a first attempt that had this answer or error."""
        if self._closed:
            return group.fail(ClientClosed("the client was closed"))
        task = self.loop.create_task(self._run(group, first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, group: Group, first: Answer | KeysideError | None) -> None:
        try:
            body, _ = await self._piece(group.job(), group.deadline, first)
            group.settle(body)
        except asyncio.CancelledError:
            group.fail(ClientClosed("the client was closed"))
            raise
        except Exception as error:  # every failure belongs to the callers, whatever it is
            group.fail(error)

    async def _piece(self, job: Job, deadline: float, first: Answer | KeysideError | None = None) -> tuple[Body, bool]:
        """One frame's worth with retries, halved when it is more than that. `first`: the outcome of an attempt made."""
        attempt = 0
        while True:
            try:
                if isinstance(first, KeysideError):
                    raise first
                answer = first or await self._ask(job, deadline)
                if isinstance(answer.body, str):
                    raise from_code(answer.status, answer.body)
                break
            except FrameTooLong:
                if len(job.items) == 1:
                    raise BadRequest("the value is longer than the sidecar's max_frame", 0) from None
                left, right = [await self._piece(half, deadline) for half in job.halves()]
                return left[0] + right[0], left[1] or right[1]
            except KeysideError as error:
                if attempt >= self._retries or not worth_retrying(error):
                    raise
                await self._wait(attempt, deadline, error)
                attempt, first = attempt + 1, None
        if answer.status:
            await self._repair(job, deadline, answer.body, attempt)
        return answer.body, bool(answer.status)

    async def _repair(self, job: Job, deadline: float, body: Body, attempt: int) -> None:
        """Fill in the results of further attempts for failed items whose code allows them."""
        while attempt < self._retries and (again := retryable_items(body)):
            try:
                await self._wait(attempt, deadline, DeadlineExceeded("no time is left for another attempt"))
                answer = await self._ask(job.pick(again), deadline)
            except KeysideError:
                return  # the batch was answered; what these items failed with stands
            if not isinstance(answer.body, str):
                for index, item in zip(again, answer.body, strict=True):
                    body[index] = item
            attempt += 1

    async def _wait(self, attempt: int, deadline: float, error: KeysideError) -> None:
        """Pause before another attempt; raise `error` when that would take longer than there is time."""
        seconds = pause(attempt)
        if self.loop.time() + seconds >= deadline:
            raise error
        await asyncio.sleep(seconds)

    async def _ask(self, job: Job, deadline: float) -> Answer:
        """Send one frame and wait for its answer, on another link when an old one turns out to be dead."""
        link = await self._link(deadline)
        proven = link.proven
        try:
            return await self._ask_on(link, job, deadline)
        except PeerGone:
            if not proven:
                raise
            return await self._ask_on(await self._link(deadline), job, deadline)

    async def _ask_on(self, link: Link, job: Job, deadline: float) -> Answer:
        number, frame = link.pack(job)
        if len(frame) > SURE_FRAME:
            if len(frame) > PACKER_BYTES:
                link.packer = wire.new_packer()
            if self._limits is None:
                self._limits = wire.hello_of((await self._ask_on(link, HELLO_JOB, deadline)).body)
                link = await self._link(deadline)
                number, frame = link.pack(job)
            if len(frame) - 4 > self._limits.max_frame:
                raise FrameTooLong
        future: asyncio.Future[Answer] = self.loop.create_future()
        link.send(job, number, frame, future)
        timer = self.loop.call_at(deadline, link.expire, number)
        try:
            return await future
        finally:
            timer.cancel()
            link.abandon(number)

    async def _link(self, deadline: float) -> Link:
        """The link with the least under way; a new one while all are busy and there may be more."""
        while True:
            self._links = [link for link in self._links if link.usable]
            best = min(self._links, key=lambda link: link.load, default=None)
            room = len(self._links) + len(self._opening) < self._pool_size
            if best is not None and (best.load == 0 or not room):
                return best
            if room:
                return await self._open(deadline)
            await asyncio.wait(self._opening, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # whoever opened it takes it off the set in the next tick

    async def _open(self, deadline: float) -> Link:
        task = self.loop.create_task(self._connect(deadline))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return await task

    async def _connect(self, deadline: float) -> Link:
        try:
            connecting = self.loop.create_unix_connection(Link, self._path)
            _, link = await asyncio.wait_for(connecting, deadline - self.loop.time())
        except asyncio.TimeoutError:  # noqa: UP041  another class before Python 3.11
            raise DeadlineExceeded("the sidecar accepted no connection in time") from None
        except OSError as error:
            raise unreachable(self._path, error) from None
        self._links.append(link)
        return link


async def _all(lanes: list[Coroutine[None, None, None]]) -> None:
    """Run coroutines together; when one fails, end the others before its error is raised."""
    tasks = [asyncio.ensure_future(lane) for lane in lanes]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
