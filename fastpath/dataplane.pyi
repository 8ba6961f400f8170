"""The data plane as the control plane sees it. One a process; every method is called with the GIL, from one thread."""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

PURPOSE_FIELD: Final = 0
PURPOSE_INDEX: Final = 1

class Options(NamedTuple):
    """Limits of the data plane; times in milliseconds, sizes in bytes."""

    workers: int
    cpus: tuple[int, ...]  # worker i is pinned to cpus[i]; empty: not pinned
    key_capacity: int  # data keys that the cache can hold; the arena must have been opened for as many
    max_frame: int = 8 << 20
    max_connections: int = 16384  # this and the three below: a peer may hold at most seven times what is left
    idle_timeout: int = 600_000
    stall_timeout: int = 30_000
    park_timeout: int = 5_000  # how long a request may wait for a data key
    park_requests: int = 65_536  # requests that may wait at once, all workers together; and data keys asked for
    park_bytes: int = 64 << 20  # and their bytes; always enough for one of max_frame
    buffer_bytes: int = 512 << 20  # half-received frames and unread responses; always enough for a frame of max_frame
    product: str = "keyside/0.1.0"

class Rule(NamedTuple):
    """Who may do what. A rule matches a peer when all of uid and gid that it gives match (gid: any of the peer's)."""

    uid: int | None
    gid: int | None
    # globs over `name` and `name/partition`: `*` matches any run of characters, `/` included; `?` one
    keyrings: tuple[str, ...]
    operations: int  # bit mask, 1 << op (protocol.md)
    rate: int  # items a second shared by all that the rule matches; 0: unlimited

class KeyMiss(NamedTuple):
    """DECRYPT or REENCRYPT met a data key that is not cached (or whose time is up)."""

    kind: Literal["key"]
    token: int
    key_id: int
    scope: str  # keyring or keyring/partition as the request named it
    uid: int  # of the peer that asks; requests of another peer for the same key are a miss of their own

class ScopeMiss(NamedTuple):
    """ENCRYPT, REENCRYPT or BLIND_INDEX found no usable active data key, or one whose message budget is spent."""

    kind: Literal["scope"]
    token: int
    scope: str
    purpose: int
    wanted: int  # messages that the waiting request needs
    uid: int  # of the peer that asks

class LowBudget(NamedTuple):
    """An active data key has used half of its last lease. Told once a lease; nobody waits."""

    kind: Literal["low"]
    token: int  # 0
    key_id: int
    scope: str

class HttpConnection(NamedTuple):
    """A connection whose first byte is a letter. The receiver owns `fd` (non-blocking, nothing read yet)."""

    kind: Literal["http"]
    token: int  # 0
    fd: int
    uid: int
    gid: int
    pid: int

Event = KeyMiss | ScopeMiss | LowBudget | HttpConnection

class CacheFull(Exception):
    """Every slot holds a key that may not be evicted."""

class DataPlane:
    def __init__(self, options: Options) -> None:
        """Allocate tables. Raises MemoryError, OSError. fastpath.memory.open() must have been called."""
    def start(self, listen_fd: int) -> None:
        """Start the workers on a listening, non-blocking Unix socket (the caller keeps ownership of it)."""
    def drain(self, timeout: float) -> bool:
        """Accept no more, answer SHUTTING_DOWN to new requests, wait until parked ones are answered and output is read.

        Returns False when `timeout` seconds were not enough. Releases the GIL; keep answering events from another
        thread or call with 0 repeatedly.
        """
    def stop(self) -> None:
        """Close every connection, end the workers, wipe every key. Idempotent."""
    def adopt(self, fd: int, uid: int, gid: int, pid: int, groups: Sequence[int] = ()) -> None:
        """Serve frames on a connected stream socket under the given identity; takes ownership of `fd`."""
    @property
    def event_fd(self) -> int:
        """An eventfd, readable when `events` has something."""
    def events(self, limit: int = 256) -> list[Event]:
        """Take up to `limit` events and re-arm `event_fd`; when it returns `limit` events, call again."""
    def set_policy(self, rules: Sequence[Rule]) -> None:
        """Replace the policy at once, for open connections too. No rule matches: DENIED."""

    # Key cache. `scope` is `name` or `name/partition`.
    def install(self, key_id: int, scope: str, purpose: int, key: bytearray, *, ttl: int, index_bits: int = 0) -> None:
        """Copy the 32 bytes of `key` into a slot and wipe `key` (also when it raises). `ttl` in milliseconds.

        Installing a key_id that is cached only renews its time. Evicts the least recently used keys when full; raises
        CacheFull.
        """
    def activate(self, key_id: int, budget: int) -> bool:
        """Make a cached key its scope's active one and add `budget` messages. False when it is not cached any more."""
    def add_budget(self, key_id: int, budget: int) -> bool:
        """Add messages to a cached key's budget. False when it is not cached (any more)."""
    def deactivate(self, scope: str, purpose: int) -> None:
        """The scope has no active key; the next request is a ScopeMiss."""
    def evict(self, key_id: int) -> bool:
        """Remove a key, wipe its slot and every key schedule made from it before returning. False when not cached."""
    def evict_scope(self, scope: str) -> int:
        """Evict every key of one scope; returns how many."""
    def contains(self, key_id: int) -> bool: ...
    def expiring(self, within: int, limit: int = 256) -> list[tuple[int, str, int]]:
        """(key_id, scope, purpose) of keys used since they were installed whose time ends within `within` ms."""
    def sweep(self) -> int:
        """Evict keys whose time is up; returns how many."""
    def refuse_key(self, key_id: int, scope: str, code: int, ttl: int) -> None:
        """Answer requests of `scope` for `key_id` with an error code for `ttl` milliseconds (negative cache)."""
    def refuse_scope(self, scope: str, purpose: int, code: int, ttl: int) -> None:
        """The same for a scope's active key."""
    def complete(self, token: int) -> None:
        """The miss `token` is settled, well or badly: run the requests that wait for it again.

        Unknown tokens are ignored.
        """
    def stats(self) -> dict[str, Any]:
        """Counters, gauges and latency histograms, summed over workers; see fastpath/stats.pyi for the keys."""
