"""The way to the sidecar: every exchange is one round trip, and is counted."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from keyside.ahead import Ahead
from keyside.batches import Job, Results
from keyside.client import Client
from keyside.errors import KeysideError
from keyside.fields.declaration import Place
from keyside.fields.errors import UnbatchedCall, UnbatchedWarning

Replies: TypeAlias = "list[Results | KeysideError]"
Send: TypeAlias = Callable[[list[Job]], Replies]
"""Sends several requests in one round trip. An asyncio client is wrapped by whoever can wait for it."""

Unbatched = Literal["warn", "error", "allow"]


class RoundTrips:
    """How often the hooks have asked the sidecar."""

    def __init__(self) -> None:
        self.count = 0
        self.unbatched = 0
        """How many of them were for one value alone because it could not be batched."""


_watching: list[RoundTrips] = []
_lock = threading.Lock()


@contextmanager
def counted() -> Iterator[RoundTrips]:
    """Counts the round trips of all threads while the block runs."""
    trips = RoundTrips()
    with _lock:
        _watching.append(trips)
    try:
        yield trips
    finally:
        with _lock:
            _watching.remove(trips)


def note_round_trip() -> None:
    for trips in _watching:
        trips.count += 1


class Sender:
    """Sends through a blocking client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, jobs: list[Job]) -> Replies:
        note_round_trip()
        return self._client.pipeline(jobs)

    def ahead(self, groups: list[list[Job]]) -> list[Ahead]:
        """Sends groups of requests in one round trip; the results of each are waited for when they are asked for."""
        if any(groups):
            note_round_trip()
        return self._client.pipeline_ahead(groups)


def note_unbatched(place: Place, policy: Unbatched) -> None:
    """Says, as the application wants it, that one value takes a round trip of its own. Raises UnbatchedCall."""
    for trips in _watching:
        trips.unbatched += 1
    if policy == "error":
        raise UnbatchedCall(
            "this statement reads or writes one value a round trip, and unbatched is 'error'", place.table, place.column
        )
    if policy == "warn":
        warnings.warn(
            f"{place.table}.{place.column}: one round trip for one value; see docs/orm on batching",
            UnbatchedWarning,
            stacklevel=4,
        )
