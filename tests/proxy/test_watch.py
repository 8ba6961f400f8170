"""Health of the provider: nobody waits for a back end that hangs, and what changes is said once."""

import asyncio
import logging
import time

import pytest

from providers import Health, HealthStatus
from proxy import watch
from proxy.watch import PartHealth, ProviderWatch
from tests.proxy.backends import CountingProvider


class Patient(CountingProvider):
    """Answers health checks as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.status = HealthStatus.OK
        self.asked = 0
        self.hangs = False

    async def health_check(self) -> Health:
        self.asked += 1
        await asyncio.sleep(10 if self.hangs else 0)
        return Health(self.status, "as told", 0.0)


async def test_who_asks_gets_the_last_answer_when_the_next_one_does_not_come() -> None:
    provider = Patient()
    watching = ProviderWatch(provider)
    assert (await watching.ask(1)).status == "ok"
    provider.hangs = True
    started = time.monotonic()
    answers = await asyncio.gather(*(watching.ask(0.05) for _ in range(50)))
    assert time.monotonic() - started < 0.5
    assert {answer.status for answer in answers} == {"ok"}
    assert provider.asked == 2  # fifty who want to know make one call
    await watching.close()


async def test_a_check_that_hangs_says_down_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.05)
    provider = Patient()
    provider.hangs = True
    assert await ProviderWatch(provider).ask(1) == PartHealth("down", "no answer within 0.05 s")


async def test_changes_are_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="proxy")  # a test that configured the log may have raised it
    provider = Patient()
    watching = ProviderWatch(provider)
    for status in (HealthStatus.OK, HealthStatus.OK, HealthStatus.DOWN, HealthStatus.DOWN, HealthStatus.OK):
        provider.status = status
        await watching.ask(1)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "provider health: DOWN"), ("INFO", "provider health: OK")]


async def test_what_the_one_before_answers_late_is_not_taken_for_the_new_one() -> None:
    old = Patient()
    old.hangs, old.status = True, HealthStatus.DOWN
    watching = ProviderWatch(old)
    assert (await watching.ask(0.01)).status == "unknown"
    watching.replace(Patient())
    assert watching.answered
    assert (await watching.ask(1)).status == "ok"


async def test_a_defect_in_a_check_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Patient()
    monkeypatch.setattr(provider, "health_check", lambda: 1 / 0)
    watching = ProviderWatch(provider)
    assert (await watching.ask(1)).status == "down"
    monkeypatch.undo()
    assert (await watching.ask(1)).status == "ok"


async def test_it_asks_again_by_itself_and_sooner_when_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TROUBLED_SECONDS", 0.01)
    provider = Patient()
    provider.status = HealthStatus.DOWN
    watching = ProviderWatch(provider)
    running = asyncio.create_task(watching.run())
    await asyncio.sleep(0.1)
    assert provider.asked > 2
    assert not watching.answered
    provider.status = HealthStatus.OK
    await asyncio.sleep(0.1)
    assert watching.answered
    asked = provider.asked
    await asyncio.sleep(0.1)
    assert provider.asked == asked
    running.cancel()
