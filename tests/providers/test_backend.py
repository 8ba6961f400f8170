"""The base class, on a back end in memory that does what a test tells it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from providers import (
    Capability,
    CredentialsInvalid,
    HealthStatus,
    Provider,
    Tampered,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
    refused,
)
from providers.backend import Backend
from providers.options import HsmOptions, Section
from providers.secrets import CredentialData, SecretSource

CONTEXT = WrapContext(1, "users", None, "field")
WRAPPED = WrappedKey("SCRIPTED", "kek", "none", b"")


class ScriptedData(CredentialData):
    """A token, if any."""

    token: SecretSource | None = None


class ScriptedCredentials(Section):
    """Of one type."""

    type: str
    data: ScriptedData = ScriptedData()


class ScriptedOptions(HsmOptions):
    """As back ends have them."""

    credentials: ScriptedCredentials | None = None  # type: ignore[assignment]  # narrower, as in the back ends


class Scripted(Backend):
    """Counts what reaches it."""

    name = "SCRIPTED"
    capabilities = Capability(0)
    lacks = dict.fromkeys(Capability, "a test")

    def __init__(self, timeout: int = 500, credentials: object = None) -> None:
        performance = {"requestTimeout": timeout, "retryPolicy": {"maxRetries": 1, "backoffMultiplier": 1}}
        section = {"provider": "SCRIPTED", "performance": performance, "credentials": credentials}
        super().__init__(ScriptedOptions.model_validate(section), Path("/"))
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

    def _wraps_with(self) -> tuple[str | None, str]:
        return None, "none"


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
        Backend(HsmOptions(provider="X"), Path("/"))  # type: ignore[abstract]  # that is the point


async def test_credentials_that_were_refused_are_not_sent_at_each_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "REFUSAL_SECONDS", 0.2)
    provider = Scripted()
    provider.refusals = [CredentialsInvalid("the token has ended: renew it")]
    calls = (provider.unwrap_key(WRAPPED, CONTEXT) for _ in range(5))
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, CredentialsInvalid)
        assert str(error).startswith("the token has ended: renew it")
    with pytest.raises(CredentialsInvalid, match=r"the token has ended: renew it \[not sent again within 0.2 s\]$"):
        await provider.unwrap_key(WRAPPED, CONTEXT)
    assert (await provider.health_check()).detail.startswith("the token has ended: renew it")
    assert provider.opened == 1
    await asyncio.sleep(0.25)
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == bytes(32)
    assert provider.opened == 2
    await provider.close()


async def test_credentials_that_a_call_finds_refused_are_read_anew_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "REFUSAL_SECONDS", 0.2)
    provider = Scripted()
    await provider.initialize()
    asked = 0

    async def refuse() -> None:
        nonlocal asked
        asked += 1
        raise CredentialsInvalid("revoked")

    for _ in range(5):
        with pytest.raises(CredentialsInvalid, match="revoked"):
            await provider.bounded("unwrap_key", refuse)
    assert (asked, provider.opened) == (1, 1)
    await asyncio.sleep(0.25)
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == bytes(32)
    assert provider.opened == 2
    await provider.close()


async def test_changed_credentials_are_sent_at_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o600)
    named = {"type": "TOKEN", "data": {"tokenFile": str(token)}}
    provider = Scripted(credentials=named)
    provider.refusals = [CredentialsInvalid("refused")]
    for _ in range(2):
        with pytest.raises(CredentialsInvalid):
            await provider.initialize()
    assert provider.opened == 1
    provider.refusals = [CredentialsInvalid("others may read it")]
    token.write_text("a newer one")
    with pytest.raises(CredentialsInvalid, match="others"):
        await provider.initialize()
    token.chmod(0o400)  # which may be what was wrong
    await provider.initialize()
    assert provider.opened == 3
    await provider.close()


async def test_a_key_whose_making_ran_out_of_time_is_named() -> None:
    provider = Scripted(timeout=100)
    await provider.initialize()
    with pytest.raises(Timeout, match="whether keys/orders was made is not known: see whether it is there"):
        await provider.bounded("generate_key", asyncio.Event().wait, making="keys/orders")
    await provider.close()


async def test_a_call_that_ran_out_of_time_says_why_it_was_tried_again() -> None:
    provider = Scripted(timeout=150)
    provider.refusals = [Unavailable("connection refused: see the network")]
    opening = provider._open

    async def then_hangs() -> None:
        if not provider.refusals:
            provider.gate.clear()
        await opening()

    provider._open = then_hangs  # type: ignore[method-assign]  # the second attempt hangs
    with pytest.raises(Timeout, match=r"within 150 ms.*the attempt before ended with: connection refused"):
        await provider.initialize()
    provider.gate.set()
    await provider.close()


async def test_new_credentials_are_not_blamed_for_what_the_old_ones_met(tmp_path: Path) -> None:
    class Late(Scripted):
        def __init__(self, credentials: object) -> None:
            super().__init__(5000, credentials)
            self.late = [asyncio.Event(), asyncio.Event()]
            self._calls_begun = iter(self.late)

        async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
            await next(self._calls_begun).wait()
            raise CredentialsInvalid("the old token is refused")

    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o600)
    provider = Late({"type": "TOKEN", "data": {"tokenFile": str(token)}})
    await provider.initialize()
    calls = [asyncio.create_task(provider.unwrap_key(WRAPPED, CONTEXT)) for _ in range(2)]
    await asyncio.sleep(0.01)
    token.write_text("a new one")
    provider.late[0].set()
    with pytest.raises(CredentialsInvalid):
        await calls[0]
    provider.gate.clear()
    provider.refusals = [Unavailable("just now")]
    wrapping = asyncio.create_task(provider.wrap_key(bytes(32), CONTEXT))
    await asyncio.sleep(0.01)
    assert provider.opened == 2
    provider.late[1].set()  # fails while the new ones are tried
    with pytest.raises(CredentialsInvalid):
        await calls[1]
    provider.gate.set()
    assert await wrapping == WRAPPED
    await provider.close()
