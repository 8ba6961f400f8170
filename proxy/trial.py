"""Trying a provider out, step by step: what `keyside provider check` walks.

The provider's own probes (credentials, reachability, key, permissions), then what the sidecar will do all day, with a
key that is thrown away: wrap, unwrap, be refused with another context, and how long that takes.
"""

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from statistics import quantiles
from typing import Final, Literal

from providers import (
    Closed,
    ConfigurationInvalid,
    CredentialsInvalid,
    HealthStatus,
    Provider,
    ProviderError,
    RetryableError,
    Tampered,
    WrapContext,
    WrappedKey,
)
from providers.wiping import wipe
from proxy import log
from proxy.deadline import within
from proxy.keys.wrapping import random_key

Outcome = Literal["ok", "warning", "failed", "skipped"]

LATENCY_CALLS: Final = 30
LATENCY_SECONDS: Final = 10.0
CONTEXT: Final = WrapContext(1, "keyside-provider-check", None, "field")
OTHER_CONTEXT: Final = WrapContext(2, "keyside-provider-check", None, "field")

# after these nothing else can be found out; and credentials that were refused must not be offered again and again
_FINAL: Final = (RetryableError, CredentialsInvalid, ConfigurationInvalid, Closed)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found. `detail`: for people; of a failed one what to do."""

    title: str
    outcome: Outcome
    detail: str
    seconds: float
    error: Exception | None = None


class Trial:
    """One walk. Its key is random, wrapped for a context that no data key has, and wiped."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._deadline = provider.describe().timeout_seconds
        self._hopeless: str | None = None  # the step after which there is nothing more to find out
        self._key = random_key()
        self._wrapped: WrappedKey | None = None
        self.latency: dict[str, dict[str, float]] = {}  # seconds by operation and percentile, once measured

    async def steps(self) -> AsyncIterator[Step]:
        """Each step as it ends."""
        # a probe may take several calls
        patience = max(3 * self._deadline, LATENCY_SECONDS)
        try:
            for probe in self._provider.probes():
                yield await self._step(probe.title, probe.call, patience)
            yield await self._step("health", self._health, self._deadline)
            yield await self._step("wrap", self._wrap, self._deadline)
            for title, call, seconds in (
                ("unwrap", self._unwrap, self._deadline),
                ("binding", self._refuses_another_context, self._deadline),
                ("latency", self._latency, patience + LATENCY_SECONDS),
            ):
                if self._wrapped is None and self._hopeless is None:
                    self._hopeless = "wrap"
                yield await self._step(title, call, seconds)
        finally:
            wipe(self._key)

    async def _step(self, title: str, call: Callable[[], Awaitable[str]], patience: float) -> Step:
        if self._hopeless:
            return Step(title, "skipped", f"needs what failed: {self._hopeless}", 0.0)
        started = time.monotonic()
        try:
            detail = await within(call(), patience)
        except _Degraded as degraded:
            return Step(title, "warning", str(degraded), time.monotonic() - started)
        except ProviderError as error:
            if isinstance(error, _FINAL):
                self._hopeless = title
            return Step(title, "failed", str(error), time.monotonic() - started, error)
        except Exception as error:  # a defect of one step: the others may still tell something
            correlation = log.defect(f"{title} failed unexpectedly", error)
            detail = f"a defect: please report it, with the log line correlation={correlation}"
            return Step(title, "failed", detail, time.monotonic() - started, error)
        return Step(title, "ok", detail, time.monotonic() - started)

    async def _health(self) -> str:
        health = await self._provider.health_check()
        match health.status:
            case HealthStatus.OK:
                return health.detail
            case HealthStatus.DEGRADED:
                raise _Degraded(health.detail)
            case HealthStatus.DOWN:
                raise ProviderError(health.detail)

    async def _wrap(self) -> str:
        self._wrapped = await self._provider.wrap_key(self._key, CONTEXT)
        return f"{self._wrapped.mechanism}, {len(self._wrapped.blob)} bytes, under {self._wrapped.kek}"

    async def _unwrap(self) -> str:
        assert self._wrapped is not None
        found = await self._provider.unwrap_key(self._wrapped, CONTEXT)
        try:
            if not hmac.compare_digest(found, self._key):
                raise Tampered("another key came back than was wrapped: do not use this back end, and report it")
        finally:
            wipe(found)
        return "the key that was wrapped came back"

    async def _refuses_another_context(self) -> str:
        assert self._wrapped is not None
        try:
            wipe(await self._provider.unwrap_key(self._wrapped, OTHER_CONTEXT))
        except Tampered:
            return "with another context it is refused"
        raise Tampered("unwrapped for another context than it was made for: do not use this back end, and report it")

    async def _latency(self) -> str:
        assert self._wrapped is not None
        wraps: list[float] = []
        unwraps: list[float] = []
        began = time.monotonic()
        while len(wraps) < LATENCY_CALLS and (len(wraps) < 2 or time.monotonic() - began < LATENCY_SECONDS):
            at = time.monotonic()
            await self._provider.wrap_key(self._key, CONTEXT)
            between = time.monotonic()
            wipe(await self._provider.unwrap_key(self._wrapped, CONTEXT))
            wraps.append(between - at)
            unwraps.append(time.monotonic() - between)
        self.latency = {"wrap": _percentiles(wraps), "unwrap": _percentiles(unwraps)}
        said = [
            f"{name} p50 {found['p50'] * 1000:.1f} ms, p95 {found['p95'] * 1000:.1f} ms"
            for name, found in self.latency.items()
        ]
        return f"{'; '.join(said)}; {len(wraps)} of each, one at a time"


class _Degraded(Exception):
    """It works, and somebody should look at it."""


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94]}
