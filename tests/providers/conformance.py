"""The suite that every back end passes.

A test module subclasses Conformance, gives a `rig` fixture, and names in `not_applicable` each row that its back end
cannot have, with the reason; those rows are taken out, and a row that does not exist or has no reason fails at import.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import pytest
import pytest_asyncio

from providers import (
    DATA_KEY_BYTES,
    MAX_PLAINTEXT_BYTES,
    Capability,
    Closed,
    Denied,
    Encrypts,
    ExportRefused,
    ForeignWrap,
    HealthStatus,
    InputRefused,
    KeyDisabled,
    NotFound,
    Provider,
    ProviderError,
    ReportsCompliance,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
)
from providers.capabilities import INTERFACES
from tests.providers.rig import Failing, Hanging, Rig, seen

CONTEXT = WrapContext(0x0123456789ABCDEF, "users", "42", "field")
OTHER_CONTEXTS = {
    "data key id": dataclasses.replace(CONTEXT, data_key_id=0x0123456789ABCDEE),
    "keyring": dataclasses.replace(CONTEXT, keyring="user"),
    "partition": dataclasses.replace(CONTEXT, partition="43"),
    "no partition": dataclasses.replace(CONTEXT, partition=None),
    "purpose": dataclasses.replace(CONTEXT, purpose="index"),
    "a moved boundary": dataclasses.replace(CONTEXT, keyring="users4", partition="2"),
}
CALLERS = 8


def new_key() -> bytearray:
    return bytearray(os.urandom(DATA_KEY_BYTES))


class Conformance:
    """The rows. Each starts from a provider that was just opened, unless it makes its own."""

    not_applicable: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        for row, reason in cls.not_applicable.items():
            assert callable(getattr(Conformance, row, None)), f"{cls.__name__}: there is no row {row}"
            assert reason, f"{cls.__name__}: why does {row} not apply?"
            setattr(cls, row, None)

    @pytest_asyncio.fixture
    async def provider(self, rig: Rig) -> AsyncIterator[Provider]:
        provider = rig.make()
        await provider.initialize()
        yield provider
        await provider.close()

    # wrapping

    async def test_round_trip(self, provider: Provider) -> None:
        key = new_key()
        wrapped = await provider.wrap_key(key, CONTEXT)
        assert (wrapped.provider, wrapped.kek) == (provider.name, provider.describe().kek)
        assert bytes(key) not in wrapped.blob
        unwrapped = await provider.unwrap_key(wrapped, CONTEXT)
        assert isinstance(unwrapped, bytearray)
        assert unwrapped == key

    async def test_the_stored_fields_alone_unwrap(self, rig: Rig, provider: Provider) -> None:
        key = new_key()
        stored = dataclasses.astuple(await provider.wrap_key(bytes(key), CONTEXT))
        restarted = rig.make()
        assert await restarted.unwrap_key(WrappedKey(*stored), CONTEXT) == key
        await restarted.close()

    async def test_a_wiped_result_is_the_callers_alone(self, provider: Provider) -> None:
        key = new_key()
        wrapped = await provider.wrap_key(key, CONTEXT)
        first = await provider.unwrap_key(wrapped, CONTEXT)
        first[:] = bytes(DATA_KEY_BYTES)
        assert await provider.unwrap_key(wrapped, CONTEXT) == key

    @pytest.mark.parametrize("changed", OTHER_CONTEXTS)
    async def test_another_context_is_refused(self, provider: Provider, changed: str) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        with pytest.raises(Tampered):
            await provider.unwrap_key(wrapped, OTHER_CONTEXTS[changed])

    async def test_every_flipped_byte_is_refused(self, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        for offset in range(len(wrapped.blob)):
            blob = bytearray(wrapped.blob)
            blob[offset] ^= 1 << (offset % 8)
            with pytest.raises(Tampered):
                await provider.unwrap_key(dataclasses.replace(wrapped, blob=bytes(blob)), CONTEXT)

    async def test_every_truncation_and_an_extension_are_refused(self, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        for blob in (*(wrapped.blob[:length] for length in range(len(wrapped.blob))), wrapped.blob + b"\0"):
            with pytest.raises(Tampered):
                await provider.unwrap_key(dataclasses.replace(wrapped, blob=blob), CONTEXT)

    async def test_a_foreign_wrap_is_refused(self, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        with pytest.raises(ForeignWrap, match="ELSEWHERE"):
            await provider.unwrap_key(dataclasses.replace(wrapped, provider="ELSEWHERE"), CONTEXT)
        with pytest.raises(ForeignWrap, match="ROT13"):
            await provider.unwrap_key(dataclasses.replace(wrapped, mechanism="ROT13"), CONTEXT)

    async def test_an_unknown_kek_is_named(self, rig: Rig, provider: Provider) -> None:
        unknown = rig.unknown_kek(await provider.wrap_key(new_key(), CONTEXT))
        with pytest.raises(NotFound) as refusal:
            await provider.unwrap_key(unknown, CONTEXT)
        assert unknown.kek in str(refusal.value)

    async def test_a_disabled_kek_is_refused(self, rig: Rig, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        rig.disable()
        with pytest.raises(KeyDisabled):
            await provider.unwrap_key(wrapped, CONTEXT)

    async def test_a_rotated_kek_still_unwraps(self, rig: Rig, provider: Provider) -> None:
        key = new_key()
        old = await provider.wrap_key(key, CONTEXT)
        rig.rotate()
        rotated = rig.make()
        assert await rotated.unwrap_key(old, CONTEXT) == key
        new = await rotated.wrap_key(key, CONTEXT)
        assert new.kek != old.kek
        assert await rotated.unwrap_key(new, CONTEXT) == key
        await rotated.close()

    @pytest.mark.parametrize("length", [0, 16, 31, 33, 4096])
    async def test_a_data_key_of_another_length_is_refused(self, provider: Provider, length: int) -> None:
        with pytest.raises(InputRefused):
            await provider.wrap_key(bytes(length), CONTEXT)

    # time and retries

    async def test_a_hung_back_end_is_bounded(self, rig: Rig) -> None:
        provider = rig.make(requestTimeout=600)  # which opening, on a crowded machine, needs as well
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        started = time.monotonic()
        with rig.faulty(provider, Hanging()), pytest.raises(Timeout, match="requestTimeout") as refusal:
            await provider.unwrap_key(wrapped, CONTEXT)
        assert 0.5 < time.monotonic() - started < 2.5
        assert refusal.value.retryable
        assert await provider.unwrap_key(wrapped, CONTEXT), "usable once it answers again"
        await provider.close()

    @pytest.mark.parametrize("error", [Unavailable("down"), Throttled("slow down"), Timeout("late")])
    async def test_retryable_errors_are_retried_within_the_policy(self, rig: Rig, error: ProviderError) -> None:
        provider = rig.make(retryPolicy={"maxRetries": 2, "backoffMultiplier": 1})
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        recovering, failing = Failing([error, error]), Failing([error] * 9)
        with rig.faulty(provider, recovering):
            assert await provider.unwrap_key(wrapped, CONTEXT)
        with rig.faulty(provider, failing), pytest.raises(type(error)):
            await provider.unwrap_key(wrapped, CONTEXT)
        assert (recovering.calls, failing.calls) == (3, 3)
        await provider.close()

    @pytest.mark.parametrize("error", [Denied("no"), Tampered("no"), KeyDisabled("no"), NotFound("no")])
    async def test_other_errors_are_not_retried(self, rig: Rig, provider: Provider, error: ProviderError) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        failing = Failing([error])
        with rig.faulty(provider, failing), pytest.raises(type(error)):
            await provider.unwrap_key(wrapped, CONTEXT)
        assert failing.calls == 1

    async def test_eight_callers_at_once(self, provider: Provider) -> None:
        async def caller(number: int) -> None:
            for turn in range(25):
                context = dataclasses.replace(CONTEXT, data_key_id=number << 32 | turn)
                key = new_key()
                wrapped = await provider.wrap_key(key, context)
                assert await provider.unwrap_key(wrapped, context) == key

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    async def test_a_cancelled_caller_leaves_the_others_alone(self, rig: Rig, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        with rig.faulty(provider, Hanging()):
            caller = asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT))
            await asyncio.sleep(0.01)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        assert await provider.unwrap_key(wrapped, CONTEXT)

    # bad days

    async def test_credentials_gone_and_back_without_restart(self, rig: Rig) -> None:
        provider = rig.make()
        with rig.without_credentials():
            with pytest.raises(ProviderError):
                await provider.initialize()
            assert (await provider.health_check()).status is HealthStatus.DOWN
            with pytest.raises(ProviderError):
                await provider.wrap_key(new_key(), CONTEXT)
        assert await provider.wrap_key(new_key(), CONTEXT), "recovers by itself"
        assert (await provider.health_check()).status is HealthStatus.OK
        await provider.close()

    async def test_back_end_away_and_back_without_restart(self, rig: Rig, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        with rig.unplugged():
            with pytest.raises(Unavailable):
                await provider.unwrap_key(wrapped, CONTEXT)
            assert (await provider.health_check()).status is HealthStatus.DOWN
        assert await provider.unwrap_key(wrapped, CONTEXT)

    async def test_a_healthy_back_end_says_so(self, provider: Provider) -> None:
        health = await provider.health_check()
        assert health.status is HealthStatus.OK
        assert health.detail
        assert 0 <= health.seconds < 10

    async def test_initialize_twice_and_close_twice(self, rig: Rig) -> None:
        provider = rig.make()
        await provider.initialize()
        await provider.initialize()
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        await provider.close()
        await provider.close()
        with pytest.raises(Closed):
            await provider.wrap_key(new_key(), CONTEXT)
        with pytest.raises(Closed):
            await provider.unwrap_key(wrapped, CONTEXT)
        with pytest.raises(Closed):
            await provider.initialize()
        assert (await provider.health_check()).status is HealthStatus.DOWN

    async def test_close_without_initialize(self, rig: Rig) -> None:
        provider = rig.make()
        await provider.close()
        with pytest.raises(Closed):
            await provider.initialize()

    # what it says of itself

    async def test_export_is_refused(self, provider: Provider) -> None:
        with pytest.raises(ExportRefused):
            await provider.export_key()
        with pytest.raises(ExportRefused):
            await provider.export_key(provider.describe().kek)

    async def test_capabilities_are_what_it_implements(self, provider: Provider) -> None:
        for flag, interface in INTERFACES.items():
            implemented = isinstance(provider, interface)
            assert (flag in provider.capabilities) is implemented, flag
            assert (provider.capability(interface) is provider) is implemented, flag
            assert bool(provider.lacks.get(flag)) is not implemented, f"{flag}: a reason for each that is lacking"
        assert set(INTERFACES) == set(Capability)

    async def test_describes_itself_before_and_after_opening(self, rig: Rig) -> None:
        provider = rig.make(requestTimeout=1234, connectionPoolSize=3)
        before = provider.describe()
        await provider.initialize()
        after = provider.describe()
        assert before.kek is None
        assert after.kek
        # key and mechanism may be the back end's choice, known once it is open
        assert dataclasses.replace(after, kek=None, mechanism=before.mechanism) == before
        assert (after.provider, after.timeout_seconds, after.concurrent_calls) == (provider.name, 1.234, 3)
        await provider.close()

    async def test_encrypts_small_values(self, provider: Provider) -> None:
        encrypting = provider.capability(Encrypts)
        assert encrypting is not None
        for value in (b"", b"x", os.urandom(MAX_PLAINTEXT_BYTES)):
            ciphertext = await encrypting.encrypt(value, b"associated")
            assert await encrypting.decrypt(ciphertext, b"associated") == value
            with pytest.raises(Tampered):
                await encrypting.decrypt(ciphertext, b"associates")
            for offset in {0, len(ciphertext.blob) // 2, len(ciphertext.blob) - 1}:
                blob = bytearray(ciphertext.blob)
                blob[offset] ^= 1
                with pytest.raises(Tampered):
                    await encrypting.decrypt(dataclasses.replace(ciphertext, blob=bytes(blob)), b"associated")
        with pytest.raises(Tampered):
            await encrypting.decrypt(dataclasses.replace(ciphertext, blob=b"short"), b"associated")
        with pytest.raises(InputRefused):
            await encrypting.encrypt(bytes(MAX_PLAINTEXT_BYTES + 1))
        with pytest.raises(NotFound):
            await encrypting.encrypt(b"x", key="no such key")
        with pytest.raises(ForeignWrap):
            await encrypting.decrypt(dataclasses.replace(ciphertext, mechanism="ROT13"), b"associated")

    async def test_reports_what_may_be_claimed(self, provider: Provider) -> None:
        reporting = provider.capability(ReportsCompliance)
        assert reporting is not None
        info = await reporting.get_compliance_info()
        assert info.key_storage
        assert provider.describe().mechanism in info.mechanisms

    async def test_nothing_secret_is_said(self, rig: Rig, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        key = new_key()
        wrapped = await provider.wrap_key(key, CONTEXT)
        said = [repr(wrapped), str(wrapped), repr(provider), repr(provider.describe()), repr(vars(provider))]
        attempts = [
            (dataclasses.replace(wrapped, blob=wrapped.blob[:-1] + b"\0\0"), CONTEXT),
            (wrapped, OTHER_CONTEXTS["partition"]),
            (dataclasses.replace(wrapped, provider="ELSEWHERE"), CONTEXT),
            (rig.unknown_kek(wrapped), CONTEXT),
        ]
        for attempt in attempts:
            with pytest.raises(ProviderError) as refusal:
                await provider.unwrap_key(*attempt)
            said += [str(refusal.value), repr(refusal.value), repr(refusal.value.__cause__)]
        with rig.faulty(provider, Failing([Unavailable("down")])):
            await provider.unwrap_key(wrapped, CONTEXT)
        said += [repr(await provider.health_check()), caplog.text]
        for secret in (bytes(key), wrapped.blob, *rig.secrets()):
            assert not any(seen(secret, text) for text in said)
