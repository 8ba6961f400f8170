"""`python -m tests.integration.assemble < hsm.json`: one provider among a sidecar's imports, used once, and its cost.

Imports what `keyside serve` imports, opens the provider of the `hsm` section on standard input, wraps and unwraps, and
prints the modules that are loaded and the resident memory in bytes, as JSON.
"""

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path

from providers import WrapContext, create
from proxy.reporting import resident_bytes

SERVICE = ("proxy.cli.serve", "proxy.assembly", "fastpath.dataplane", "fastpath.memory")


async def use(hsm: dict[str, object]) -> None:
    provider = create(hsm, Path("/"))
    try:
        context = WrapContext(1, "users", None, "field")
        key = bytearray(range(32))
        assert await provider.unwrap_key(await provider.wrap_key(key, context), context) == key
        await provider.health_check()
    finally:
        await provider.close()


if __name__ == "__main__":
    for module in SERVICE:
        import_module(module)
    asyncio.run(use(json.load(sys.stdin)))
    sys.stdout.write(json.dumps({"modules": sorted(sys.modules), "resident": resident_bytes()}))
