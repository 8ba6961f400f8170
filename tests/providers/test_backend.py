"""The base class, on a back end in memory that does what a test tells it."""

from __future__ import annotations

import asyncio

import pytest

from providers import (
    Capability,
    Description,
    HealthStatus,
    Provider,
    Tampered,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
)
from providers.backend import Backend
from providers.options import Performance

CONTEXT = WrapContext(1, "users", None, "field")
WRAPPED = WrappedKey("SCRIPTED", "kek", "none", b"")


class Scripted(Backend):
    """Counts what reaches it."""

    name = "SCRIPTED"
    capabilities = Capability(0)
    lacks = dict.fromkeys(Capability, "a test")

    def __init__(self, timeout: int = 500) -> None:
        super().__init__(Performance.model_validate({"requestTimeout": timeout, "retryPolicy": {"maxRetries": 1}}))
        self.opened = self.closed = 0
        self.refusals: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer = bytearray(32)

    async def _open(self) -> None:
        self.opened += 1
        await self.gate.wait()
        if self.refusals:
            raise self.refusals.pop(0)

    async def _check(self) -> tuple[HealthStatus, str]:
        return HealthStatus.OK, "fine"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        return WRAPPED

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        return self.answer

    async def _close(self) -> None:
        self.closed += 1

    def describe(self) -> Description:
        return Description(self.name, None, "none", self.capabilities, self.lacks, {}, 1, 1.0)


async def test_callers_at_once_open_it_once() -> None:
    provider = Scripted()
    provider.gate.clear()
    callers = [asyncio.create_task(provider.wrap_key(bytes(32), CONTEXT)) for _ in range(8)]
    await asyncio.sleep(0.01)
    provider.gate.set()
    await asyncio.gather(*callers, provider.initialize())
    assert provider.opened == 1
    await provider.close()


async def test_opening_is_retried_and_bounded_like_any_call() -> None:
    provider = Scripted(timeout=100)
    provider.refusals = [Unavailable("down")]
    await provider.initialize()
    assert provider.opened == 2
    await provider.close()
    hung = Scripted(timeout=100)
    hung.gate.clear()
    with pytest.raises(Timeout):
        await hung.initialize()
    assert (await hung.health_check()).status is HealthStatus.DOWN
    hung.gate.set()
    await hung.wrap_key(bytes(32), CONTEXT)
    await hung.close()


async def test_close_waits_for_an_opening_under_way_and_leaves_nothing_open() -> None:
    provider = Scripted()
    provider.gate.clear()
    opening = asyncio.create_task(provider.initialize())
    await asyncio.sleep(0)
    closing = asyncio.create_task(provider.close())
    await asyncio.sleep(0)
    provider.gate.set()
    results = await asyncio.gather(opening, closing, provider.close(), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Closed", "NoneType", "NoneType"]
    assert provider.closed == 1


@pytest.mark.parametrize("length", [0, 16, 31, 33])
async def test_something_else_than_a_data_key_is_refused_and_wiped(length: int) -> None:
    provider = Scripted()
    provider.answer = bytearray(b"s" * length)
    with pytest.raises(Tampered, match="not a data key"):
        await provider.unwrap_key(WRAPPED, CONTEXT)
    assert provider.answer == bytes(length)
    await provider.close()


def test_it_is_a_provider_and_nothing_half_made_is() -> None:
    assert issubclass(Backend, Provider)
    with pytest.raises(TypeError, match="abstract"):
        Backend(Performance())  # type: ignore[abstract]  # that is the point
