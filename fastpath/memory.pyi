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

def open(  # noqa: A001 - read as memory.open(); no builtin is used in this file
    key_capacity: int, workers: int, *, secretmem: bool = True
) -> MemoryReport:
    """Reserve and lock the arena, send OpenSSL's allocations there, run its self-check.

    `secretmem` False: locked anonymous memory even where the kernel has memfd_secret(2), which keeps a machine from
    hibernating. Raises MemoryLimit (then it may be called again, for fewer keys), OSError, ValueError; RuntimeError
    when the arena is open already or OpenSSL fails its known-answer test.
    """

def report() -> MemoryReport | None:
    """What open() returned; None before. Raises RuntimeError in a forked child: the arena stays with its process."""

def harden() -> list[str]:
    """PR_SET_DUMPABLE 0, PR_SET_NO_NEW_PRIVS, RLIMIT_CORE 0; returns one line for each that could not be had."""

def wipe(secret: bytes | bytearray | memoryview) -> None:
    """Overwrite an object's bytes in place, immutable ones too. Only for objects nobody else may hold (not interned).

    Raises ValueError for read-only objects shorter than 16 bytes, which the interpreter may share, and BufferError for
    a view that is not contiguous.
    """
