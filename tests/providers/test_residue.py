"""A data key that LOCAL wrapped and unwrapped, and whose buffers were wiped, is nowhere in the process's memory.

The process overwrites what it frees, as the service does, and binds symbols at start: the lazy binder saves the vector
registers on the stack, with whatever memcpy left in them. Its parent reads its memory: looking leaves no copies.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from providers.local import create_root_key

ROOT = Path(__file__).parents[2]
MASK = 0x5A
LEAVING_NOTHING = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165",
    "LD_BIND_NOW": "1",
}

HOLDER = f"""
import asyncio, os, sys
from pathlib import Path
from providers import WrapContext, create

async def main(folder, mechanism, wipes):
    provider = create({{"provider": "LOCAL", "keyFile": "root.key", "mechanism": mechanism}}, Path(folder))
    context = WrapContext(1, "users", "42", "field")
    key = bytearray(os.urandom(32))
    masked = bytes(byte ^ {MASK} for byte in key)
    wrapped = await provider.wrap_key(key, context)
    unwrapped = await provider.unwrap_key(wrapped, context)
    assert unwrapped == key
    key[:] = bytes(32)
    if wipes == "yes":
        unwrapped[:] = bytes(32)
    print(masked.hex(), flush=True)
    sys.stdin.read()

asyncio.run(main(*sys.argv[1:]))
"""


def copies(pid: int, needles: tuple[bytes, ...]) -> int:
    """How often any of `needles` lies in the readable memory of another process."""
    found = 0
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            addresses, permissions = line.split()[:2]
            if "r" not in permissions or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            memory.seek(start)
            content = memory.read(end - start)
            found += sum(content.count(needle) for needle in needles)
    return found


@pytest.mark.parametrize("mechanism", ["AES-256-GCM", "AES-KWP"])
@pytest.mark.parametrize("wipes", ["yes", "no"])
def test_no_copy_of_a_data_key_is_left_behind(tmp_path: Path, mechanism: str, wipes: str) -> None:
    create_root_key(tmp_path / "root.key")
    command = [sys.executable, "-c", HOLDER, str(tmp_path), mechanism, wipes]
    environment = os.environ | LEAVING_NOTHING
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True
    ) as holder:
        assert holder.stdout is not None
        key = bytes(byte ^ MASK for byte in bytes.fromhex(holder.stdout.readline()))
        # halves, for a copy that was overwritten in part; the base64 of 30 bytes is that of the key but for its end
        needles = (key[:16], key[16:], key.hex().encode(), base64.b64encode(key[:30]))
        found = copies(holder.pid, needles)
        holder.communicate("")
    assert holder.returncode == 0
    assert found == (0 if wipes == "yes" else 2), "the caller's own buffer, both halves, is what is found unwiped"
