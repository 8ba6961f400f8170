"""Opening the secret arena, once a process, before any DataPlane."""

from typing import Literal, NamedTuple

class MemoryReport(NamedTuple):
    kind: Literal["memfd_secret", "mlock"]
    locked_bytes: int  # bytes locked by the arena
    limit_bytes: int  # RLIMIT_MEMLOCK, -1: unlimited
    privileged: bool  # CAP_IPC_LOCK: the limit does not bind
    heap_bytes: int
    key_capacity: int
    bytes_per_key: int

class MemoryLimit(OSError):
    """The lock limit is too low; the message names the limit needed and how to raise it."""

def budget(key_capacity: int, workers: int) -> int:
    """Bytes that an arena for so many keys and workers locks."""

def fitting(limit_bytes: int, workers: int) -> int:
    """How many data keys fit under a lock limit in bytes."""

def open(key_capacity: int, workers: int) -> MemoryReport:
    """Reserve and lock the arena, send OpenSSL's allocations there, run its self-check. Raises MemoryLimit, OSError, RuntimeError (twice)."""

def report() -> MemoryReport | None: ...

def harden() -> list[str]:
    """PR_SET_DUMPABLE 0, PR_SET_NO_NEW_PRIVS, RLIMIT_CORE 0; returns one line for each that could not be had."""

def wipe(secret: bytes | bytearray | memoryview) -> None:
    """Overwrite an object's bytes in place, immutable ones too. Only for objects nobody else may hold (not interned)."""
