"""The allocator inside the secret arena: what a block promises, exhaustion, threads, and pointers that lie."""

from __future__ import annotations

import ctypes
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from fastpath import memory
from tests.fastpath.processes import run

SIZES = [0, 1, 15, 16, 17, 100, 112, 113, 2031, 2032, 2033, 4080, 4081, 70_000]


@pytest.mark.parametrize("n", SIZES)
def test_a_block_is_aligned_and_zero(probe: ModuleType, n: int) -> None:
    blocks = [probe.malloc(n) for _ in range(5)]
    assert all(block and block % 16 == 0 for block in blocks)
    assert len(set(blocks)) == 5
    for block in blocks:
        assert ctypes.string_at(block, n) == bytes(n)
        probe.release(block)


@pytest.mark.parametrize("n", [n for n in SIZES if n > 8])
def test_a_block_is_wiped_when_it_is_freed(probe: ModuleType, n: int) -> None:
    block = probe.malloc(n)
    ctypes.memset(block, 0xA5, n)
    probe.release(block)
    # the first word of a free block may link to the next one
    assert ctypes.string_at(block + 8, n - 8) == bytes(n - 8)


@pytest.mark.parametrize(("old", "new"), [(40, 4000), (4000, 40), (5000, 50_000), (24, 30), (30, 24), (100, 100)])
def test_a_block_that_moves_keeps_its_bytes_and_leaves_none_behind(probe: ModuleType, old: int, new: int) -> None:
    block = probe.malloc(old)
    ctypes.memset(block, 0x5A, old)
    moved = probe.realloc(block, new)
    kept = min(old, new)
    assert ctypes.string_at(moved, new) == b"\x5a" * kept + bytes(new - kept)
    if moved != block:
        assert b"\x5a" not in ctypes.string_at(block + 8, old - 8)
    probe.release(moved)


def test_realloc_of_nothing_allocates(probe: ModuleType) -> None:
    block = probe.realloc(0, 10)
    assert block
    probe.release(block)
    probe.release(0)


@pytest.mark.parametrize("n", [24, 1000, 2032, 9000, 100_000])
def test_a_full_heap_answers_null_and_recovers(probe: ModuleType, arena: memory.MemoryReport, n: int) -> None:
    blocks = []
    while block := probe.malloc(n):
        blocks.append(block)
    assert len(blocks) * n < arena.heap_bytes
    # what is left over for other sizes must not be torn out of anybody's hands
    assert probe.realloc(blocks[0], arena.heap_bytes) == 0
    for block in blocks:
        probe.release(block)
    again = []
    while block := probe.malloc(n):
        again.append(block)
    assert len(again) >= len(blocks)
    for block in again:
        probe.release(block)


def test_pages_of_one_size_serve_another_once_they_are_free(probe: ModuleType, arena: memory.MemoryReport) -> None:
    small = []
    while block := probe.malloc(24):
        small.append(block)
    assert probe.malloc(arena.heap_bytes // 4) == 0
    for block in reversed(small):
        probe.release(block)
    large = probe.malloc(arena.heap_bytes // 4)
    assert large
    probe.release(large)


@pytest.mark.parametrize("n", [1 << 30, 1 << 32, (1 << 64) - 1, (1 << 64) - 16])
def test_absurd_sizes_are_refused(probe: ModuleType, n: int) -> None:
    assert probe.malloc(n) == 0


def test_no_two_threads_ever_share_a_block(probe: ModuleType) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda seed: probe.churn(seed, 40_000, 64), range(1, 9))) == 0


def test_a_heap_under_pressure_breaks_no_promise(probe: ModuleType) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda seed: probe.churn(seed, 20_000, 3000), range(100, 104))) == 0


def test_blocks_may_be_freed_by_another_thread(probe: ModuleType) -> None:
    for _ in range(20):
        blocks = [probe.malloc(n) for n in (24, 300, 2000, 6000) for _ in range(20)]
        freeing = threading.Thread(target=lambda mine=blocks: [probe.release(block) for block in mine])
        freeing.start()
        freeing.join()


