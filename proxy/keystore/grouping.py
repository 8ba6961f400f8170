"""One thread, one transaction at a time, holding everything that was asked for while the one before it was committed.

A durable commit costs a flush of the disk, so a thousand first uses at once must not cost a thousand: what queues up
during one flush shares the next (group commit). A savepoint around each keeps one refused change from undoing others.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from proxy.keystore.errors import KeystoreClosed, KeystoreCorrupt

T = TypeVar("T")

GROUP_LIMIT: Final = 512
"""Changes that one transaction takes at most, so that the first of them need not wait for an endless last."""


@dataclass(slots=True)
class _Job:
    work: Callable[[Connection], Any]
    future: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None


class GroupedTransactions:
    """Runs work on a database connection in a thread of its own, grouped.

    `begin` yields a connection inside a transaction, committed when its block ends, and raises KeystoreError alone.
    """

    def __init__(self, name: str, begin: Callable[[], AbstractContextManager[Connection]], *, savepoints: bool) -> None:
        self._begin = begin
        self._savepoints = savepoints
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # nothing may be queued after the word to end
        self._closed = False
        self.transactions = 0
        self.jobs = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return once that is committed. Raises KeystoreError, or as `work` does."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        with self._lock:
            if self._closed:
                raise KeystoreClosed("the keystore was closed: open it again")
            self._queue.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Finish what is queued, then end the thread. Blocks until it has ended. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            group, ended = self._take()
            if group:
                self._transact(group)
                self._answer(group)

    def _take(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            group.append(job)
            if len(group) == GROUP_LIMIT:
                return group, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _transact(self, group: list[_Job]) -> None:
        self.transactions += 1
        try:
            with self._begin() as connection:
                for job in group:
                    self._do(job, connection)
        except KeystoreCorrupt as error:
            self._apart(group, error)
        except Exception as error:  # whatever it was, nothing of the group is durable and every waiter must hear it
            for job in group:
                job.error = error

    def _do(self, job: _Job, connection: Connection) -> None:
        savepoint = connection.begin_nested() if self._savepoints else None
        try:
            job.result = job.work(connection)
        except DBAPIError:
            # the database may have ended the transaction, savepoint and all: nobody's change can be trusted now
            raise
        except Exception as error:
            job.error = error
            if savepoint:
                savepoint.rollback()
        else:
            if savepoint:
                savepoint.commit()

    def _apart(self, group: list[_Job], error: KeystoreCorrupt) -> None:
        """One damaged page must not fail those who need others."""
        if len(group) == 1:
            group[0].error = error
            return
        for job in group:
            job.error = None
            self._transact([job])

    def _answer(self, group: list[_Job]) -> None:
        self.jobs += len(group)
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            by_loop.setdefault(job.future.get_loop(), []).append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # its waiter gave up
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
