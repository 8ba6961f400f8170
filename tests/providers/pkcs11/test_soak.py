"""A second of what the benchmark does for a minute: no error, and no memory that stays."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from providers import WrapContext
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import ServedSoftHsm

CALLERS = 8
SECONDS = 1.0
GROWTH_MIB = 8
CONTEXT = WrapContext(7, "users", "42", "field")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.parametrize("mechanism", ["AES-256-GCM", "AES-KEY-WRAP-PAD"])
async def test_eight_callers_for_a_while(token: ServedSoftHsm, mechanism: str) -> None:
    provider = TokenRig(token, mechanism=mechanism).make(connectionPoolSize=CALLERS)
    key = os.urandom(32)
    wrapped = await provider.wrap_key(key, CONTEXT)

    async def caller(until: float) -> int:
        done = 0
        while time.monotonic() < until:
            assert await provider.unwrap_key(wrapped, CONTEXT) == key
            done += 1
        return done

    async def everybody(seconds: float) -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(caller(until) for _ in range(CALLERS))))

    await everybody(SECONDS / 4)
    before = resident_mib()
    assert await everybody(SECONDS) > 100
    assert resident_mib() - before < GROWTH_MIB
    await provider.close()
