"""Every call to a back end, bounded in time and retried by one rule."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from providers.deadlines import Deadline, DeadlineExpired, Deadlines
from providers.errors import RetryableError, Throttled, Timeout
from providers.options import Performance

FIRST_BACKOFF_SECONDS: Final = 0.05
QUIET_SECONDS: Final = 5.0  # between two log lines about retries of one kind

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class BoundedCalls:
    """Runs calls within `performance.requestTimeout`, retrying RetryableError by `performance.retryPolicy`.

    The time covers a call whole: attempts and the pauses between them. Pauses have full jitter: uniform between 0 and
    FIRST_BACKOFF_SECONDS x backoffMultiplier^n before retry n + 1, and never shorter than a service asks for.
    """

    def __init__(self, provider: str, performance: Performance) -> None:
        self._provider = provider
        self._milliseconds = performance.request_timeout
        self._deadlines = Deadlines(performance.request_timeout / 1000)
        self._policy = performance.retry_policy
        self._random = random.SystemRandom()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when last logged, and how many were not since

    async def run(self, operation: str, call: Callable[[], Awaitable[Result]], making: str | None = None) -> Result:
        """Await `call()`, again where it is worth it. Raises Timeout, or what the last attempt raised.

        `making`: the key that it makes; whether that is there is not known when the time is over.
        """
        failures: list[RetryableError] = []
        try:
            with self._deadlines.begin() as limit:
                return await self._attempts(operation, call, limit, failures)
        except DeadlineExpired as error:
            reason = f"; the attempt before ended with: {failures[-1]}" if failures else ""
            if making is not None:
                reason += f"; whether {making} was made is not known: see whether it is there before another attempt"
            raise Timeout(
                f"{self._provider} did not finish {operation} within {self._milliseconds} ms: see whether it can be "
                f"reached, or raise hsm.performance.requestTimeout{reason}"
            ) from error

    async def _attempts(
        self,
        operation: str,
        call: Callable[[], Awaitable[Result]],
        limit: Deadline,
        failures: list[RetryableError],
    ) -> Result:
        retries = 0
        while True:
            try:
                return await call()
            except RetryableError as error:
                failures.append(error)
                pause = self._pause(retries, error)
                if retries == self._policy.max_retries or pause >= limit.when - asyncio.get_running_loop().time():
                    raise
                retries += 1
                self._say(operation, type(error).__name__, retries, pause)
            await asyncio.sleep(pause)

    def _say(self, operation: str, kind: str, retry: int, pause: float) -> None:
        """Log a retry; those that follow within QUIET_SECONDS are counted, for an outage retries every call."""
        last, unsaid = self._said.get((operation, kind), (float("-inf"), 0))
        now = time.monotonic()
        if now - last < QUIET_SECONDS:
            self._said[operation, kind] = last, unsaid + 1
            return
        self._said[operation, kind] = now, 0
        _log.warning(
            "%s: %s failed (%s); retry %d of %d in %.0f ms%s",
            self._provider,
            operation,
            kind,
            retry,
            self._policy.max_retries,
            pause * 1000,
            f" ({unsaid} more of this kind were not logged)" if unsaid else "",
        )

    def _pause(self, retries: int, error: RetryableError) -> float:
        pause = self._random.uniform(0, FIRST_BACKOFF_SECONDS * self._policy.backoff_multiplier**retries)
        if isinstance(error, Throttled) and error.retry_after is not None:
            return max(pause, error.retry_after)
        return pause
