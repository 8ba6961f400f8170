"""Time and retries, apart from any back end."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from providers import Denied, Throttled, Timeout, Unavailable
from providers.bounded import FIRST_BACKOFF_SECONDS, BoundedCalls
from providers.options import Performance
from tests.providers.rig import Failing


def calls(timeout: int = 2000, retries: int = 3, multiplier: float = 2.0) -> BoundedCalls:
    policy = {"maxRetries": retries, "backoffMultiplier": multiplier}
    return BoundedCalls("TEST", Performance.model_validate({"requestTimeout": timeout, "retryPolicy": policy}))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses asked for; none is waited for."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr("providers.bounded.asyncio.sleep", recorded)
    return asked


async def test_pauses_have_full_jitter_and_grow(pauses: list[float]) -> None:
    rounds = 200
    for _ in range(rounds):
        with pytest.raises(Unavailable):
            await calls(timeout=60_000).run("op", Failing([Unavailable("down")] * 9))
    for retry in range(3):
        drawn = pauses[retry::3]
        ceiling = FIRST_BACKOFF_SECONDS * 2.0**retry
        assert len(drawn) == rounds
        assert 0 <= min(drawn) < ceiling * 0.2
        assert ceiling * 0.8 < max(drawn) <= ceiling


async def test_a_service_that_names_its_pause_gets_it(pauses: list[float]) -> None:
    await calls().run("op", Failing([Throttled("slow", retry_after=1.5)]))
    assert pauses == [1.5]


async def test_a_pause_that_does_not_fit_is_not_waited_for(pauses: list[float]) -> None:
    failing = Failing([Throttled("slow", retry_after=30)])
    with pytest.raises(Throttled):
        await calls(timeout=500).run("op", failing)
    assert (failing.calls, pauses) == (1, [])


async def test_no_retries_means_one_attempt(pauses: list[float]) -> None:
    failing = Failing([Unavailable("down")])
    with pytest.raises(Unavailable):
        await calls(retries=0).run("op", failing)
    assert failing.calls == 1


async def test_the_time_covers_attempts_and_pauses_together() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.06)
        raise Unavailable("down")

    started = time.monotonic()
    with pytest.raises((Timeout, Unavailable)):
        await calls(timeout=200, retries=20, multiplier=1).run("op", slow)
    assert time.monotonic() - started < 1


async def test_only_our_own_deadline_becomes_timeout() -> None:
    async def stray() -> None:
        raise TimeoutError("somebody else's")

    with pytest.raises(TimeoutError, match="somebody else's"):
        await calls().run("op", stray)


async def test_retries_are_logged_without_what_the_error_says(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await calls().run("unwrap_key", Failing([Unavailable("quotes a token")]))
    with pytest.raises(Denied):
        await calls().run("unwrap_key", Failing([Denied("quotes a token")]))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "TEST: unwrap_key failed (Unavailable)"
    ]


async def test_an_outage_is_no_flood_in_the_log(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    bounded = calls()
    for _ in range(50):
        await bounded.run("unwrap_key", Failing([Unavailable("away")]))
    await bounded.run("wrap_key", Failing([Unavailable("away")]))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "TEST: unwrap_key failed (Unavailable)",
        "TEST: wrap_key failed (Unavailable)",
    ]
