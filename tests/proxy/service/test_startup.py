"""Decisions before the first request: allocator, limits, CPUs, and how many keys fit."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import pytest

from proxy.config.sections import MAX_WORKERS
from proxy.exits import Exit
from proxy.startup import (
    MOST_WORKERS,
    LowLockLimit,
    Placement,
    decide_key_capacity,
    lock_limit_advice,
    may_lock_without_limit,
    memory_line,
    overwriting_environment,
    place,
    raise_descriptor_limit,
    reexecute_with_overwriting_allocator,
    size,
    stand_back,
    usable_cpus,
)


class Arena:
    """A heap of 1 MiB a worker and 40 bytes a key."""

    def budget(self, key_capacity: int, workers: int) -> int:
        return (workers << 20) + 40 * key_capacity

    def fitting(self, limit_bytes: int, workers: int) -> int:
        return max(0, (limit_bytes - (workers << 20)) // 40)


class Report(NamedTuple):
    kind: str
    locked_bytes: int
    key_capacity: int


def test_the_environment_is_changed_once_and_keeps_other_tunables() -> None:
    wanted = overwriting_environment({"GLIBC_TUNABLES": "glibc.malloc.perturb=1:glibc.rtld.nns=8", "HOME": "/"})
    assert wanted is not None
    assert (wanted["PYTHONMALLOC"], wanted["HOME"]) == ("malloc", "/")
    tunables = wanted["GLIBC_TUNABLES"].split(":")
    assert "glibc.rtld.nns=8" in tunables
    assert "glibc.malloc.perturb=165" in tunables
    assert len(tunables) == len({word.split("=")[0] for word in tunables})
    assert overwriting_environment(wanted) is None


def test_the_process_executes_itself_with_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []

    def execute(path: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
        executed.append([path, *arguments])
        raise SystemExit  # a real one does not return either

    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "proxy.cli", "serve"])
    with pytest.raises(SystemExit):
        reexecute_with_overwriting_allocator({}, execute)
    assert executed == [[sys.executable, sys.executable, "-m", "proxy.cli", "serve"]]


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_a_python_that_ignores_its_environment_is_refused(home: Path, option: str) -> None:
    """It would believe that freed memory is overwritten, since the variable is there."""
    environ = {**os.environ, **(overwriting_environment(os.environ) or {})}
    # the checkout is not on the path that such a Python has, unless it is installed
    program = f"import sys; sys.path[:0] = {sys.path!r}; from proxy.cli import run; sys.exit(run(sys.argv[1:]))"
    words = [sys.executable, option, "-c", program, "serve", "--config", str(home / "none.yaml")]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == Exit.SYSTEM
    assert "-E or -I" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("workers", "pin", "cpus", "expected"),
    [
        ("auto", True, (0, 1), Placement(1, (1,), (0,))),
        ("auto", True, (0, 1, 4, 5), Placement(3, (1, 4, 5), (0,))),
        ("auto", True, (3,), Placement(1, (), ())),
        ("auto", False, (0, 1), Placement(1, (), ())),
        (2, True, (0, 1), Placement(2, (0, 1), ())),
        (1, True, (0, 1, 2, 3), Placement(1, (3,), (0, 1, 2))),
        (8, True, (0, 1), Placement(8, (), ())),
        ("auto", False, tuple(range(96)), Placement(64, (), ())),
        ("auto", True, tuple(range(96)), Placement(64, tuple(range(32, 96)), tuple(range(32)))),
    ],
)
def test_a_cpu_is_left_to_python_where_there_are_two(
    workers: int | Literal["auto"], pin: bool, cpus: tuple[int, ...], expected: Placement
) -> None:
    assert place(workers, pin, cpus) == expected


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 99), ("150000 100000", 2), ("10000 100000", 1), ("odd", 99)]
)
def test_a_control_group_quota_bounds_the_cpus(home: Path, text: str, count: int) -> None:
    (home / "cpu.max").write_text(text)
    assert len(usable_cpus(home / "cpu.max")) == min(count, len(os.sched_getaffinity(0)))
    assert len(usable_cpus(home / "none")) == len(os.sched_getaffinity(0))


def test_as_many_workers_as_the_data_plane_has_places_for() -> None:
    assert MOST_WORKERS == MAX_WORKERS == 64  # tests/fastpath/test_dataplane.py has it refuse 65


def test_auto_takes_what_fits_and_no_more_than_a_hundred_megabytes_worth() -> None:
    assert decide_key_capacity("auto", "refuse", 3 << 20, 1, Arena()).keys == (2 << 20) // 40
    assert decide_key_capacity("auto", "refuse", -1, 1, Arena()).keys == 131_072
    assert decide_key_capacity(5_000_000, "refuse", -1, 1, Arena()).keys == 5_000_000
    with pytest.raises(LowLockLimit, match="LimitMEMLOCK="):
        decide_key_capacity("auto", "refuse", (1 << 20) + 4000, 1, Arena())


def test_a_low_limit_refuses_or_degrades_and_says_what_to_raise() -> None:
    with pytest.raises(LowLockLimit) as refused:
        decide_key_capacity(100_000, "refuse", 2 << 20, 1, Arena())
    assert refused.value.exit_code == Exit.SYSTEM
    needed = Arena().budget(100_000, 1)
    for word in ("2 MiB", "26,214 data keys of 100,000", lock_limit_advice(needed), "cache.keys", "degrade"):
        assert word in str(refused.value)
    degraded = decide_key_capacity(100_000, "degrade", 2 << 20, 1, Arena())
    assert degraded.keys == 26_214
    assert degraded.warning is not None
    assert str(needed) in degraded.warning
    with pytest.raises(LowLockLimit):
        decide_key_capacity(100_000, "degrade", 1 << 20, 1, Arena())


def test_the_report_names_the_kind_of_memory_and_the_next_limit() -> None:
    line = memory_line(Report("memfd_secret", 8 << 20, 180_000), 1_800_000, 1, Arena())
    assert line.startswith(
        "locks 8 MiB for a cache of 180,000 data keys of 1,800,000; for all of them raise LimitMEMLOCK=73048576"
    )
    assert "secretmem.enable=1" in memory_line(Report("mlock", 8 << 20, 100), "auto", 1, Arena())
    assert "raise" not in memory_line(Report("memfd_secret", 8 << 20, 131_072), "auto", 1, Arena())


@pytest.mark.parametrize(
    ("count", "text"), [(-1, "unlimited"), (0, "0 B"), (1536, "1.5 KiB"), (8 << 20, "8 MiB"), (5 << 40, "5120 GiB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("line", "may"), [("CapEff:\t0000000000004000", True), ("CapEff:\t0000000000003fff", False), ("", False)]
)
def test_the_privilege_to_lock(home: Path, line: str, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    status, namespace = home / "status", home / "user"
    namespace.touch()
    status.write_text(f"Name:\tx\n{line}\n")
    # a capability held in a container's own user namespace lifts no limit
    assert may_lock_without_limit(status, namespace) is False
    monkeypatch.setattr("proxy.startup.INITIAL_USER_NAMESPACE", namespace.stat().st_ino)
    assert may_lock_without_limit(status, namespace) is may


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_python_threads_are_placed_and_workers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: dict[int, tuple[int, ...]] = {}
    niced: dict[int, int] = {}
    monkeypatch.setattr("os.sched_setaffinity", lambda thread, cpus: placed.__setitem__(thread, cpus))
    monkeypatch.setattr("os.setpriority", lambda _, thread, niceness: niced.__setitem__(thread, niceness))
    stand_back((0,))
    threads = {thread.native_id for thread in threading.enumerate()}
    assert placed.keys() == niced.keys() == threads
    assert set(niced.values()) == {10}
    placed.clear()
    stand_back(())
    assert placed == {}
