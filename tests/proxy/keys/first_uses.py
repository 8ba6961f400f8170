"""A sidecar's control plane in first use of many scopes at once, until somebody kills it. Run by test_crash.py.

Prints a line for each key the moment the data plane could encrypt with it: `active ID SCOPE BUDGET KEY`. What the real
data plane does after that moment, a SIGKILL may cut off anywhere; what it did before must never be lost.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from fastpath.dataplane import ScopeMiss
from providers import create
from proxy.config import parse
from proxy.keys import KeyOptions, KeyService
from proxy.keystore import Keystore
from tests.proxy.planes import RecordingPlane


class ReportingPlane(RecordingPlane):
    """Says what it can encrypt with, at once and unbuffered."""

    def activate(self, key_id: int, budget: int) -> bool:
        done = super().activate(key_id, budget)
        slot = self.slots[key_id]
        os.write(1, f"active {key_id} {slot.scope} {budget} {slot.key.hex()}\n".encode())
        return done


async def serve(folder: Path, generation: int) -> None:
    config = parse("", base=folder)
    store = Keystore.open(config.keystore.location)
    provider = create(config.hsm, folder)
    await provider.initialize()
    options = replace(KeyOptions.of(config), lease=100)
    service = KeyService(ReportingPlane(), store, provider, options)
    os.write(1, b"ready\n")
    token = 300
    for wave in range(1000):
        misses = []
        for number in range(100):
            token += 1
            # a third of the scopes was used before by the processes that were killed
            owner = generation if number % 3 else 0
            misses.append(ScopeMiss("scope", token, f"users/{owner}-{wave}-{number}", 0, 1, 1000))
        await asyncio.gather(*(service.handle(miss) for miss in misses))


asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
