"""Two providers on one library, sessions that end, PINs that are wrong, calls that hang."""

from __future__ import annotations

import _ctypes
import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from pkcs11 import Token, TokenFlag
from pkcs11.exceptions import DeviceError, PinIncorrect

from providers import (
    ConfigurationInvalid,
    CredentialsInvalid,
    HealthStatus,
    NotFound,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
)
from providers.pkcs11.device import Device, Held
from providers.pkcs11.library import SharedLibrary, shared
from providers.pkcs11.provider import Pkcs11Provider
from providers.pkcs11.token import RefusedPins, log_in
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import PIN, ServedSoftHsm

CONTEXT = WrapContext(7, "users", "42", "field")


def make(token: ServedSoftHsm, **hsm: Any) -> Pkcs11Provider:
    provider = TokenRig(token, **hsm).make(retryPolicy={"maxRetries": 3, "backoffMultiplier": 1})
    assert isinstance(provider, Pkcs11Provider)
    return provider


def library(token: ServedSoftHsm) -> SharedLibrary:
    return shared(str(Path(token.library).resolve()))


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what comes soon, however busy the machine is."""
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - what is waited for happens in threads
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def provider(token: ServedSoftHsm) -> AsyncIterator[Pkcs11Provider]:
    provider = make(token)
    yield provider
    await provider.close()


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The PINs that reach the token."""
    tried: list[str] = []

    from providers.pkcs11 import token as module

    session_of = module._session_of

    def counting(token: Token, pin: bytearray, refused: RefusedPins) -> Any:
        if pin not in refused:
            tried.append(pin.decode())
        return session_of(token, pin, refused)

    monkeypatch.setattr(module, "_session_of", counting)
    return tried


# two providers in one process


async def test_closing_one_leaves_the_other_served(token: ServedSoftHsm, provider: Pkcs11Provider) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    successor = make(token)
    await successor.initialize()
    generation = library(token).generation
    await provider.close()
    for _ in range(20):
        assert await successor.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert library(token).generation == generation
    await successor.close()


async def test_the_last_one_finalises_and_a_later_one_begins_anew(token: ServedSoftHsm) -> None:
    for _ in range(3):
        provider = make(token)
        before = library(token).generation
        await provider.initialize()
        assert library(token).generation == before + 1
        await provider.close()


async def test_a_failing_newcomer_does_not_disturb_who_is_served(
    token: ServedSoftHsm, provider: Pkcs11Provider
) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    generation = library(token).generation
    for wrong in ({"kek": "no such key"}, {"connection": token.hsm["connection"] | {"partition": "no such token"}}):
        newcomer = make(token, **wrong)
        with pytest.raises((NotFound, Unavailable)):
            await newcomer.initialize()
        await newcomer.close()
    assert library(token).generation == generation
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)


# sessions that end


async def test_a_logout_elsewhere_is_recovered_from(token: ServedSoftHsm, provider: Pkcs11Provider) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    for login in library(token).logins.values():
        login.session.close()  # logs out the process
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert (await provider.health_check()).status is HealthStatus.OK


async def test_a_library_initialised_anew_by_another_is_recovered_from(
    token: ServedSoftHsm, provider: Pkcs11Provider
) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    native = library(token).native
    native.finalize()
    native.initialize()
    answers = await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(16)))
    assert answers == [bytes(32)] * 16


