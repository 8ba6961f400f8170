"""Calls a provider from many tasks at once, in a process of its own, and says how long those took that failed.

    python -m benchmarks.callers TIMEOUT CALLERS < {"hsm": ...}

A process of its own, so that nothing is measured but the provider: not who else wants the interpreter. The first line
of its input is the section `hsm` in JSON, the second says to begin, the third to end. It answers `ready` to the first,
and to the last how many calls failed, and by how many seconds the longest of them outlasted its time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop

from providers import Provider, ProviderError, Timeout, WrapContext, WrappedKey, create
from providers.wiping import wipe

CONTEXT = WrapContext(42, "users", "42", "field")
PAUSE_SECONDS = 0.01
OPENING_SECONDS = 20.0


async def opened(provider: Provider) -> None:
    """Importing an SDK may take longer than a call may; it goes on, and the next attempt finds it done."""
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            await provider.initialize()
            return
        except Timeout:
            if time.monotonic() > deadline:
                raise


async def live(allowed: float, callers: int) -> None:
    provider = create(json.loads(sys.stdin.readline()), Path("/"))
    try:
        await opened(provider)
        wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        ended = asyncio.Event()
        calls = [asyncio.create_task(caller(provider, wrapped, ended)) for _ in range(callers)]
        await asyncio.to_thread(sys.stdin.readline)
        ended.set()
        late = [seconds - allowed for task in calls for seconds in await task]
        print(json.dumps([len(late), max(late, default=0.0)]), flush=True)
    finally:
        await provider.close()


async def caller(provider: Provider, wrapped: WrappedKey, ended: asyncio.Event) -> list[float]:
    """One call after another; the seconds of those that failed."""
    failed = []
    while not ended.is_set():
        began = time.perf_counter()
        try:
            wipe(await provider.unwrap_key(wrapped, CONTEXT))
        except ProviderError:
            failed.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_SECONDS)
    return failed


if __name__ == "__main__":
    uvloop.run(live(float(sys.argv[1]), int(sys.argv[2])))
