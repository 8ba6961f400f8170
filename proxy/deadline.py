"""A bound on calls to a provider that holds whatever its SDK does."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from providers import Timeout
from providers.wiping import wipe

T = TypeVar("T")

GRACE_SECONDS: Final = 0.05
"""How much later than its deadline a call is left behind that did not end by itself."""


async def within(call: Awaitable[T], seconds: float) -> T:
    """Await a call to a provider for that long and GRACE_SECONDS, then leave it behind. Raises Timeout.

    Providers bound their calls themselves and say more about what was late. This holds for one that cannot: its SDK
    cleans up slowly, or swallows the cancellation. What such a call returns later is wiped.
    """
    late = f"the provider gave no answer within {seconds:g} s (hsm.performance.requestTimeout): is it up?"
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds + GRACE_SECONDS)
    except asyncio.CancelledError:
        _leave_behind(task)
        raise
    if not done:
        _leave_behind(task)
        raise Timeout(late)
    try:
        return task.result()
    except TimeoutError as error:  # a provider that lets its SDK's own through
        raise Timeout(late) from error


_left_behind: Final[set[asyncio.Future[Any]]] = set()  # the event loop itself keeps no task alive


def _leave_behind(task: asyncio.Future[Any]) -> None:
    task.cancel()
    _left_behind.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Future[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled() and task.exception() is None and isinstance(secret := task.result(), bytearray):
        wipe(secret)
