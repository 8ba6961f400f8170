"""Bad days: slow, hung, dropped and returned servers, sealed ones, and what the pool's counts say meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from providers import HealthStatus, PoolUsage, Timeout, Unavailable, WrapContext, WrappedKey, create
from providers.vault.provider import VaultProvider
from tests.providers.conformance import CONTEXT, new_key
from tests.providers.vault.rig import VaultRig
from tests.servers.openbao import free_port, serve

Result = TypeVar("Result")
ALLOWANCE = 0.1  # seconds that a call may exceed requestTimeout by


async def timed(call: Awaitable[Result]) -> tuple[Result | BaseException, float]:
    """Outcome and seconds."""
    began = time.monotonic()
    try:
        outcome: Result | BaseException = await call
    except Exception as error:
        outcome = error
    return outcome, time.monotonic() - began


@pytest_asyncio.fixture
async def provider(rig: VaultRig) -> AsyncIterator[VaultProvider]:
    provider = rig.make(connectionPoolSize=4, requestTimeout=500, retryPolicy={"maxRetries": 1})
    yield provider
    rig.proxy.normal()
    await provider.close()


async def test_calls_to_a_hung_server_end_in_time_however_many(rig: VaultRig, provider: VaultProvider) -> None:
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    rig.proxy.hang()
    for outcome, seconds in await asyncio.gather(*(timed(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(50))):
        assert isinstance(outcome, Timeout)
        assert seconds < 0.5 + ALLOWANCE
    assert (await provider.health_check()).status is HealthStatus.DOWN
    rig.proxy.normal()
    assert await provider.unwrap_key(wrapped, CONTEXT) == key
    assert provider.pool_usage().active == 0


async def test_a_new_connection_that_hangs_ends_in_time_too(rig: VaultRig, provider: VaultProvider) -> None:
    rig.proxy.hang()
    outcome, seconds = await timed(provider.initialize())
    assert isinstance(outcome, Timeout)
    assert seconds < 0.5 + ALLOWANCE
    rig.proxy.normal()
    await provider.initialize()


async def test_a_connection_cut_before_the_answer_is_tried_again(rig: VaultRig) -> None:
    provider = rig.make(retryPolicy={"maxRetries": 20, "backoffMultiplier": 1})
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    rig.proxy.cut_answers()
    calls = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(8)]
    await asyncio.sleep(0.05)
    rig.proxy.normal()
    assert await asyncio.gather(*calls) == [key] * 8
    await provider.close()


async def test_idle_connections_that_the_server_dropped_are_replaced(rig: VaultRig) -> None:
    provider = rig.make(connectionPoolSize=8)
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(16)))
    rig.proxy.drop()
    await asyncio.sleep(0.05)
    assert await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(16))) == [key] * 16
    await provider.close()


async def test_a_server_that_restarts_is_found_again(rig: VaultRig, provider: VaultProvider) -> None:
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    for _ in range(3):
        rig.proxy.unplug()
        outcome, seconds = await timed(provider.unwrap_key(wrapped, CONTEXT))
        assert isinstance(outcome, Unavailable)
        assert seconds < 0.5 + ALLOWANCE
        rig.proxy.normal()
        assert await provider.unwrap_key(wrapped, CONTEXT) == key


async def test_an_endpoint_that_nobody_serves_or_no_name_knows(rig: VaultRig) -> None:
    for endpoint, said in (
        (f"http://127.0.0.1:{free_port()}", "is the server running"),
        ("https://vault.invalid:8200", "cannot be resolved"),
        (f"unix://{rig.folder}/nobody.sock", "is the server running"),
    ):
        provider = rig.make_with({"connection": {"endpoint": endpoint}}, retryPolicy={"maxRetries": 0})
        with pytest.raises(Unavailable, match=said):
            await provider.initialize()
        await provider.close()


# the pool


async def test_the_counts_are_those_of_real_connections(rig: VaultRig, provider: VaultProvider) -> None:
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    assert provider.pool_usage() == PoolUsage(size=4, active=0, idle=1, waiting=0)
    opened = rig.proxy.accepted()
    rig.proxy.delay(to_client=0.1)
    calls = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert provider.pool_usage() == PoolUsage(size=4, active=4, idle=0, waiting=6)
    assert rig.proxy.accepted() - opened == 3
    rig.proxy.normal()
    await asyncio.gather(*calls)
    assert provider.pool_usage() == PoolUsage(size=4, active=0, idle=4, waiting=0)
    assert rig.proxy.accepted() - opened == 3, "four connections served eleven calls"


async def test_connections_are_replaced_by_age(rig: VaultRig) -> None:
    provider = rig.make(connectionMaxAge=1)
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    counts = []
    for _ in range(5):
        counts.append(rig.proxy.accepted())
        await provider.unwrap_key(wrapped, CONTEXT)
        await asyncio.sleep(0.5)
    grown = [after - before for before, after in pairwise(counts)]
    assert 1 <= sum(grown) <= 3
    await provider.close()


async def test_cancelled_calls_give_their_connections_back(rig: VaultRig, provider: VaultProvider) -> None:
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    rig.proxy.delay(to_client=0.3)
    calls = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(8)]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    rig.proxy.normal()
    assert provider.pool_usage().active == 0
    assert await provider.unwrap_key(wrapped, CONTEXT) == key


async def test_nothing_is_left_after_closing(rig: VaultRig) -> None:
    still_open = rig.proxy.open_connections()
    provider = rig.make()
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(20)))
    tasks = asyncio.all_tasks()
    await provider.close()
    deadline = time.monotonic() + 5
    while rig.proxy.open_connections() > still_open:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= tasks


async def test_two_providers_at_once(rig: VaultRig) -> None:
    """As while a reload swaps one for the other."""
    old, new = rig.make(), rig.make()
    wrapped = await old.wrap_key(key := new_key(), CONTEXT)
    assert await new.unwrap_key(wrapped, CONTEXT) == key
    await old.close()
    assert await new.unwrap_key(wrapped, CONTEXT) == key
    await new.close()


async def test_eight_callers_for_a_while_and_no_answer_is_anothers(rig: VaultRig) -> None:
    provider, ends = rig.make(connectionPoolSize=8), time.monotonic() + 2

    async def caller(number: int) -> int:
        turns = 0
        while time.monotonic() < ends:
            context = WrapContext(number << 32 | turns, "users", str(number), "field")
            wrapped = await provider.wrap_key(key := new_key(), context)
            assert await provider.unwrap_key(wrapped, context) == key
            turns += 1
        return turns

    assert min(await asyncio.gather(*(caller(number) for number in range(8)))) > 5
    await provider.close()


# a server of its own


async def test_a_sealed_server_is_down_and_back_when_unsealed(tmp_path: Path) -> None:
    with serve(tmp_path, tls=True) as bao:
        provider = create(bao.hsm | {"performance": {"retryPolicy": {"maxRetries": 0}}}, tmp_path)
        wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
        bao.operate("PUT", "sys/seal")
        with pytest.raises(Unavailable, match="unseal"):
            await provider.unwrap_key(wrapped, CONTEXT)
        health = await provider.health_check()
        assert health.status is HealthStatus.DOWN
        assert "unseal" in health.detail
        bao.operate("PUT", "sys/unseal", {"key": bao.root["key"]})
        await _answering(provider, wrapped, key)
        await provider.close()


async def _answering(provider: object, wrapped: WrappedKey, key: bytearray) -> None:
    """An unsealed server takes a moment to mount its engines."""
    assert isinstance(provider, VaultProvider)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert await provider.unwrap_key(wrapped, CONTEXT) == key
            return
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
