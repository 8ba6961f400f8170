"""Several requests in one round trip: different operations, keyrings and contexts, sent together, each with its own
outcome.

Small requests leave in bursts, many frames in one write, so that a result whose rows belong to a thousand partitions
costs no more waiting than one of a single partition. Long ones are cut and travel over several connections at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from keyside import wire
from keyside.ahead import LONGEST, Ahead, Burst, loads
from keyside.async_calls import AsyncCalls
from keyside.batches import BUSY, WHOLE_ITEMS, Body, Job, Outcome, cut
from keyside.calls import Calls
from keyside.connection import Connection
from keyside.errors import ConnectionLost, KeysideError, ProtocolError, SidecarError
from keyside.wire import Answer

BURST_BYTES: Final = 64 << 10
"""Most bytes of requests in one write. They fit into the socket's buffer even while nobody reads, so that writing
never waits for answers to be read."""
BURST_ITEMS: Final = 1024
"""Most items in one burst, since answers may be longer than requests by 48 bytes an item."""
LONG_BYTES: Final = BURST_BYTES // 2


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
        deadline = self.deadline()
        outcomes: dict[int, Outcome] = {}
        try:
            long = {index for index, job in enumerate(jobs) if is_long(job)}
            small = [(i, job) for i, job in enumerate(jobs) if i not in long]
            outcomes = self.settled(small, self._burst_answers(small, deadline), deadline)
            outcomes |= self._long_outcomes([(i, jobs[i]) for i in sorted(long)], deadline)
        except TypeError:
            for job in jobs:
                wire.explain_types(job.items, job.context)
            raise
        return [outcomes[index] for index in range(len(jobs))]

    def ahead(self, groups: list[list[Job]]) -> list[Ahead]:
        """Send several groups of requests at once, to read the answers of each when they are asked for.

        What cannot leave without waiting (no idle connection, a request that must be cut) is answered before this
        returns. Raises as `pipeline` does.
        """
        sent: list[Ahead] = []
        longest = self._longest()
        try:
            for place, group in enumerate(groups):
                bursts = loads(group, longest)
                idle = self.pool.idle
                lanes = None if bursts is None else self.pool.take_several(idle, len(bursts))
                if bursts is None or lanes is None:
                    return sent + self._answered(groups[place:])
                deadline = self.deadline()
                sent.append(Ahead(self, group, list(zip(lanes, bursts, strict=True)), idle))
                for lane, burst in zip(lanes, bursts, strict=True):
                    self._send_burst(lane, burst, deadline)
        except BaseException:
            for one in sent:
                one.drop()
            raise
        return sent

    def _answered(self, groups: list[list[Job]]) -> list[Ahead]:
        outcomes = iter(self.pipeline([job for group in groups for job in group]))
        return [Ahead(self, [], [], [], [next(outcomes) for _ in group]) for group in groups]

    def _longest(self) -> int:
        """The longest request that may leave whole, 0 while the sidecar does not say."""
        if self._limits is None:
            try:
                self._limits = self.hello()
            except KeysideError:
                return 0
        return min(LONGEST, self._limits.max_frame)

    def settled(self, jobs: list[tuple[int, Job]], firsts: dict[int, Answer], deadline: float) -> dict[int, Outcome]:
        """The outcomes of requests whose first answers are here; the ones that got none are asked again."""
        outcomes: dict[int, Outcome] = {}
        gone: KeysideError | None = None
        for index, job in jobs:
            silent = gone is not None and index not in firsts
            outcome = gone if gone and silent else _outcome(self._piece, job, deadline, firsts.get(index))
            gone = gone or _silence(outcome)
            outcomes[index] = outcome
        return outcomes

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
        pool = self.pool
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
                    self.read_burst(lane, burst, deadline, answers)
                for burst in rest:
                    self._send_burst(lanes[0][0], burst, deadline)
                    self.read_burst(lanes[0][0], burst, deadline, answers)
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

    def read_burst(self, lane: Connection, burst: Burst, deadline: float, answers: dict[int, Answer]) -> None:
        """Read the answers to a burst; those that do not come are missing, and the connection is closed."""
        if not lane.connected:
            return
        if len(burst) == 1:
            self._read_one(lane, burst[0], deadline, answers)
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

    def _read_one(
        self, lane: Connection, sent: tuple[int, Job, bytes], deadline: float, answers: dict[int, Answer]
    ) -> None:
        index, job, frame = sent
        try:
            self._arm(lane, deadline)
            body = lane.receive(wire.ceiling(frame, len(job.items)), deadline)
            answers[index] = self._judge(lane, job, 1, body)
        except KeysideError:
            lane.close()


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
