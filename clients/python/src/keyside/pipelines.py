"""Several requests in one round trip: different operations, keyrings and contexts, sent together, each with its own
outcome.

Small requests leave in bursts, many frames in one write, so that a result whose rows belong to a thousand partitions
costs no more waiting than one of a single partition. Long ones are cut and travel over several connections at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, TypeAlias

from keyside import wire
from keyside.async_calls import AsyncCalls
from keyside.batches import BUSY, WHOLE_ITEMS, Body, Job, Results, cut, settle
from keyside.calls import Calls
from keyside.connection import Connection
from keyside.errors import ConnectionLost, KeysideError, ProtocolError, SidecarError
from keyside.wire import Answer

Outcome: TypeAlias = "tuple[Body, bool] | KeysideError"
"""The results of a request and whether some are codes of failed items; or what it failed with as a whole."""

BURST_BYTES: Final = 64 << 10
"""Most bytes of requests in one write. They fit into the socket's buffer even while nobody reads, so that writing
never waits for answers to be read."""
BURST_ITEMS: Final = 1024
"""Most items in one burst, since answers may be longer than requests by 48 bytes an item."""
LONG_BYTES: Final = BURST_BYTES // 2

Burst: TypeAlias = "list[tuple[int, Job, bytes]]"
"""Position among the requests, request, packed frame; the id in the frame is the place in the burst, from 1."""


def is_long(job: Job) -> bool:
    """Whether a request travels by itself."""
    if len(job.items) >= WHOLE_ITEMS:
        return True
    return sum(len(item) for item in job.items if item is not None) > LONG_BYTES


class Pipeline(Calls):
    """Calls of the blocking client, and several at once."""

    def pipeline(self, jobs: list[Job]) -> list[Outcome]:
        """The outcomes of requests, in their order. Raises what is not an outcome of one of them (ClientClosed,
        TypeError)."""
        if len(jobs) == 1:
            return [_outcome(self.many, jobs[0])]
        deadline = monotonic() + self._timeout
        outcomes: dict[int, Outcome] = {}
        try:
            long = {index for index, job in enumerate(jobs) if is_long(job)}
            firsts = self._burst_answers([(i, job) for i, job in enumerate(jobs) if i not in long], deadline)
            gone: KeysideError | None = None
            for index, job in enumerate(jobs):
                if index in long:
                    continue
                outcome = (
                    gone if gone and index not in firsts else _outcome(self._piece, job, deadline, firsts.get(index))
                )
                gone = gone or _silence(outcome)
                outcomes[index] = outcome
            outcomes |= self._long_outcomes([(i, jobs[i]) for i in sorted(long)], deadline)
        except TypeError:
            for job in jobs:
                wire.explain_types(job.items, job.context)
            raise
        return [outcomes[index] for index in range(len(jobs))]

    def _long_outcomes(self, jobs: list[tuple[int, Job]], deadline: float) -> dict[int, Outcome]:
        each = max(1, BUSY // max(1, len(jobs)))
        pieces = [(index, job.part(piece)) for index, job in jobs for piece in cut(job.items, each)]
        parts = [part for _, part in pieces]
        outcomes: dict[int, Outcome] = {}
        for (index, part), answer in zip(pieces, self._pipelined(parts, deadline) if parts else [], strict=True):
            before = outcomes.get(index, ([], False))
            now = _outcome(self._piece, part, deadline, answer)
            if isinstance(before, KeysideError):
                continue
            outcomes[index] = now if isinstance(now, KeysideError) else (before[0] + now[0], before[1] or now[1])
        return outcomes

    def _burst_answers(self, jobs: list[tuple[int, Job]], deadline: float) -> dict[int, Answer]:
        """First answers to small requests; the ones that got none are missing and must be asked again."""
        answers: dict[int, Answer] = {}
        pool = self._pool
        idle = pool.idle
        bursts = _bursts(jobs)
        while wave := [burst for burst, _ in zip(bursts, range(self._spread), strict=False)]:
            lanes: list[tuple[Connection, Burst]] = []
            connection = pool.take(deadline)
            for burst in wave:
                lanes.append((connection, burst))
                spare = pool.take_idle(idle) if len(lanes) < len(wave) else None
                if spare is None:
                    break
                connection = spare
            rest = wave[len(lanes) :]
            try:
                for lane, burst in lanes:
                    self._send_burst(lane, burst, deadline)
                for lane, burst in lanes:
                    self._read_burst(lane, burst, deadline, answers)
                for burst in rest:
                    self._send_burst(lanes[0][0], burst, deadline)
                    self._read_burst(lanes[0][0], burst, deadline, answers)
            except BaseException:
                for lane, _ in lanes:
                    lane.close()
                raise
            finally:
                for lane, _ in lanes:
                    pool.give(idle, lane)
        return answers

    def _send_burst(self, lane: Connection, burst: Burst, deadline: float) -> None:
        try:
            if not lane.connected:
                lane.connect(deadline)
            self._arm(lane, deadline)
            lane.send(b"".join([frame for _, _, frame in burst]), deadline)
        except KeysideError:
            lane.close()  # each of them is asked again, and tells its own error

    def _read_burst(self, lane: Connection, burst: Burst, deadline: float, answers: dict[int, Answer]) -> None:
        if not lane.connected:
            return
        owed = {number: (index, job) for number, (index, job, _) in enumerate(burst, 1)}
        ceiling = sum(wire.ceiling(frame, len(job.items)) for _, job, frame in burst)
        try:
            received = bytearray()
            while owed:
                self._arm(lane, deadline)
                received += lane.some()
                for answer in _whole_answers(received, ceiling):
                    index, job = owed.pop(answer.number, (-1, None))
                    if job is None:
                        raise ProtocolError("the answer belongs to no request of this connection")
                    wire.check(answer, answer.number, job.items)
                    answers[index] = answer
                    if answer.status in wire.CLOSING:
                        lane.close()
                        return
        except KeysideError:
            lane.close()
            return
        lane.proven = True
        if lane.armed != self._timeout:
            lane.arm(self._timeout)


class AsyncPipeline(AsyncCalls):
    """Calls of the asyncio client, and several at once."""

    async def pipeline(self, jobs: list[Job]) -> list[Outcome]:
        """See `Pipeline.pipeline`."""
        if len(jobs) == 1:
            return [await self._long_outcome(jobs[0])]
        try:
            long = [job for job in jobs if is_long(job)]
            small = [(index, job) for index, job in enumerate(jobs) if not is_long(job)]
            found, longs = await asyncio.gather(
                self._bursts(small), asyncio.gather(*[self._long_outcome(job) for job in long])
            )
        except TypeError:
            for job in jobs:
                wire.explain_types(job.items, job.context)
            raise
        rest = iter(longs)
        return [found[index] if index in found else next(rest) for index in range(len(jobs))]

    async def _long_outcome(self, job: Job) -> Outcome:
        try:
            return await self.many(job)
        except KeysideError as error:
            return error

    async def _bursts(self, jobs: list[tuple[int, Job]]) -> dict[int, Outcome]:
        deadline = self._deadline()
        outcomes: dict[int, Outcome] = {}
        gone: KeysideError | None = None
        for start in range(0, len(jobs), BURST_ITEMS):
            group = jobs[start : start + BURST_ITEMS]
            firsts = await self._first_answers([job for _, job in group], deadline)
            for (index, job), first in zip(group, firsts, strict=True):
                if isinstance(first, Answer) and first.status == 0 and not isinstance(first.body, str):
                    outcomes[index] = (first.body, False)
                    continue
                try:
                    outcomes[index] = (
                        gone if gone and not isinstance(first, Answer) else await self._piece(job, deadline, first)
                    )
                except KeysideError as error:
                    outcomes[index] = error
                    gone = gone or _silence(error)
        return outcomes

    async def _first_answers(self, jobs: list[Job], deadline: float) -> list[Answer | KeysideError | None]:
        try:
            link = await self._link(deadline)
        except KeysideError:
            return [None] * len(jobs)  # each of them is asked again, and tells its own error
        futures: list[asyncio.Future[Answer]] = []
        timers = []
        numbers = []
        for job in jobs:
            number, frame = link.pack(job)
            future: asyncio.Future[Answer] = self.loop.create_future()
            link.send(job, number, frame, future)
            timers.append(self.loop.call_at(deadline, link.expire, number))
            futures.append(future)
            numbers.append(number)
        try:
            answers = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            for timer, number in zip(timers, numbers, strict=True):
                timer.cancel()
                link.abandon(number)
        # what broke off in the middle is asked again: nobody has seen the envelopes that were lost
        firsts: list[Answer | KeysideError | None] = []
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, KeysideError):
                raise answer
            firsts.append(None if isinstance(answer, ConnectionLost) else answer)
        return firsts


def settle_outcome(outcome: Outcome) -> Results | KeysideError:
    """An outcome as callers get it."""
    if isinstance(outcome, KeysideError):
        return outcome
    body, some_failed = outcome
    return settle(body, some_failed, "return")


def _silence(outcome: Outcome) -> KeysideError | None:
    """The error of a sidecar that does not answer: asking for the next request would only take as long again."""
    return outcome if isinstance(outcome, KeysideError) and not isinstance(outcome, SidecarError) else None


def _outcome(call: Callable[..., tuple[Body, bool]], *arguments: object) -> Outcome:
    try:
        return call(*arguments)
    except KeysideError as error:
        return error


def _bursts(jobs: list[tuple[int, Job]]) -> Iterator[Burst]:
    packer = wire.new_packer()
    burst: Burst = []
    size = items = 0
    for index, job in jobs:
        frame = wire.batch(packer, len(burst) + 1, *job)
        if burst and (size + len(frame) > BURST_BYTES or items + len(job.items) > BURST_ITEMS):
            yield burst
            burst, size, items = [], 0, 0
            frame = wire.batch(packer, 1, *job)
        burst.append((index, job, frame))
        size += len(frame)
        items += len(job.items)
    if burst:
        yield burst


def _whole_answers(received: bytearray, ceiling: int) -> list[Answer]:
    """Takes the answers that have come whole off the front of `received`."""
    answers = []
    start = 0
    with memoryview(received) as view:
        while len(view) - start >= 4:
            size = int.from_bytes(view[start : start + 4], "big") + 4
            if not 4 < size <= ceiling:
                raise ProtocolError("the answer is longer than any answer to these requests could be")
            if len(view) - start < size:
                break
            with view[start + 4 : start + size] as body:
                answers.append(wire.read(body))
            start += size
    del received[:start]
    return answers
