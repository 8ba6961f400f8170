"""A provider for the tests of the control plane: real cryptography (`cryptography`), counted calls, faults."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from providers import Capability, Description, Health, HealthStatus, Provider, Tampered, WrapContext, WrappedKey

Fault = Callable[[], Awaitable[None]]


class CountingProvider(Provider):
    """Wraps with AES-256-GCM under a key that tests may know. `fault` is awaited before each call."""

    name = "COUNTING"
    capabilities = Capability(0)
    lacks: dict[Capability, str] = {}  # noqa: RUF012  (never changed)

    def __init__(self, kek: bytes | None = None, *, concurrent_calls: int = 8, timeout_seconds: float = 3.0) -> None:
        self.kek = kek or os.urandom(32)
        self.fault: Fault | None = None
        self.wraps = 0
        self.unwraps = 0
        self.now = 0
        self.most_at_once = 0
        self._concurrent_calls = concurrent_calls
        self._timeout_seconds = timeout_seconds
        self.returned: list[bytearray] = []

    async def initialize(self) -> None: ...

    async def close(self) -> None: ...

    async def health_check(self) -> Health:
        return Health(HealthStatus.OK, "up", 0.0)

    def describe(self) -> Description:
        return Description(
            provider=self.name,
            kek="kek-1",
            mechanism="AES-256-GCM",
            capabilities=self.capabilities,
            lacks={},
            options={},
            concurrent_calls=self._concurrent_calls,
            timeout_seconds=self._timeout_seconds,
        )

    async def wrap_key(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        self.wraps += 1
        await self._call()
        nonce = os.urandom(12)
        blob = nonce + AESGCM(self.kek).encrypt(nonce, bytes(key), context.authenticated())
        return WrappedKey(self.name, "kek-1", "AES-256-GCM", blob)

    async def unwrap_key(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        self.unwraps += 1
        await self._call()
        try:
            key = AESGCM(self.kek).decrypt(wrapped.blob[:12], wrapped.blob[12:], context.authenticated())
        except InvalidTag as error:
            raise Tampered("the wrap does not authenticate") from error
        self.returned.append(bytearray(key))
        return self.returned[-1]

    async def _call(self) -> None:
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            await asyncio.sleep(0)
            if self.fault is not None:
                await self.fault()
        finally:
            self.now -= 1
