"""What happens before the first request can be served, and what is said when it cannot.

StartupError        the sidecar cannot start; the message names the remedy, `exit_code` is the process's
├── LowLockLimit    fewer data keys fit in locked memory than configured
└── SocketInTheWay  a socket path cannot be listened on (proxy/listener.py)
"""

import os
import resource
import sys
import threading
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn, Protocol

from proxy.exits import Exit

# Freed memory is overwritten at once: without these two, a data key that an SDK handed over as base64 stays readable in
# the heap. malloc: Python's own allocator never reaches glibc's free(). tcache_count=0: freed chunks do not rest in a
# cache first. perturb: free() overwrites. arena_max: a heap a thread would cost resident memory for nothing.
ALLOCATOR: Final = "malloc"
TUNABLES: Final = {
    "glibc.malloc.tcache_count": "0",
    "glibc.malloc.perturb": "165",
    "glibc.malloc.arena_max": "2",
}
# The lazy binder saves vector registers on the stack while it looks a symbol up, and with them what memcpy moved last:
# half a data key was found there. Bound at start, no symbol is looked up later.
LOADER: Final = {"LD_BIND_NOW": "1"}
# looking for plugins loads importlib.metadata and more, and would run the code of other packages beside the keys
NO_PLUGINS: Final = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}

# With `keys: auto`, what a sidecar takes when the lock limit would allow more (16 MiB of slots, a hundred thousand
# users' keys), and the least it starts with: below that, a handful of users would evict one another's keys all day.
AUTO_KEYS_MOST: Final = 131_072
AUTO_KEYS_LEAST: Final = 256

MOST_WORKERS: Final = 64
"""Threads that the data plane has places for (fastpath/keycache.pxd)."""

INITIAL_USER_NAMESPACE: Final = 0xEFFFFFFD
"""Inode number of the namespace that the machine started with (include/linux/proc_ns.h, PROC_USER_INIT_INO)."""

OnLowLockLimit = Literal["refuse", "degrade"]


class StartupError(Exception):
    """The sidecar cannot start. The message is one line for people, and says what to do."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LowLockLimit(StartupError):
    """The lock limit is too low for the configured number of data keys."""


def overwriting_environment(environ: MutableMapping[str, str]) -> dict[str, str] | None:
    """The environment under which freed memory is overwritten, or None when it is in force already.

    An operator's own tunables are kept unless they contradict ours.
    """
    tunables = dict(word.split("=", 1) for word in environ.get("GLIBC_TUNABLES", "").split(":") if "=" in word)
    wanted = {"PYTHONMALLOC": ALLOCATOR} | LOADER
    if wanted.items() <= dict(environ).items() and TUNABLES.items() <= tunables.items():
        return None
    words = ":".join(f"{name}={value}" for name, value in (tunables | TUNABLES).items())
    return {**environ, **NO_PLUGINS, **wanted, "GLIBC_TUNABLES": words}


def reexecute_with_overwriting_allocator(
    environ: MutableMapping[str, str],
    execute: Callable[[str, list[str], dict[str, str]], NoReturn] = os.execve,
) -> None:
    """Replace this process by itself, once, so that freed memory is overwritten. Pid and descriptors stay.

    Raises StartupError under `python -E` or `-I`: there PYTHONMALLOC stands in the environment and counts for nothing,
    now and after any number of new starts.
    """
    if sys.flags.ignore_environment:
        raise StartupError(
            "this Python ignores its environment (-E or -I), PYTHONMALLOC with it, and freed memory would keep data "
            "keys; start without these options (-s -P keep other folders' modules out)",
            Exit.SYSTEM,
        )
    if (wanted := overwriting_environment(environ)) is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    execute(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE to its hard limit: each connection costs a descriptor. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def raise_lock_limit() -> int:
    """Raise RLIMIT_MEMLOCK to its hard limit. Returns it in bytes, -1 when there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return -1 if hard == resource.RLIM_INFINITY else hard


def may_lock_without_limit(
    status: Path = Path("/proc/self/status"), namespace: Path = Path("/proc/self/ns/user")
) -> bool:
    """Whether this process has CAP_IPC_LOCK where it counts, so that RLIMIT_MEMLOCK does not.

    The kernel asks for it in the first user namespace: root of a container with a namespace of its own has not got it.
    """
    # a kernel built without user namespaces has no such file
    if namespace.exists() and namespace.stat().st_ino != INITIAL_USER_NAMESPACE:
        return False
    cap_ipc_lock = 14
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> cap_ipc_lock & 1)
    return False


