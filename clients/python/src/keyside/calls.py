"""How the blocking client makes a call: the short way for one small value, the whole way for everything else."""

from __future__ import annotations

import time
from time import monotonic
from typing import Final

from keyside import wire
from keyside.batches import HELLO_JOB, Body, Job, cut
from keyside.connection import Connection, PeerGone
from keyside.errors import BadRequest, DeadlineExceeded, KeysideError, from_code
from keyside.pool import Pool
from keyside.retries import pause, retryable_items, worth_retrying
from keyside.wire import Answer

SMALL_VALUE: Final = 4096
"""Longest value that takes the short way, in bytes."""
SURE_FRAME: Final = 64 << 10
"""Frames up to this length are sent without asking the sidecar for its limit."""
MOST_HEADS: Final = 4096
SPREAD: Final = 4
"""Connections that one batch may use at once."""
PACKER_BYTES: Final = 1 << 20
"""A packer that has held more is thrown away, so that a huge batch does not cost its memory for ever."""


class FrameTooLong(Exception):
    """A packed request is longer than max_frame: halve it."""


class Calls:
    """Connections, patience and limits of one client. Thread-safe."""

    def __init__(self, path: str, timeout: float, pool_size: int, retries: int) -> None:
        self.pool = Pool(path, pool_size)
        self._spread = min(SPREAD, pool_size)
        self._timeout = timeout
        self._retries = retries
        self._heads: dict[tuple[int, str, object], bytes] = {}
        self._limits: wire.Hello | None = None
        self.close = self.pool.close

    def one(self, op: int, keyring: str, value: bytes | str, context: wire.Context) -> bytes:
        """The result for one value. Raises its error."""
        data = value if type(value) is bytes else wire.bytes_of(value)
        try:
            head = self._heads[op, keyring, context]
        except (KeyError, TypeError):
            head = self._new_head(op, keyring, context)
        timeout = self._timeout
        deadline = monotonic() + timeout
        pool = self.pool
        idle = pool.idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = pool.take(deadline)
        answer: Answer | None = None
        try:
            # what is not connected, or was left with another deadline, takes the whole way
            if connection.armed == timeout and len(data) <= SMALL_VALUE:
                connection.number = number = connection.number % 127 + 1
                frame = connection.exchange(wire.single(number, head, data), deadline)
                result = wire.short_value(frame, number)
                if result is not None:
                    return result
                answer = wire.read(memoryview(frame)[4:])
                wire.check(answer, number, (data,))
                if answer.status in wire.CLOSING:
                    connection.close()
        except PeerGone:
            connection.close()
        except BaseException:
            connection.close()
            raise
        finally:
            pool.give(idle, connection)
        (value_or_code,), _ = self._piece(Job(op, keyring, context, [data]), deadline, answer)
        if isinstance(value_or_code, int):
            raise from_code(value_or_code)
        assert value_or_code is not None  # the answer was checked: NULLs only where the request has them
        return value_or_code

    def many(self, job: Job) -> tuple[Body, bool]:
        """The results of a batch, and whether some are codes of failed items. Raises what failed as a whole."""
        deadline = self.deadline()
        try:
            pieces = cut(job.items)
            if len(pieces) == 1:
                return self._piece(job, deadline)
            parts = [job.part(piece) for piece in pieces]
            body: Body = []
            some_failed = False
            for part, answer in zip(parts, self._pipelined(parts, deadline), strict=True):
                results, failed = self._piece(part, deadline, answer)
                body += results
                some_failed |= failed
            return body, some_failed
        except (BadRequest, TypeError):
            # types are not looked at before: looking costs as much as packing, and nearly every batch is good
            wire.explain_types(job.items, job.context)
            raise

    def deadline(self) -> float:
        """When a call that begins now must have ended."""
        return monotonic() + self._timeout

    def hello(self) -> wire.Hello:
        return wire.hello_of(self._piece(HELLO_JOB, self.deadline())[0])

    def _new_head(self, op: int, keyring: str, context: wire.Context) -> bytes:
        if not isinstance(keyring, str):
            raise TypeError(f"keyring: expected str, not {type(keyring).__name__}")
        head = wire.head_of(op, keyring, None if context is None else wire.bytes_of(context))
        if context is None or isinstance(context, (bytes, str)):
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[op, keyring, context] = head
        return head

    def _piece(self, job: Job, deadline: float, answer: Answer | None = None) -> tuple[Body, bool]:
        """One frame's worth with retries, halved when it is more than that. `answer`: what a first attempt got
        already."""
        attempt = 0
        while True:
            try:
                answer = answer or self._ask(job, deadline)
                if isinstance(answer.body, str):
                    raise from_code(answer.status, answer.body)
                break
            except FrameTooLong:
                if len(job.items) == 1:
                    raise BadRequest("the value is longer than the sidecar's max_frame", 0) from None
                first, second = (self._piece(half, deadline) for half in job.halves())
                return first[0] + second[0], first[1] or second[1]
            except KeysideError as error:
                if attempt >= self._retries or not worth_retrying(error):
                    raise
                self._wait(attempt, deadline, error)
                attempt, answer = attempt + 1, None
        if answer.status:
            self._repair(job, deadline, answer.body, attempt)
        return answer.body, bool(answer.status)

    def _repair(self, job: Job, deadline: float, body: Body, attempt: int) -> None:
        """Fill in the results of further attempts for failed items whose code allows them."""
        while attempt < self._retries and (again := retryable_items(body)):
            some = job.pick(again)
            try:
                self._wait(attempt, deadline, DeadlineExceeded("no time is left for another attempt"))
                answer = self._ask(some, deadline)
            except KeysideError:
                return  # the batch was answered; what these items failed with stands
            if not isinstance(answer.body, str):
                for index, item in zip(again, answer.body, strict=True):
                    body[index] = item
            attempt += 1

    def _wait(self, attempt: int, deadline: float, error: KeysideError) -> None:
        """Pause before another attempt; raise `error` when that would take longer than there is time."""
        seconds = pause(attempt)
        if monotonic() + seconds >= deadline:
            raise error
        time.sleep(seconds)

    def _ask(self, job: Job, deadline: float) -> Answer:
        """Send one frame and read its answer, on a new connection when an old one turns out to be dead."""
        pool = self.pool
        idle = pool.idle
        connection = pool.take(deadline)
        try:
            try:
                return self._collect(connection, job, self._submit(connection, job, deadline), deadline)
            except PeerGone:
                if not connection.proven:
                    raise
                connection.close()
                return self._collect(connection, job, self._submit(connection, job, deadline), deadline)
        except FrameTooLong:
            raise
        except BaseException:
            connection.close()
            raise
        finally:
            pool.give(idle, connection)

    def _submit(self, connection: Connection, job: Job, deadline: float) -> int:
        """Connect if need be and send the request. Returns the most bytes that its answer may have."""
        if not connection.connected:
            connection.connect(deadline)
        self._arm(connection, deadline)
        frame = wire.batch(connection.packer, connection.next_number(), *job)
        if len(frame) > SURE_FRAME:
            if self._limits is None:
                room = self._submit(connection, HELLO_JOB, deadline)
                self._limits = wire.hello_of(self._collect(connection, HELLO_JOB, room, deadline).body)
                return self._submit(connection, job, deadline)
            if len(frame) > PACKER_BYTES:
                connection.packer = wire.new_packer()
            if len(frame) - 4 > self._limits.max_frame:
                raise FrameTooLong
        connection.send(frame, deadline)
        return wire.ceiling(frame, len(job.items))

    def _collect(self, connection: Connection, job: Job, room: int, deadline: float) -> Answer:
        """Read the answer to the request that was submitted last."""
        return self._judge(connection, job, connection.number, connection.receive(room, deadline))

    def _judge(self, connection: Connection, job: Job, number: int, body: memoryview) -> Answer:
        answer = wire.read(body)
        wire.check(answer, number, job.items)
        connection.proven = True
        if answer.status in wire.CLOSING:
            connection.close()
        elif connection.armed != self._timeout:
            connection.arm(self._timeout)
        return answer

    def _arm(self, connection: Connection, deadline: float) -> None:
        # within a hundredth of the whole time the kernel's timers stay as they are: two system calls less
        left = deadline - monotonic()
        connection.arm(self._timeout if left > 0.99 * self._timeout else left)

    def _pipelined(self, parts: list[Job], deadline: float) -> list[Answer | None]:
        """Answers to the parts, several under way at once over several connections; None where a part must be asked
        again.

        While workers are busy with the next parts, this side already takes the answers to the first ones apart.
        """
        pool = self.pool
        idle = pool.idle
        lanes = [pool.take(deadline)]
        while len(lanes) < min(self._spread, len(parts)) and (spare := pool.take_idle(idle)):
            lanes.append(spare)
        answers: list[Answer | None] = [None] * len(parts)
        owed: dict[
            Connection, tuple[int, int, int]
        ] = {}  # lane to the index, id and room of the part that is under way
        try:
            for index in range(len(parts) + len(lanes)):
                lane = lanes[index % len(lanes)]
                before = owed.pop(lane, None)
                try:
                    # taken off the socket, the next part sent, and only then looked at: the worker need not wait for
                    # that
                    body = lane.receive(before[2], deadline) if before else None
                    if body and self._limits is None:
                        # a long next part asks HELLO first, whose answer would overwrite this one
                        body = memoryview(bytes(body))
                    if index < len(parts):
                        room = self._submit(lane, parts[index], deadline)
                        owed[lane] = (index, lane.number, room)
                    if before and body:
                        answers[before[0]] = self._judge(lane, parts[before[0]], before[1], body)
                except FrameTooLong:
                    continue
                except KeysideError as error:
                    lane.close()
                    if not worth_retrying(error):
                        raise
                if not lane.connected:
                    owed.pop(lane, None)
        finally:
            for lane in owed:
                lane.close()
            for lane in lanes:
                pool.give(idle, lane)
        return answers
