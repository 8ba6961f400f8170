"""The native load generator: one thread, no GIL while it runs."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from benchmarks.histogram import Histogram

class Exchange(NamedTuple):
    """A prepared request and what a right answer to it looks like."""

    request: bytes  # a whole frame; in the framing "keyside" its id is a uint32 right behind the array header
    items: int  # in the answer
    item_bytes: int  # length of each of them
    reply: bytes = (
        b""  # the items one after another; empty: envelopes, of which only the length and two bytes are known
    )

class Run(NamedTuple):
    """What one run measured."""

    good: int  # requests answered as expected
    items: int  # in those answers
    seconds: float  # from the first request to the last answer
    latency: Histogram  # of good requests
    lateness: Histogram  # open loop: how long after its time a request was handed to the kernel
    errors: dict[str, int]  # by code of the protocol, or closed, malformed, mismatch, timeout, refused
    finished: list[float]  # for each connection, seconds from the start to its last answer
    samples: list[tuple[int, bytes]]  # (index of the exchange, answer without its length) of requests 1, 2, 4, 8 ...

    @property
    def rate(self) -> float:
        """Items a second."""
    @property
    def failed(self) -> int:
        """All errors together."""

def closed_loop(
    path: str,
    exchanges: Sequence[Exchange],
    *,
    framing: Literal["keyside", "limit"] = "keyside",
    connections: int = 1,
    depth: int = 1,
    rounds: int = 0,
    seconds: float = 0.0,
    patience: float = 10.0,
) -> Run:
    """Each connection writes `depth` requests at once, reads until all are answered, and begins again.

    Ends after `rounds` of that on each connection or `seconds`, whichever is first (0: no such end). One connection
    blocks in read(2); more share an epoll. Without any answer for `patience` seconds a run is given up. Latency is
    from before the write to the read that brought the answer. Raises ValueError for impossible arguments, MemoryError.
    """

def open_loop(
    path: str,
    exchanges: Sequence[Exchange],
    *,
    rate: float,
    seconds: float,
    framing: Literal["keyside", "limit"] = "keyside",
    connections: int = 1,
    window: int = 4096,
    patience: float = 10.0,
) -> Run:
    """Requests leave at fixed times, `rate` a second over all connections, however slowly answers come.

    Latency is from the time a request was due, so a stall counts for every request that it delayed, sent or not (no
    coordinated omission). At most `window` requests of a connection are unanswered at once; later ones wait, their
    clock running. Raises as `closed_loop`.
    """