def usable_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> tuple[int, ...]:
    """The CPUs this process may run on, no more of them than its control group's quota pays for."""
    cpus = sorted(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
    except (OSError, ValueError):
        return tuple(cpus)
    if limit == "max":
        return tuple(cpus)
    return tuple(cpus[: max(1, -(-int(limit) // int(period)))])


@dataclass(frozen=True)
class Placement:
    """Which CPUs workers are pinned to, and which are left to Python; empty: wherever the kernel likes."""

    workers: int
    worker_cpus: tuple[int, ...]
    control_cpus: tuple[int, ...]


def place(workers: int | Literal["auto"], pin: bool, cpus: tuple[int, ...]) -> Placement:
    """One CPU stays with the control plane when there are two or more, so that Python can never delay a worker."""
    count = min(max(1, len(cpus) - 1), MOST_WORKERS) if workers == "auto" else workers
    if not pin or len(cpus) < 2 or count > len(cpus):
        return Placement(count, (), ())
    # the control plane takes the lowest CPUs, where the kernel handles most interrupts
    worker_cpus = cpus[len(cpus) - count :]
    return Placement(count, worker_cpus, cpus[: len(cpus) - count] or ())


def stand_back(cpus: tuple[int, ...], niceness: int = 10) -> None:
    """Make every Python thread give way to the data plane's workers; threads that they start later do so too.

    The workers were started before and keep their place. `cpus`: where Python may run; empty: anywhere.
    """
    for thread in threading.enumerate():
        if (native := thread.native_id) is None:
            continue
        # a thread may end meanwhile, and a seccomp profile may forbid placing one: the service runs all the same
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, native, niceness)
            if cpus:
                os.sched_setaffinity(native, cpus)


class SecretMemory(Protocol):
    """The part of fastpath.memory that sizes the arena."""

    def budget(self, key_capacity: int, workers: int) -> int: ...

    def fitting(self, limit_bytes: int, workers: int) -> int: ...


@dataclass(frozen=True)
class KeyCapacity:
    keys: int
    warning: str | None  # what was cut down, and how to get it back


def decide_key_capacity(
    wanted: int | Literal["auto"],
    on_low_lock_limit: OnLowLockLimit,
    limit_bytes: int,
    workers: int,
    memory: SecretMemory,
) -> KeyCapacity:
    """How many data keys the cache will hold under a lock limit in bytes (-1: none). Raises LowLockLimit."""
    fits = None if limit_bytes < 0 else memory.fitting(limit_bytes, workers)
    if wanted == "auto":
        keys = AUTO_KEYS_MOST if fits is None else min(fits, AUTO_KEYS_MOST)
        least, asked = AUTO_KEYS_LEAST, AUTO_KEYS_LEAST
    else:
        keys = wanted if fits is None else min(fits, wanted)
        least, asked = wanted, wanted
    if keys >= least:
        return KeyCapacity(keys, None)
    shortage = (
        f"the lock limit of {size(limit_bytes)} fits {max(keys, 0):,} data keys of {asked:,}; "
        f"raise it to {lock_limit_advice(memory.budget(asked, workers))}"
    )
    if on_low_lock_limit == "degrade" and keys > 0:
        return KeyCapacity(keys, f"{shortage}. Serving with {keys:,}, as cache.on_low_lock_limit: degrade asks.")
    lower = "" if wanted == "auto" else f", lower cache.keys to {max(keys, 1):,},"
    raise LowLockLimit(
        f"{shortage}{lower}" + (" or set cache.on_low_lock_limit: degrade" if keys > 0 else ""), Exit.SYSTEM
    )


class MemoryReport(Protocol):
    """fastpath.memory.MemoryReport."""

    @property
    def kind(self) -> str: ...
    @property
    def locked_bytes(self) -> int: ...
    @property
    def key_capacity(self) -> int: ...


def memory_line(report: MemoryReport, wanted: int | Literal["auto"], workers: int, memory: SecretMemory) -> str:
    """The start-up report: what is locked and what fits; and, where that is less than `wanted`, what to raise."""
    most = AUTO_KEYS_MOST if wanted == "auto" else wanted
    where = (
        "memory that the kernel hides from every other process (memfd_secret)"
        if report.kind == "memfd_secret"
        else "locked memory that root can read (mlock): this kernel has no memfd_secret; boot with secretmem.enable=1"
    )
    remedy = (
        f" of {most:,}; for all of them raise {lock_limit_advice(memory.budget(most, workers))}"
        if report.key_capacity < most
        else ""
    )
    return (
        f"locks {size(report.locked_bytes)} for a cache of {report.key_capacity:,} data keys{remedy}. "
        f"Keys are in {where}."
    )


def lock_limit_advice(needed_bytes: int) -> str:
    """The settings that give a process so many bytes of locked memory, for a service, a shell and a container."""
    return (
        f"LimitMEMLOCK={needed_bytes} (systemd), ulimit -l {-(-needed_bytes // 1024)} (shell) "
        f"or --ulimit memlock={needed_bytes} (container)"
    )


def size(count: int) -> str:
    """Bytes for people: 8 MiB, 512 KiB, 12.5 MiB."""
    if count < 0:
        return "unlimited"
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
