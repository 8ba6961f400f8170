"""How the provider is, asked now and then, so that nobody who wants to know waits for a back end that hangs."""

import asyncio
import logging
from typing import Final, NamedTuple

from providers import HealthStatus, Provider, Timeout
from proxy import log
from proxy.deadline import within

CHECK_SECONDS: Final = 30.0
"""Between checks of a provider that is well."""

TROUBLED_SECONDS: Final = 5.0
"""Between checks of one that is not."""

ANSWER_SECONDS: Final = 5.0
"""A check that takes longer says that the provider is down."""


class PartHealth(NamedTuple):
    """How the provider or the keystore is, as the status document says it."""

    status: str  # ok, degraded, down or unknown
    detail: str


HEALTHS: Final = (*(status.value for status in HealthStatus), "unknown")
UNKNOWN: Final = PartHealth("unknown", "not asked yet")


class ProviderWatch:
    """Asks one provider at a time for its health, one check at a time. Used from one event loop."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._check: asyncio.Task[None] | None = None
        self.health = UNKNOWN
        self._answer = UNKNOWN  # its own last word, where `health` may be that there was none
        self.answered = False  # once it has, cached keys outlive its outages

    def replace(self, provider: Provider) -> None:
        """Watch another provider, one that was opened already. What the one before still answers is not looked at."""
        self._provider = provider
        if self._check is not None:
            self._check.cancel()
            self._check = None
        self.health = self._answer = UNKNOWN
        self.answered = True

    async def ask(self, patience: float) -> PartHealth:
        """Its health now, or as it was last known when a new answer takes longer than `patience` seconds."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._look(self._provider))
        await asyncio.wait({self._check}, timeout=patience)
        return self.health

    async def run(self) -> None:
        """Check for ever. A provider whose check costs nothing is asked when somebody wants to know, and not here."""
        while True:
            if not self._provider.health_is_free:
                await self.ask(ANSWER_SECONDS)
            well = self.health.status in (HealthStatus.OK.value, UNKNOWN.status)
            await asyncio.sleep(CHECK_SECONDS if well else TROUBLED_SECONDS)

    async def close(self) -> None:
        """End a check that is under way."""
        if self._check is not None:
            self._check.cancel()
            await asyncio.wait({self._check}, timeout=ANSWER_SECONDS)

    async def _look(self, provider: Provider) -> None:
        try:
            found = await within(provider.health_check(), ANSWER_SECONDS)
            health = PartHealth(found.status.value, found.detail)
            self._answer = health
        except Timeout:
            health = PartHealth(HealthStatus.DOWN.value, f"no answer within {ANSWER_SECONDS:g} s{self._last_reason()}")
        except Exception as error:  # a defect of one back end must not end the watch of it
            log.defect("asking the provider how it is failed", error)
            health = PartHealth(HealthStatus.DOWN.value, "asking it failed: the log says more")
        if provider is self._provider:
            self._note(health)

    def _last_reason(self) -> str:
        """Why it was not well when it last said something: the first reason is often the cause of the others."""
        if self._answer.status in (HealthStatus.OK.value, UNKNOWN.status):
            return ""
        return f"; when it last answered: {self._answer.detail}"

    def _note(self, health: PartHealth) -> None:
        if health.status != self.health.status and (health.status != HealthStatus.OK.value or self.health != UNKNOWN):
            level = logging.INFO if health.status == HealthStatus.OK.value else logging.WARNING
            log.event(level, f"provider health: {health.status.upper()}", detail=health.detail)
        self.health = health
        self.answered = self.answered or health.status != HealthStatus.DOWN.value
