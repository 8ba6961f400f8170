"""Calls to the provider: bounded whatever it does, in turns that are counted, and handed over to another provider."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from providers import ForeignWrap, PoolUsage, Tampered, Timeout, Unavailable, WrapContext
from proxy.keyring import DataKey, Purpose, Scope, Wrap
from proxy.keys.wrapping import Wrapping, random_key
from tests.proxy.backends import CountingProvider
from tests.proxy.conftest import MakeKey

SCOPE = Scope.parse("contacts")
BUSY_SECONDS = 0.15  # what a machine with other tests on it adds; less than what the stubborn call takes


class AnotherProvider(CountingProvider):
    name = "ANOTHER"


def hanging(released: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def hang() -> None:
        await released.wait()

    return hang


async def hang_regardless() -> None:
    """What an SDK that cleans up for half a second does when it is cancelled."""
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await asyncio.sleep(0.5)


async def wrap(wrapping: Wrapping, patience: float = 1.0) -> Wrap:
    return await wrapping.wrap(random_key(), 7, SCOPE, Purpose.FIELD, patience)


async def unwrappable(provider: CountingProvider, make_key: MakeKey) -> DataKey:
    """A data key that `provider` wrapped."""
    key = make_key(key_id=7)
    wrapped = await provider.wrap_key(bytes(32), WrapContext(7, "contacts", None, "field"))
    made = Wrap(wrapped.provider, wrapped.kek, wrapped.mechanism, wrapped.blob, key.created_at)
    return DataKey(7, SCOPE, key.purpose, key.state, 1, 1, (made,), key.created_at)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_no_call_exceeds_its_deadline_by_a_tenth_of_a_second(stubborn: bool) -> None:
    provider = CountingProvider(timeout_seconds=0.2)
    provider.fault = hang_regardless if stubborn else hanging(asyncio.Event())
    started = time.monotonic()
    with pytest.raises(Timeout, match="requestTimeout"):
        await wrap(Wrapping(provider))
    assert 0.2 <= time.monotonic() - started < 0.3 + BUSY_SECONDS


async def test_a_key_that_comes_too_late_is_wiped(make_key: MakeKey) -> None:
    provider = CountingProvider(timeout_seconds=0.05)
    key = await unwrappable(provider, make_key)

    async def finish_although_cancelled() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return

    provider.fault = finish_although_cancelled
    with pytest.raises(Timeout):
        await Wrapping(provider).unwrap(key, 1.0)
    await asyncio.sleep(0.01)
    assert provider.returned == [bytearray(32)]


async def test_those_who_wait_for_a_turn_are_counted_and_wait_no_longer_than_their_patience() -> None:
    provider, released = CountingProvider(concurrent_calls=2), asyncio.Event()
    provider.fault = hanging(released)
    wrapping = Wrapping(provider)
    calls = [asyncio.create_task(wrap(wrapping)) for _ in range(7)]
    await asyncio.sleep(0.01)
    assert wrapping.usage() == PoolUsage(size=2, active=2, idle=0, waiting=5)
    with pytest.raises(Timeout, match="connectionPoolSize"):
        await wrap(wrapping, patience=0.05)
    released.set()
    await asyncio.gather(*calls)
    assert wrapping.usage() == PoolUsage(size=2, active=0, idle=2, waiting=0)


async def test_the_connections_of_a_provider_that_has_some_are_shown_with_all_who_wait() -> None:
    class Pooled(CountingProvider):
        def pool_usage(self) -> PoolUsage:
            return PoolUsage(size=4, active=1, idle=2, waiting=3)

    provider = Pooled(concurrent_calls=1)
    provider.fault = hanging(asyncio.Event())
    wrapping = Wrapping(provider)
    calls = [asyncio.create_task(wrap(wrapping)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert wrapping.usage() == PoolUsage(size=4, active=1, idle=2, waiting=5)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def test_those_who_wait_go_to_the_provider_that_took_over() -> None:
    old, released = CountingProvider(concurrent_calls=1), asyncio.Event()
    old.fault = hanging(released)
    new = CountingProvider(concurrent_calls=3)
    wrapping = Wrapping(old)
    under_way = asyncio.create_task(wrap(wrapping))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(wrap(wrapping)) for _ in range(5)]
    await asyncio.sleep(0.01)
    desk = wrapping.replace(new)
    await asyncio.gather(*waiting)
    assert (old.wraps, new.wraps) == (1, 5)
    assert new.most_at_once <= 3
    finished = asyncio.create_task(desk.finished())
    await asyncio.sleep(0.01)
    assert not finished.done()
    released.set()
    await under_way
    await asyncio.wait_for(finished, 1)


async def test_a_data_key_of_another_provider_says_which_one_is_missing(make_key: MakeKey) -> None:
    old = CountingProvider()
    key = await unwrappable(old, make_key)
    wrapping = Wrapping(old)
    assert await wrapping.unwrap(key, 1.0) == bytearray(32)
    wrapping.replace(AnotherProvider())
    with pytest.raises(ForeignWrap, match="no wrap of ANOTHER"):
        await wrapping.unwrap(key, 1.0)


async def test_what_is_left_of_a_hang_does_not_keep_the_next_call_from_its_turn() -> None:
    provider = CountingProvider(concurrent_calls=1, timeout_seconds=0.05)
    provider.fault = hang_regardless
    wrapping = Wrapping(provider)
    with pytest.raises(Timeout):
        await wrap(wrapping)
    provider.fault = None
    assert isinstance(await wrap(wrapping, patience=0.05), Wrap)


async def test_a_wrap_that_may_unwrap_later_counts_more_than_one_that_never_will(make_key: MakeKey) -> None:
    provider = CountingProvider()
    key = await unwrappable(provider, make_key)
    errors = iter([Unavailable("away"), Tampered("changed")])

    async def fail() -> None:
        raise next(errors)

    provider.fault = fail
    twice = DataKey(7, SCOPE, key.purpose, key.state, 1, 1, key.wraps * 2, key.created_at)
    with pytest.raises(Unavailable):
        await Wrapping(provider).unwrap(twice, 1.0)
