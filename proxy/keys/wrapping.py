"""Calls to the provider, few at a time and each with a deadline; and data keys from the system's random source."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from providers import DATA_KEY_BYTES, ForeignWrap, Provider, Tampered, Timeout, WrapContext, WrappedKey
from providers.wiping import wipe
from proxy.keyring import DataKey, Purpose, Scope, Wrap, utc_now
from proxy.keys.latency import Latency

T = TypeVar("T")

KEY_ID_BYTES: Final = 8


def random_key() -> bytearray:
    """32 bytes from the operating system's random source; the object they came in is wiped."""
    drawn = os.urandom(DATA_KEY_BYTES)
    key = bytearray(drawn)
    wipe(drawn)
    return key


def random_key_id() -> int:
    """64 random bits, never 0."""
    while not (key_id := int.from_bytes(os.urandom(KEY_ID_BYTES), "big")):
        pass
    return key_id


class Wrapping:
    """Wraps and unwraps data keys, as many calls at once and each as long as the provider is configured for."""

    def __init__(self, provider: Provider) -> None:
        description = provider.describe()
        self._provider = provider
        self._turns = asyncio.Semaphore(description.concurrent_calls)
        self._deadline = description.timeout_seconds
        self.concurrent_calls = description.concurrent_calls
        self.latency = Latency()
        self.wraps = 0
        self.unwraps = 0

    async def wrap(self, key: bytearray, key_id: int, scope: Scope, purpose: Purpose, patience: float) -> Wrap:
        """Wrap a new data key. Raises ProviderError; Timeout too when no turn came within `patience` seconds."""
        context = _context(key_id, scope, purpose)
        self.wraps += 1
        wrapped = await self._call(partial(self._provider.wrap_key, key, context), patience)
        return Wrap(wrapped.provider, wrapped.kek, wrapped.mechanism, wrapped.blob, utc_now())

    async def unwrap(self, key: DataKey, patience: float) -> bytearray:
        """Unwrap a data key from the first of its wraps that can be; the caller wipes it. Raises as `wrap` does."""
        context = _context(key.id, key.scope, key.purpose)
        error: Exception = ForeignWrap(
            f"data key {key.id:016x} has no wrap of {self._provider.name}: configure the provider that wrapped it"
        )
        for wrap in key.wraps:
            if wrap.provider != self._provider.name:
                continue
            wrapped = WrappedKey(wrap.provider, wrap.kek, wrap.mechanism, wrap.blob)
            self.unwraps += 1
            try:
                secret = await self._call(partial(self._provider.unwrap_key, wrapped, context), patience)
            except Exception as unwrapping:
                error = unwrapping
                continue
            if len(secret) != DATA_KEY_BYTES:
                wipe(secret)
                raise Tampered(f"data key {key.id:016x} has a wrong size once unwrapped: restore its row from a backup")
            return secret
        raise error

    async def _call(self, call: Callable[[], Awaitable[T]], patience: float) -> T:
        try:
            async with asyncio.timeout(patience):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Timeout(
                "too many calls wait for the provider: raise hsm.performance.connectionPoolSize, or look at its latency"
            ) from error
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline):
                return await call()
        except TimeoutError as error:
            raise Timeout(
                f"the provider gave no answer within {self._deadline:g} s (hsm.performance.requestTimeout): is it up?"
            ) from error
        finally:
            self._turns.release()
            self.latency.observe(time.monotonic() - started)


def _context(key_id: int, scope: Scope, purpose: Purpose) -> WrapContext:
    return WrapContext(key_id, scope.keyring, scope.partition, "field" if purpose is Purpose.FIELD else "index")
