"""Opening the secret arena, once a process, and what else keeps keys out of reach; see memory.pyi.

    OSError
        MemoryLimit   RLIMIT_MEMLOCK does not cover the arena
"""

import builtins
import os
import resource
from typing import NamedTuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


from fastpath.aead cimport (
    CRYPTO_NO_ALGORITHM,
    CRYPTO_NO_ALLOCATOR,
    CRYPTO_NO_MEMORY,
    CRYPTO_NO_RANDOM,
    CRYPTO_READY,
    CRYPTO_WRONG_ANSWER,
    KEY_BYTES,
    CryptoState,
    crypto_init,
)
from fastpath.arena cimport (
    ARENA_SECRETMEM,
    arena_key_bytes,
    arena_kind,
    arena_open,
    arena_usable,
    secret_wipe,
)
from fastpath.linux cimport PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, errno, prctl
from fastpath.mapping cimport page_bytes

HEAP_BASE = 768 << 10    # OpenSSL's tables, the main thread's and the control plane's contexts
HEAP_WORKER = 128 << 10  # a worker's cipher contexts, MAC context, random generator and thread cache
LARGEST_CAPACITY = 1 << 31
MOST_WORKERS = 1024
CAP_IPC_LOCK = 14
USER_NAMESPACE = "/proc/self/ns/user"
INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # include/linux/proc_ns.h, PROC_USER_INIT_INO
SHORTEST_WIPED = 16

CRYPTO_FAILURES = {
    <int>CRYPTO_NO_ALLOCATOR: "OpenSSL ran before the secret arena was there: call fastpath.memory.open() earlier",
    <int>CRYPTO_NO_MEMORY: "OpenSSL could not start in the secret arena: report this, with the OpenSSL of the build",
    <int>CRYPTO_NO_ALGORITHM: "this OpenSSL has no AES-256-GCM or no HMAC: build against a complete OpenSSL 3",
    <int>CRYPTO_WRONG_ANSWER: "OpenSSL failed its known-answer test: do not encrypt with this build or this machine",
    <int>CRYPTO_NO_RANDOM: "the operating system gave no random seed: is getrandom(2) allowed here?",
}

opened = None


class MemoryLimit(OSError):
    """The lock limit is too low; the message names the limit needed and how to raise it."""


class MemoryReport(NamedTuple):
    kind: str
    locked_bytes: int
    limit_bytes: int
    privileged: bool
    heap_bytes: int
    key_capacity: int
    bytes_per_key: int


def heap_bytes_for(workers: int) -> int:
    if not 0 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers is from 0 to {MOST_WORKERS}")
    return whole_pages(HEAP_BASE + workers * HEAP_WORKER)


def whole_pages(n: int) -> int:
    return -(-n // page_bytes()) * page_bytes()


def budget(key_capacity: int, workers: int) -> int:
    if not 0 < key_capacity <= LARGEST_CAPACITY:
        raise ValueError(f"key_capacity is from 1 to {LARGEST_CAPACITY}")
    return heap_bytes_for(workers) + whole_pages(key_capacity * KEY_BYTES)


def fitting(limit_bytes: int, workers: int) -> int:
    keys = (limit_bytes - heap_bytes_for(workers)) // page_bytes() * page_bytes() // KEY_BYTES
    return min(max(keys, 0), LARGEST_CAPACITY)


def lock_limit() -> int:
    # RLIM_INFINITY is -1 here, too
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def status_field(name: str) -> str:
    with builtins.open("/proc/self/status") as status:
        for line in status:
            if line.startswith(name + ":"):
                return line.partition(":")[2].split()[0]
    return "0"


def privileged() -> bool:
    # the kernel asks for the capability in the first user namespace; one held inside a container's own does not count
    # and a kernel built without user namespaces has no such file
    if os.path.exists(USER_NAMESPACE) and os.stat(USER_NAMESPACE).st_ino != INITIAL_USER_NAMESPACE:
        return False
    return bool(int(status_field("CapEff"), 16) >> CAP_IPC_LOCK & 1)


def refusal(needed: int, workers: int, failure: int) -> OSError:
    limit = lock_limit()
    locked = int(status_field("VmLck")) << 10
    kib = -(-(needed + locked) >> 10)
    if limit == resource.RLIM_INFINITY or needed + locked <= limit or privileged():
        return OSError(failure, f"cannot reserve {needed} bytes for keys: {os.strerror(failure)}")
    return MemoryLimit(
        failure,
        f"cannot lock {needed} bytes for keys: RLIMIT_MEMLOCK is {limit} bytes, of which {locked} are in use. "
        f"Raise it to {kib << 10} bytes or more (LimitMEMLOCK={kib}K in the systemd unit, 'ulimit -l {kib}' in a "
        f"shell, '--ulimit memlock={kib << 10}' for a container), or grant CAP_IPC_LOCK, or cache fewer keys: "
        f"{fitting(limit - locked, workers)} fit",
    )


def open(key_capacity: int, workers: int, *, secretmem: bool = True) -> MemoryReport:
    global opened
    cdef size_t heap_bytes, key_bytes
    cdef int failure
    cdef CryptoState state
    if opened is not None:
        raise RuntimeError("the secret arena is open already, in this process or in the one it was forked from")
    needed = budget(key_capacity, workers)
    heap_bytes = heap_bytes_for(workers)
    key_bytes = needed - heap_bytes
    failure = -arena_open(heap_bytes, key_bytes, secretmem)
    if failure != 0:
        raise refusal(needed, workers, failure)
    state = crypto_init()
    opened = MemoryReport(
        kind="memfd_secret" if arena_kind() == ARENA_SECRETMEM else "mlock",
        locked_bytes=heap_bytes + arena_key_bytes(),
        limit_bytes=lock_limit(),
        privileged=privileged(),
        heap_bytes=heap_bytes,
        key_capacity=key_capacity,
        bytes_per_key=KEY_BYTES,
    )
    if state != CRYPTO_READY:
        raise RuntimeError(CRYPTO_FAILURES[<int>state])
    return opened


def report() -> MemoryReport | None:
    if opened is not None and not arena_usable():
        raise RuntimeError("this is a child process; the secret arena stays with the process that opened it")
    return opened


def harden() -> list[str]:
    shortfalls = []
    if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        shortfalls.append(f"the process can be traced by its own user: PR_SET_DUMPABLE: {os.strerror(errno)}")
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        shortfalls.append(f"programs it starts may gain privileges: PR_SET_NO_NEW_PRIVS: {os.strerror(errno)}")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        shortfalls.append(f"a crash may write a core file: RLIMIT_CORE: {error}")
    return shortfalls


def wipe(secret: bytes | bytearray | memoryview) -> None:
    cdef Py_buffer view
    if not isinstance(secret, (bytes, bytearray, memoryview)):
        raise TypeError("only bytes, bytearray and memoryview can be wiped")
    PyObject_GetBuffer(secret, &view, PyBUF_SIMPLE)
    try:
        if view.readonly and view.len < SHORTEST_WIPED:
            raise ValueError(f"bytes shorter than {SHORTEST_WIPED} may be shared with other code and are not wiped")
        secret_wipe(view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
