"""Threads woken as the token needs them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from providers import Closed
from providers.pkcs11.workers import Seat, Workers

SIZE = 4
THREAD = "workers under test"


class Record:
    """What the workers did with seats and results."""

    def __init__(self) -> None:
        self.discarded: list[object] = []
        self.retired = 0

    def discard(self, result: object) -> None:
        self.discarded.append(result)

    def retire(self, _: Seat[int]) -> None:
        self.retired += 1


@pytest.fixture
def record() -> Record:
    return Record()


@pytest_asyncio.fixture
async def workers(record: Record) -> AsyncIterator[Workers[int]]:
    workers: Workers[int] = Workers(THREAD, SIZE, record.discard, record.retire)
    yield workers
    workers.close()
    await asyncio.to_thread(workers.join, 5)


def threads() -> int:
    return sum(thread.name.startswith(THREAD) for thread in threading.enumerate())


def seated(seat: Seat[int]) -> int:
    seat.holding = (seat.holding or 0) + 1
    return seat.holding


async def test_results_and_errors_come_back(workers: Workers[int]) -> None:
    def failing(_: Seat[int]) -> None:
        raise KeyError("x")

    assert await workers.run(lambda _: 42) == 42
    with pytest.raises(KeyError):
        await workers.run(failing)
    assert await workers.run(lambda _: 43) == 43


async def test_a_quick_token_is_left_to_few_threads(workers: Workers[int]) -> None:
    for _ in range(200):
        await workers.run(seated)
    assert await workers.run(seated) > 50, "one seat did the most"


async def test_a_slow_token_gets_a_thread_for_each_call(workers: Workers[int]) -> None:
    def slow(_: Seat[int]) -> None:
        time.sleep(0.05)

    for _ in range(3):
        await asyncio.gather(*(workers.run(slow) for _ in range(SIZE)))
    together = threading.Barrier(SIZE)  # which four in the token at once get past, and nobody else
    await asyncio.gather(*(workers.run(lambda _: together.wait(10)) for _ in range(2 * SIZE)))
    assert threads() == SIZE


async def test_a_hung_call_after_quick_ones_holds_nobody_up(workers: Workers[int]) -> None:
    for _ in range(100):
        await workers.run(lambda _: None)
    let_go = threading.Event()
    hung = [asyncio.create_task(workers.run(lambda _: let_go.wait(10))) for _ in range(SIZE - 1)]
    await asyncio.sleep(0.02)
    for _ in range(20):
        await asyncio.wait_for(workers.run(lambda _: None), 1)
    assert workers.usage.active == SIZE - 1
    let_go.set()
    assert await asyncio.gather(*hung) == [True] * (SIZE - 1)


async def test_a_result_is_not_kept_back_by_a_call_that_hangs(workers: Workers[int]) -> None:
    for _ in range(100):
        await workers.run(lambda _: None)
    let_go = threading.Event()
    quick = asyncio.create_task(workers.run(lambda _: 1))
    hung = asyncio.create_task(workers.run(lambda _: let_go.wait(10)))  # taken by the thread that did the quick one
    assert await asyncio.wait_for(quick, 1) == 1
    let_go.set()
    await hung


async def test_who_goes_away_leaves_the_result_to_be_discarded(workers: Workers[int], record: Record) -> None:
    let_go = threading.Event()
    late = bytearray(b"late")

    def slow(_: Seat[int]) -> bytearray:
        let_go.wait(10)
        return late

    caller = asyncio.create_task(workers.run(slow))
    await asyncio.sleep(0.02)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert workers.usage.active == 1, "its thread is still busy"
    let_go.set()
    await workers.run(lambda _: None)
    await asyncio.sleep(0.02)
    assert record.discarded == [late]
    assert workers.usage.active == 0


async def test_calls_beyond_the_threads_wait_and_may_give_up(workers: Workers[int]) -> None:
    let_go = threading.Event()
    busy = [asyncio.create_task(workers.run(lambda _: let_go.wait(10))) for _ in range(SIZE)]
    await asyncio.sleep(0.02)
    called = threading.Event()
    waiting = asyncio.create_task(workers.run(lambda _: called.set()))
    await asyncio.sleep(0.02)
    usage = workers.usage
    assert (usage.size, usage.active, usage.idle, usage.waiting) == (SIZE, SIZE, 0, 1)
    waiting.cancel()
    let_go.set()
    await asyncio.gather(*busy)
    assert not called.is_set()
    assert workers.usage.waiting == 0


async def test_closing_retires_every_seat(workers: Workers[int], record: Record) -> None:
    await asyncio.gather(*(workers.run(lambda _: time.sleep(0.02)) for _ in range(SIZE)))
    alive = threads()
    assert alive
    workers.close()
    await asyncio.to_thread(workers.join, 5)
    assert threads() == 0
    assert record.retired == alive
    with pytest.raises(Closed):
        await workers.run(lambda _: None)


async def test_a_loop_that_ended_does_not_trouble_a_thread(record: Record) -> None:
    let_go = threading.Event()

    def abandoned() -> Workers[int]:
        async def use() -> Workers[int]:
            workers: Workers[int] = Workers(THREAD, 1, record.discard, record.retire)
            task = asyncio.create_task(workers.run(lambda _: let_go.wait(10)))
            await asyncio.sleep(0.02)
            task.cancel()
            return workers

        return asyncio.run(use())

    workers = await asyncio.to_thread(abandoned)
    let_go.set()
    workers.close()
    await asyncio.to_thread(workers.join, 5)
    assert threads() == 0
    assert record.discarded == [True]
