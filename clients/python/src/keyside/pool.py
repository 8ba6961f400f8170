"""Connections that wait for their next call: last in, first out, each used by one thread at a time, none shared with
a child process."""

from __future__ import annotations

import os
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING

from keyside.connection import Connection
from keyside.errors import ClientClosed, DeadlineExceeded

if TYPE_CHECKING:
    from keyside.ahead import Ahead


class Pool:
    """`size` connections, made when first needed.

    `idle` may be popped directly: a list's pop and append are atomic. Whoever pops gives back to the list it popped
    from, so that a
    connection taken before a fork or a close never comes back into use.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._all = [Connection(self._path) for _ in range(self._size)]
        self.idle = [*self._all]
        self.held: set[Ahead] = set()
        """What has connections whose answers nobody has read yet. A set's add, pop and discard are atomic too."""
        self._ready = threading.Condition(threading.Lock())
        self._watchers = 0
        """Threads that wait, and one more when closed: whether a connection that comes back concerns anybody."""

    def take(self, deadline: float) -> Connection:
        """A connection, when `idle` was empty. Raises ClientClosed, DeadlineExceeded."""
        with self._ready:
            # counted before looking: whoever gives back afterwards sees the count and notifies
            self._watchers += 1
            try:
                while True:
                    if self._closed:
                        raise ClientClosed("the client is closed")
                    if self.idle:
                        return self.idle.pop()
                    if self.held:
                        self._free_one(deadline)
                        continue
                    if not self._ready.wait(deadline - monotonic()):
                        raise DeadlineExceeded("every connection was in use by other threads; raise pool_size")
            finally:
                self._watchers -= 1

    def _free_one(self, deadline: float) -> None:
        """Read answers that came for somebody who has not asked for them yet, this thread perhaps."""
        try:
            ahead = self.held.pop()
        except KeyError:
            return
        self._ready.release()
        try:
            ahead.settle(deadline)
        finally:
            self._ready.acquire()

    def take_several(self, idle: list[Connection], count: int) -> list[Connection] | None:
        """So many connections from a list that `idle` was, if there are as many at once."""
        taken: list[Connection] = []
        while len(taken) < count:
            connection = self.take_idle(idle)
            if connection is None:
                for one in taken:
                    self.give(idle, one)
                return None
            taken.append(connection)
        return taken

    def take_idle(self, idle: list[Connection]) -> Connection | None:
        """A connection from a list that `idle` was, if there is one at once."""
        try:
            return idle.pop()
        except IndexError:
            return None

    def give(self, idle: list[Connection], connection: Connection) -> None:
        """Give back to the list that it was popped from."""
        idle.append(connection)
        if self._watchers:
            self._attend(idle)

    def _attend(self, idle: list[Connection]) -> None:
        with self._ready:
            if self._closed:
                _close_all(idle)
            else:
                self._ready.notify()

    def close(self) -> None:
        """Close idle connections now and busy ones when they are given back."""
        with self._ready:
            if not self._closed:
                self._closed = True
                self._watchers += 1
                idle, self.idle = self.idle, []
                _close_all(idle)
                self._ready.notify_all()

    def forget(self) -> None:
        """In a child process: drop what belongs to the parent. Closing a copy of a descriptor leaves the parent's
        alone."""
        for connection in self._all:
            connection.close()
        if not self._closed:
            self._begin()


def _close_all(idle: list[Connection]) -> None:
    while idle:
        idle.pop().close()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
