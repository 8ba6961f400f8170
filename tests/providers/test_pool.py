"""Connections: bounded, reused, replaced, counted, and never waited for when they die."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from providers.errors import Closed, Denied, Tampered, Timeout, Unavailable
from providers.pool import PARTING_SECONDS, Pool, PoolUsage


class Factory:
    """Makes connections (numbers) and keeps count."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.disposed: list[int] = []
        self.failures: list[Exception] = []
        self.unusable: set[int] = set()
        self.hang = False

    async def make(self) -> int:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        return next(self._numbers)

    async def dispose(self, connection: int) -> None:
        if self.hang:
            await asyncio.Event().wait()
        self.disposed.append(connection)
        if connection == 13:
            raise OSError("gone already")

    def pool(self, size: int = 2, max_age: float = 60) -> Pool[int]:
        return Pool(
            self.make, self.dispose, size=size, max_age=max_age, usable=lambda number: number not in self.unusable
        )


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest_asyncio.fixture
async def pool(factory: Factory) -> AsyncIterator[Pool[int]]:
    pool = factory.pool()
    yield pool
    await asyncio.wait_for(pool.close(), 2 * PARTING_SECONDS)


async def once(pool: Pool[int], error: BaseException | None = None) -> int:
    async with pool.lease() as number:
        if error is not None:
            raise error
    return number


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_at_a_time_needs_one_connection(pool: Pool[int]) -> None:
    assert [await once(pool) for _ in range(5)] == [0] * 5
    assert pool.usage == PoolUsage(size=2, active=0, idle=1, waiting=0)


async def test_never_more_than_its_size_and_the_rest_waits_in_order(pool: Pool[int]) -> None:
    release, served = asyncio.Event(), []

    async def caller(name: str) -> None:
        async with pool.lease():
            served.append(name)
            await release.wait()

    callers = [asyncio.create_task(caller(name)) for name in "abcd"]
    await settle()
    assert pool.usage == PoolUsage(size=2, active=2, idle=0, waiting=2)
    release.set()
    await asyncio.gather(*callers)
    assert served == ["a", "b", "c", "d"]
    assert pool.usage == PoolUsage(size=2, active=0, idle=2, waiting=0)


async def test_waiting_has_an_end(pool: Pool[int]) -> None:
    async with pool.lease(), pool.lease():
        with pytest.raises(Timeout, match="connectionPoolSize"):
            async with pool.lease(patience=0.01):
                pass
        assert pool.usage.waiting == 0
    assert await once(pool) in (0, 1)


@pytest.mark.parametrize("error", [Unavailable("x"), Timeout("x"), ValueError("x"), asyncio.CancelledError()])
async def test_a_connection_that_may_be_broken_is_replaced(
    factory: Factory, pool: Pool[int], error: BaseException
) -> None:
    with pytest.raises(type(error)):
        await once(pool, error)
    await settle()
    assert factory.disposed == [0]
    assert await once(pool) == 1


@pytest.mark.parametrize("error", [Tampered("x"), Denied("x")])
async def test_an_answer_is_no_reason_to_part(factory: Factory, pool: Pool[int], error: Exception) -> None:
    with pytest.raises(type(error)):
        await once(pool, error)
    assert await once(pool) == 0
    assert factory.disposed == []


async def test_old_and_unusable_connections_are_replaced(factory: Factory, pool: Pool[int]) -> None:
    await once(pool)
    factory.unusable.add(0)
    assert await once(pool) == 1
    await settle()
    assert factory.disposed == [0]
    short_lived = factory.pool(max_age=0.02)
    first = await once(short_lived)
    await asyncio.sleep(0.03)
    assert await once(short_lived) == first + 1
    await short_lived.close()


async def test_a_failure_to_connect_costs_no_place(factory: Factory, pool: Pool[int]) -> None:
    factory.failures = [Unavailable("no")] * 5
    for _ in range(5):
        with pytest.raises(Unavailable):
            await once(pool)
    async with pool.lease(), pool.lease():
        assert pool.usage.active == 2


async def test_nobody_waits_for_a_connection_that_does_not_go(factory: Factory, pool: Pool[int]) -> None:
    factory.hang = True
    with pytest.raises(Unavailable):
        await once(pool, Unavailable("hung"))
    assert await asyncio.wait_for(once(pool), 1) == 1


async def test_an_error_while_parting_is_nobodys(factory: Factory, pool: Pool[int]) -> None:
    factory._numbers = itertools.count(13)
    with pytest.raises(Unavailable):
        await once(pool, Unavailable("x"))
    assert await once(pool) == 14


async def test_closing_takes_what_is_lent_when_it_comes_back(factory: Factory, pool: Pool[int]) -> None:
    await once(pool)
    async with pool.lease() as lent:
        async with pool.lease() as other:
            pass
        await pool.close()
        assert factory.disposed == [other]
        with pytest.raises(Closed):
            await once(pool)
    await settle()
    assert sorted(factory.disposed) == sorted([lent, other])
    await pool.close()


async def test_a_cancelled_wait_leaves_no_trace(pool: Pool[int]) -> None:
    async with pool.lease(), pool.lease():
        waiter = asyncio.create_task(once(pool))
        await settle()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert pool.usage.waiting == 0
    async with pool.lease(), pool.lease():
        assert pool.usage == PoolUsage(size=2, active=2, idle=0, waiting=0)