def test_a_thread_that_ends_gives_its_free_lists_back(probe: ModuleType, arena: memory.MemoryReport) -> None:
    def use() -> None:
        for n in (24, 200, 500, 1000, 2000):
            probe.release(probe.malloc(n))

    for _ in range(arena.heap_bytes // 4096):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    # each of those threads would have kept a page or more a size
    large = probe.malloc(arena.heap_bytes // 3)
    assert large
    probe.release(large)


def test_a_thread_may_give_its_free_lists_back_early_and_go_on(probe: ModuleType) -> None:
    block = probe.malloc(100)
    probe.thread_exit()
    probe.thread_exit()
    probe.release(block)
    assert probe.churn(7, 1000, 16) == 0


def test_key_slots_are_aligned_and_large_enough(probe: ModuleType, arena: memory.MemoryReport) -> None:
    base, n = probe.keys()
    assert base % 64 == 0
    assert n >= arena.key_capacity * arena.bytes_per_key


ABUSES = {
    "freed twice": "p = probe.malloc(50); probe.release(p); probe.release(p)",
    "large, freed twice": "p = probe.malloc(9000); probe.release(p); probe.release(p)",
    "written below its start": "p = probe.malloc(50); ctypes.memset(p - 1, 0x77, 1); probe.release(p)",
    "its neighbour written over": "p, q = probe.malloc(48), probe.malloc(48); ctypes.memset(min(p, q), 1, 50); "
    "probe.release(max(p, q)); probe.release(min(p, q))",
    "inside a block": "probe.release(probe.malloc(500) + 64)",
    "not aligned": "probe.release(probe.malloc(500) + 3)",
    "from another allocator": "probe.release(ctypes.addressof(ctypes.create_string_buffer(100)) & ~15)",
    "a key slot": "probe.release(probe.keys()[0] + 64)",
    "moved after it was freed": "p = probe.malloc(50); probe.release(p); probe.realloc(p, 60)",
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_a_pointer_that_lies_ends_the_process_with_a_message(probe_folder: Path, abuse: str) -> None:
    done = run(
        f"""
        import ctypes, probe
        from fastpath import memory
        memory.open(100, 1)
        {ABUSES[abuse]}
        """,
        probe_folder,
    )
    assert done.returncode == -signal.SIGABRT
    assert "keyside: secret arena: " in done.stderr


@pytest.mark.parametrize("secretmem", [True, False])
@pytest.mark.parametrize("address", ["low - 1", "high", "keys - 1", "keys + n"])
def test_guard_pages_stop_what_runs_over(probe_folder: Path, address: str, secretmem: bool) -> None:
    done = run(
        f"""
        import ctypes, probe
        from fastpath import memory
        report = memory.open(100, 1, secretmem={secretmem})
        keys, n = probe.keys()
        high = keys - 4096
        low = high - report.heap_bytes
        assert ctypes.string_at(low, report.heap_bytes) and ctypes.string_at(keys, n) == bytes(n)
        print("within", flush=True)
        ctypes.string_at({address}, 1)
        print("beyond", flush=True)
        """,
        probe_folder,
    )
    # a sanitizer reports the fault and aborts
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT)
    assert done.stdout == "within\n"


def test_nothing_can_be_had_before_the_arena_is_open(probe_folder: Path) -> None:
    done = run(
        """
        import probe
        assert not probe.usable() and probe.malloc(10) == 0 and probe.keys() == (0, 0)
        assert probe.realloc(0, 10) == 0
        probe.release(0)
        probe.thread_exit()
        assert probe.open_bare(0, 4096) < 0 and probe.open_bare(4096, 0) < 0 and probe.open_bare(1 << 40, 4096) < 0
        assert probe.open_bare(1 << 20, 1) == 0 and probe.open_bare(1 << 20, 1) < 0
        assert probe.usable()
        """,
        probe_folder,
    )
    assert done.returncode == 0, done.stderr