async def test_a_device_error_opens_the_token_anew(
    token: ServedSoftHsm, provider: Pkcs11Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    first, good = provider._device, Device.open
    failures = iter([DeviceError(), DeviceError()])

    def failing(self: Device, *arguments: Any) -> bytearray:
        for failure in failures:
            raise failure
        return good(self, *arguments)

    monkeypatch.setattr(Device, "open", failing)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert provider._device is not first


async def test_old_sessions_are_replaced(token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make(token, performance={"connectionMaxAge": 1, "connectionPoolSize": 1})
    await provider.wrap_key(bytes(32), CONTEXT)

    def handle(session: Any) -> int:
        return int(session.handle)

    async def session() -> int:
        return await provider.on_session(lambda _, held: handle(held.session))

    first = await session()
    assert await session() == first
    later = time.monotonic() + 2
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert await session() != first
    monkeypatch.undo()
    await provider.close()


# PINs


async def test_a_refused_pin_is_tried_once(token: ServedSoftHsm, logins: list[str]) -> None:
    provider = make(token, credentials={"type": "TOKEN", "data": {"pin": "wrong"}})
    for _ in range(5):
        with pytest.raises(CredentialsInvalid):
            await provider.wrap_key(bytes(32), CONTEXT)
    assert (await provider.health_check()).status is HealthStatus.DOWN
    assert logins == ["wrong"]
    await provider.close()


async def test_a_corrected_pin_is_tried_at_once(token: ServedSoftHsm, tmp_path: Path, logins: list[str]) -> None:
    pin = tmp_path / "pin"
    pin.touch(0o600)
    pin.write_text("wrong")
    provider = make(token, credentials={"type": "TOKEN", "data": {"pinFile": str(pin)}})
    for _ in range(2):
        with pytest.raises(CredentialsInvalid):
            await provider.initialize()
    pin.write_text(PIN)
    await provider.initialize()
    assert logins == ["wrong", PIN]
    await provider.close()


@pytest.mark.parametrize(
    ("flag", "message"),
    [(TokenFlag.USER_PIN_LOCKED, "is locked"), (TokenFlag.USER_PIN_FINAL_TRY, "one more wrong PIN locks")],
)
def test_the_last_try_is_not_ours(flag: TokenFlag, message: str) -> None:
    def tried(**_: object) -> None:
        raise AssertionError("the PIN reached the token")

    token: Any = SimpleNamespace(label="t", flags=flag, open=tried, slot=SimpleNamespace(slot_id=0))
    with pytest.raises(CredentialsInvalid, match=message):
        log_in(SharedLibrary("/nowhere"), 1, token, bytearray(b"pin"), RefusedPins())


async def test_a_pin_is_never_said(token: ServedSoftHsm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-pin-value"
    provider = make(token, credentials={"type": "TOKEN", "data": {"pin": secret}})
    with pytest.raises(CredentialsInvalid) as refusal:
        await provider.initialize()
    cause = refusal.value.__cause__
    assert isinstance(cause, PinIncorrect)
    said = [str(refusal.value), repr(refusal.value), repr(cause), repr(provider.describe()), repr(vars(provider))]
    assert not any(secret in text for text in [*said, caplog.text])
    await provider.close()


# the token and the key


async def test_messages_name_what_is_there(token: ServedSoftHsm) -> None:
    wrong_label = make(token, connection=token.hsm["connection"] | {"partition": "elsewhere"})
    with pytest.raises(Unavailable, match="'elsewhere'; present: 'keyside-test' in slot"):
        await wrong_label.initialize()
    await wrong_label.close()
    no_key = make(token, kek="elsewhere")
    with pytest.raises(NotFound, match="'elsewhere'"):
        await no_key.initialize()
    await no_key.close()


async def test_the_only_token_needs_no_name_and_a_slot_is_enough(token: ServedSoftHsm) -> None:
    connection = {"libraryPath": token.library}
    provider = make(token, connection=connection)
    await provider.initialize()
    slot = await provider.on_session(lambda device, _: device.token.slot.slot_id)
    await provider.close()
    by_slot = make(token, connection=connection | {"slot": slot})
    await by_slot.initialize()
    await by_slot.close()
    in_group = make(token, connection=connection, highAvailability={"haGroupName": "keyside-test"})
    await in_group.initialize()
    await in_group.close()


async def test_two_keys_of_one_label_and_id_are_refused(token: ServedSoftHsm) -> None:
    for _ in range(2):
        token.order("generate", "twins", "0c")
    provider = make(token, kek="twins")
    with pytest.raises(ConfigurationInvalid, match="give each its own"):
        await provider.initialize()
    await provider.close()


async def test_a_key_that_may_not_decrypt_is_refused_at_once(token: ServedSoftHsm) -> None:
    token.order("generate", "shut", "0d")
    token.order("forbid", "shut", "0d")
    provider = make(token, kek="shut")
    with pytest.raises(ConfigurationInvalid, match="no mechanism that wraps"):
        await provider.initialize()
    await provider.close()


async def test_health_notices_that_decrypting_was_forbidden(token: ServedSoftHsm) -> None:
    token.order("generate", "shutting", "0e")
    provider = make(token, kek="shutting")
    await provider.initialize()
    assert (await provider.health_check()).status is HealthStatus.OK
    token.order("forbid", "shutting", "0e")
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "CKA_DECRYPT" in health.detail
    await provider.close()


@pytest.mark.parametrize("content", [None, b"no library", "another"])
async def test_what_is_no_library(token: ServedSoftHsm, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "library.so"
    if content == "another":
        path = Path(_ctypes.__file__)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    provider = make(token, connection={"libraryPath": str(path)})
    with pytest.raises(ConfigurationInvalid, match=r"hsm\.connection\.libraryPath") as refusal:
        await provider.initialize()
    assert str(path) in str(refusal.value)
    await provider.close()


# calls that hang


class Hanging:
    """Makes the opening of one wrap hang in its thread until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, victim: WrappedKey) -> None:
        self.let_go = threading.Event()
        self.inside = 0
        good = Device.open

        def hang(device: Device, held: Held, name: str, mechanism: str, blob: bytes, associated: bytes) -> bytearray:
            if blob == victim.blob:
                self.inside += 1
                self.let_go.wait(30)
            return good(device, held, name, mechanism, blob, associated)

        monkeypatch.setattr(Device, "open", hang)


async def test_a_hung_call_costs_its_caller_its_time_and_nobody_else(
    token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make(token, performance={"requestTimeout": 500, "connectionPoolSize": 4})
    victim, other = await provider.wrap_key(bytes(32), CONTEXT), await provider.wrap_key(os.urandom(32), CONTEXT)
    hanging = Hanging(monkeypatch, victim)
    began = time.monotonic()
    hung = asyncio.create_task(provider.unwrap_key(victim, CONTEXT))
    await until(lambda: hanging.inside == 1)
    for _ in range(50):
        await provider.unwrap_key(other, CONTEXT)  # or Timeout: who waits for what hangs waits 30 seconds
    with pytest.raises(Timeout):
        await hung
    assert time.monotonic() - began < 15, "far from what the token takes"

    # all threads hang: callers still get their answer in time, and there are no more threads than the pool has
    for _ in range(3):
        results = await asyncio.gather(
            *(provider.unwrap_key(victim, CONTEXT) for _ in range(10)), return_exceptions=True
        )
        assert all(isinstance(result, Timeout) for result in results)
    usage = provider.pool_usage()
    assert (usage.size, usage.active, usage.waiting) == (4, 4, 0)
    assert hanging.inside == 4
    mine = [thread for thread in threading.enumerate() if thread.name.startswith(provider.name)]
    assert len(mine) == 4
    assert all(thread.daemon for thread in mine)

    hanging.let_go.set()
    assert await provider.unwrap_key(other, CONTEXT)
    await until(lambda: provider.pool_usage().active == 0)
    await provider.close()


async def test_closing_does_not_wait_for_what_hangs(token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make(token, performance={"requestTimeout": 100})
    victim = await provider.wrap_key(bytes(32), CONTEXT)
    hanging = Hanging(monkeypatch, victim)
    with pytest.raises(Timeout):
        await provider.unwrap_key(victim, CONTEXT)
    began = time.monotonic()
    await provider.close()
    assert time.monotonic() - began < 15, "the call hangs for 30 seconds"
    successor = make(token)
    assert await successor.unwrap_key(dataclasses.replace(await successor.wrap_key(bytes(32), CONTEXT)), CONTEXT)
    hanging.let_go.set()
    await successor.close()


async def test_an_abandoned_result_is_wiped(token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make(token, performance={"requestTimeout": 150})
    key = os.urandom(32)
    victim = await provider.wrap_key(key, CONTEXT)
    results: list[bytearray] = []
    good = Device.open
    let_go = threading.Event()

    def late(self: Device, *arguments: Any) -> bytearray:
        let_go.wait(30)
        results.append(good(self, *arguments))
        return results[-1]

    monkeypatch.setattr(Device, "open", late)
    with pytest.raises(Timeout):
        await provider.unwrap_key(victim, CONTEXT)
    let_go.set()
    await provider.close()
    await until(lambda: results == [bytearray(32)])
