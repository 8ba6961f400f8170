"""One timer for the deadlines of many calls."""

from __future__ import annotations

import asyncio
import time

import pytest

from providers.deadlines import DeadlineExpired, Deadlines


async def test_each_call_ends_at_its_own_time() -> None:
    deadlines, spent = Deadlines(0.15), []

    async def hang(after: float) -> None:
        await asyncio.sleep(after)
        began = time.monotonic()
        with pytest.raises(DeadlineExpired), deadlines.begin():
            await asyncio.sleep(60)
        spent.append(time.monotonic() - began)

    await asyncio.gather(*(hang(0.02 * number) for number in range(10)))
    assert len(spent) == 10
    assert min(spent) >= 0.149
    assert max(spent) < 1


async def test_what_ends_in_time_is_left_alone_and_the_timer_with_it() -> None:
    deadlines = Deadlines(0.05)
    for _ in range(3):
        with deadlines.begin():
            await asyncio.sleep(0)
        await asyncio.sleep(0.06)  # past the time of the call that has ended
        with pytest.raises(DeadlineExpired), deadlines.begin():
            await asyncio.sleep(60)


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    deadlines = Deadlines(60)

    async def call() -> None:
        with deadlines.begin():
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancellation_from_elsewhere_wins_over_a_deadline_of_the_same_moment() -> None:
    deadlines = Deadlines(0.01)

    async def call() -> None:
        with deadlines.begin():
            task.cancel()
            time.sleep(0.02)  # noqa: ASYNC251  # so that the deadline is past before the loop turns again
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_task_goes_on_after_its_deadline() -> None:
    deadlines = Deadlines(0.01)
    with pytest.raises(DeadlineExpired), deadlines.begin():
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)


async def test_an_error_of_the_call_is_not_hidden_by_the_deadline() -> None:
    deadlines = Deadlines(0.01)

    async def call() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise LookupError

    with pytest.raises(LookupError), deadlines.begin():
        await call()


async def test_nested_deadlines_end_the_inner_call_alone() -> None:
    outer, inner = Deadlines(60), Deadlines(0.01)
    with outer.begin():
        with pytest.raises(DeadlineExpired), inner.begin():
            await asyncio.sleep(60)
        await asyncio.sleep(0)


def test_a_new_loop_begins_anew() -> None:
    deadlines = Deadlines(0.05)

    async def hang() -> None:
        with pytest.raises(DeadlineExpired), deadlines.begin():
            await asyncio.sleep(60)

    async def brief() -> None:
        with deadlines.begin():
            await asyncio.sleep(0)

    asyncio.run(brief())  # leaves a timer behind that never fires
    asyncio.run(hang())
