"""A data key that was wrapped and unwrapped is in no memory of the process once its channel has been idle.

gRPC keeps what it sent and received last in the buffers of a TLS connection, out of reach; a channel without calls for
two seconds parts with its connection, and the process overwrites what it frees, as the service does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.providers.gcp.rig import GcpRig
from tests.providers.test_residue import LEAVING_NOTHING, MASK, ROOT, copies

PATIENCE = 20  # seconds

HOLDER = f"""
import asyncio, json, os, sys
from pathlib import Path
from providers import WrapContext, create

async def main(hsm, folder):
    provider = create(json.loads(hsm), Path(folder))
    context = WrapContext(1, "users", "42", "field")
    key = bytearray(os.urandom(32))
    masked = bytes(byte ^ {MASK} for byte in key)
    unwrapped = await provider.unwrap_key(await provider.wrap_key(key, context), context)
    assert unwrapped == key
    key[:] = unwrapped[:] = bytes(32)
    print(masked.hex(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    assert await provider.wrap_key(bytes(32), context), "connects anew"
    await provider.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_no_copy_of_a_data_key_outlives_an_idle_channel(rig: GcpRig) -> None:
    command = [sys.executable, "-c", HOLDER, json.dumps(rig.hsm()), str(rig.folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | LEAVING_NOTHING, text=True
    ) as holder:
        assert holder.stdout is not None
        key = bytes(byte ^ MASK for byte in bytes.fromhex(holder.stdout.readline()))
        until = time.monotonic() + PATIENCE
        while (found := copies(holder.pid, (key[:16], key[16:], key.hex().encode()))) and time.monotonic() < until:
            time.sleep(0.25)
        holder.communicate("")
    assert found == 0
    assert holder.returncode == 0
