"""Requests whose answers are read later, so that the sidecar works on them while the caller uses earlier answers.

first, rest = calls.ahead([jobs, other_jobs])     all have left
first.results()                                   waits for these alone
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeAlias

from keyside import wire
from keyside.batches import Job, Outcome, Results, settle_outcome
from keyside.connection import Connection
from keyside.errors import KeysideError
from keyside.wire import Answer

if TYPE_CHECKING:
    from keyside.pipelines import Pipeline

Burst: TypeAlias = "list[tuple[int, Job, bytes]]"
"""Position among the requests, request, packed frame; the id in the frame is the place in the burst, from 1."""
Lanes: TypeAlias = "list[tuple[Connection, Burst]]"

LANE_BYTES: Final = 128 << 10
"""Most bytes of several requests on one connection. Neither they nor their answers fill the socket's buffers, so that
writing never waits for answers to be read."""
LONGEST: Final = 256 << 10
"""Longest request that leaves whole; longer ones are cut."""
MOST_NUMBERS: Final = 127


class Ahead:
    """Answers that are still to be read, and the connections that they will come on.

    Whoever finds no idle connection reads them first (`Pool.take`): nobody waits for a connection on which only
    somebody's leisure waits. The lock is held by the one who reads; it is reentrant because a collector may run `drop`
    in the middle.
    """

    def __init__(
        self,
        calls: Pipeline,
        jobs: list[Job],
        lanes: Lanes,
        idle: list[Connection],
        outcomes: list[Outcome] | None = None,
    ) -> None:
        """`idle`: the list that the connections were popped from, and go back to."""
        self._calls = calls
        self._jobs = jobs
        self._lanes = lanes
        self._outcomes = outcomes
        self._answers: dict[int, Answer] = {}
        self._lock = threading.RLock()
        self._idle = idle
        self._held = calls.pool.held  # the child of a fork gets a set of its own
        if lanes:
            self._held.add(self)

    def results(self) -> list[Results | KeysideError]:
        """What `Client.pipeline` returns for the requests. What got no answer is asked again."""
        with self._lock:
            if self._outcomes is None:
                deadline = self._calls.deadline()
                self.settle(deadline)
                jobs, self._jobs = self._jobs, []
                found = self._calls.settled(list(enumerate(jobs)), self._answers, deadline)
                self._outcomes = [found[index] for index in range(len(jobs))]
            return [settle_outcome(outcome) for outcome in self._outcomes]

    def settle(self, deadline: float) -> None:
        """Read the answers that have not been read, so that the connections are free."""
        with self._lock:
            lanes, self._lanes = self._lanes, []
            try:
                for lane, burst in lanes:
                    self._calls.read_burst(lane, burst, deadline, self._answers)
            except BaseException:
                _close(lanes)
                raise
            finally:
                self._give_back(lanes)

    def drop(self) -> None:
        """Nobody will ask: close the connections whose answers have not been read."""
        with self._lock:
            lanes, self._lanes = self._lanes, []
            _close(lanes)
            self._give_back(lanes)

    def _give_back(self, lanes: Lanes) -> None:
        self._held.discard(self)
        for lane, _ in lanes:
            self._calls.pool.give(self._idle, lane)


def _close(lanes: Lanes) -> None:
    for lane, _ in lanes:
        lane.close()


def loads(jobs: list[Job], longest: int) -> list[Burst] | None:
    """Requests packed for as many connections as they need; None when one is longer than `longest` bytes."""
    packer = wire.new_packer()
    packed: list[Burst] = []
    size = 0
    for index, job in enumerate(jobs):
        frame = wire.batch(packer, 1, *job)
        if len(frame) > longest:
            return None
        room = wire.ceiling(frame, len(job.items))
        if packed and size + room <= LANE_BYTES and len(packed[-1]) < MOST_NUMBERS:
            frame = wire.renumbered(frame, len(packed[-1]) + 1)
        else:
            packed.append([])
            size = 0
        packed[-1].append((index, job, frame))
        size += room
    return packed
