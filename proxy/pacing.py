"""How many wraps and unwraps a second a provider does, with as many callers at once as it is configured for."""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final, Literal

from providers import CredentialsInvalid, Provider, ProviderError, WrapContext
from providers.wiping import wipe
from proxy.keys.wrapping import random_key

Operation = Literal["wrap", "unwrap"]

CONTEXT: Final = WrapContext(1, "keyside-provider-bench", None, "field")
MOST_CALLS: Final = 10_000_000
FAILURE_PAUSE_SECONDS: Final = 0.01


@dataclass(slots=True)
class Pace:
    """What one operation reached."""

    operation: Operation
    callers: int
    seconds: float = 0.0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))  # seconds, of calls that succeeded
    failures: Counter[str] = field(default_factory=Counter)  # by kind

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, hundredth: int) -> float | None:
        """In seconds; None where too few calls succeeded to tell."""
        if len(self.latencies) < 2:
            return None
        return quantiles(self.latencies, n=100, method="inclusive")[hundredth - 1]


async def measure(
    provider: Provider, operation: Operation, callers: int, seconds: float, advance: Callable[[float], None]
) -> Pace:
    """Keep `callers` calls under way for so long; `advance` is told how many seconds have passed since the last time.

    Failures are counted, and do not end it, except for refused credentials. Raises ProviderError when the key that is
    to be unwrapped cannot even be wrapped.
    """
    key = random_key()
    pace = Pace(operation, callers)
    try:
        call = await _call(provider, operation, key)
        began = time.monotonic()
        until = began + seconds
        crowd = [asyncio.create_task(_caller(call, pace, until)) for _ in range(callers)]
        told = began
        pending = set(crowd)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=0.1)
            now = time.monotonic()
            advance(now - told)
            told = now
        pace.seconds = time.monotonic() - began
        for caller in crowd:
            caller.result()
        return pace
    finally:
        wipe(key)


async def _call(provider: Provider, operation: Operation, key: bytearray) -> Callable[[], Awaitable[None]]:
    async def wrap() -> None:
        await provider.wrap_key(key, CONTEXT)

    if operation == "wrap":
        return wrap
    wrapped = await provider.wrap_key(key, CONTEXT)

    async def unwrap() -> None:
        wipe(await provider.unwrap_key(wrapped, CONTEXT))

    return unwrap


async def _caller(call: Callable[[], Awaitable[None]], pace: Pace, until: float) -> None:
    while (at := time.monotonic()) < until and len(pace.latencies) < MOST_CALLS:
        try:
            await call()
        except CredentialsInvalid:
            raise
        except ProviderError as error:
            pace.failures[type(error).__name__] += 1
            await asyncio.sleep(FAILURE_PAUSE_SECONDS)
        else:
            pace.latencies.append(time.monotonic() - at)
        await asyncio.sleep(0)  # a provider that never waits would keep the clock from the others
