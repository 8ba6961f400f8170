"""Calls to the provider, few at a time and each with a deadline; and data keys from the system's random source."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from providers import (
    DATA_KEY_BYTES,
    ForeignWrap,
    PoolUsage,
    Provider,
    RetryableError,
    Tampered,
    Timeout,
    WrapContext,
    WrappedKey,
)
from providers.wiping import wipe
from proxy.deadline import within
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
        self._desk = Desk(provider)
        self.latency = Latency()
        self.wraps = 0
        self.unwraps = 0

    @property
    def concurrent_calls(self) -> int:
        """How many calls the provider takes at once."""
        return self._desk.size

    def replace(self, provider: Provider) -> "Desk":
        """Make every call that begins from now on, and those that wait for their turn, to `provider`.

        Calls under way end where they began: the old provider may be closed after `finished()` of what is returned.
        """
        old, self._desk = self._desk, Desk(provider)
        old.send_away()
        return old

    def usage(self) -> PoolUsage:
        """How busy the provider is: its connections, or calls where it has none; and all who wait for one of them."""
        desk = self._desk
        pool = desk.provider.pool_usage() or PoolUsage(desk.size, desk.active, desk.size - desk.active, 0)
        return PoolUsage(pool.size, pool.active, pool.idle, pool.waiting + desk.waiting)

    async def wrap(self, key: bytearray, key_id: int, scope: Scope, purpose: Purpose, patience: float) -> Wrap:
        """Wrap a new data key. Raises ProviderError; Timeout too when no turn came within `patience` seconds."""
        context = _context(key_id, scope, purpose)
        self.wraps += 1
        wrapped = await self._call(lambda provider: provider.wrap_key(key, context), patience)
        return Wrap(wrapped.provider, wrapped.kek, wrapped.mechanism, wrapped.blob, utc_now())

    async def unwrap(self, key: DataKey, patience: float) -> bytearray:
        """Unwrap a data key from the first of its wraps that can be; the caller wipes it. Raises as `wrap` does."""
        context = _context(key.id, key.scope, key.purpose)
        name = self._desk.provider.name
        error: Exception = ForeignWrap(
            f"data key {key.id:016x} has no wrap of {name}: configure the provider that wrapped it"
        )
        for wrap in key.wraps:
            if wrap.provider != name:
                continue
            wrapped = WrappedKey(wrap.provider, wrap.kek, wrap.mechanism, wrap.blob)
            self.unwraps += 1
            try:
                secret = await self._call(partial(_unwrap, wrapped, context), patience)
            except Exception as unwrapping:
                # what may pass by itself counts: a damaged second wrap is no reason to give the first one up
                if not isinstance(error, RetryableError):
                    error = unwrapping
                continue
            if len(secret) != DATA_KEY_BYTES:
                wipe(secret)
                raise Tampered(f"data key {key.id:016x} has a wrong size once unwrapped: restore its row from a backup")
            return secret
        raise error

    async def _call(self, call: "Callable[[Provider], Awaitable[T]]", patience: float) -> T:
        desk = await self._turn(patience)
        started = time.monotonic()
        try:
            return await within(call(desk.provider), desk.deadline)
        finally:
            desk.leave()
            self.latency.observe(time.monotonic() - started)

    async def _turn(self, patience: float) -> "Desk":
        """The provider to call, once it is free for one more call. Raises Timeout."""
        if (desk := self._desk).free and await desk.enter():  # without the timer, which costs as much as all of this
            return desk
        try:
            async with asyncio.timeout(patience):
                while not await (desk := self._desk).enter():
                    continue  # it was replaced in the meantime
                return desk
        except TimeoutError as error:
            raise Timeout(
                "too many calls wait for the provider: raise hsm.performance.connectionPoolSize, or look at its latency"
            ) from error


class Desk:
    """One provider, the calls under way to it and those that wait for their turn."""

    def __init__(self, provider: Provider) -> None:
        description = provider.describe()
        self.provider = provider
        self.size = description.concurrent_calls
        # a few more have their request ready, so that no connection waits for one to be put together
        self._places = self.size + (self.size // 2 if provider.pool_usage() else 0)
        self.deadline = description.timeout_seconds
        self.active = 0
        self.waiting = 0
        self._turns = asyncio.Semaphore(self._places)
        self._replaced = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def free(self) -> bool:
        """Whether `enter` would not wait."""
        return not self._turns.locked()

    async def enter(self) -> bool:
        """Wait for a turn, which `leave` gives back. False: there is a new desk to go to."""
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        if self._replaced:
            return False
        self.active += 1
        self._quiet.clear()
        return True

    def leave(self) -> None:
        self.active -= 1
        self._turns.release()
        if not self.active:
            self._quiet.set()

    def send_away(self) -> None:
        """Let nobody wait here any longer."""
        self._replaced = True
        for _ in range(self.waiting):
            self._turns.release()

    async def finished(self) -> None:
        """Return when no call is under way."""
        await self._quiet.wait()


def _unwrap(wrapped: WrappedKey, context: WrapContext, provider: Provider) -> Awaitable[bytearray]:
    return provider.unwrap_key(wrapped, context)


def _context(key_id: int, scope: Scope, purpose: Purpose) -> WrapContext:
    return WrapContext(key_id, scope.keyring, scope.partition, "field" if purpose is Purpose.FIELD else "index")
