"""Starting a sidecar costs a second of imports; this process has them done, and forks one for each test that asks.

A line of JSON in, a line out: {"start": {...}} answers {"pid"}; {"poll": pid} answers {"status"}, null while it runs.
"""

import ctypes
import json
import os
import resource
import sys
from importlib import import_module
from typing import Any

from proxy.cli import run
from proxy.startup import overwriting_environment

# what `serve` would import, lazily
for module in ("proxy.cli.serve", "proxy.assembly", "fastpath.dataplane", "fastpath.memory", "providers.local"):
    import_module(module)


def serve(config: str, log: str, environ: dict[str, str], locked: int | None) -> int:
    os.environ.update(environ)
    # as if the process had been executed anew, which would throw the imports away
    os.environ.update(overwriting_environment(os.environ) or {})
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(written, stream)
    if locked is not None:
        lock_at_most(locked)
    return run(["serve", "--config", config])


def lock_at_most(size: int) -> None:
    """That lock limit in bytes, and no privilege to ignore it."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(header, sets) == 0:
        cap_ipc_lock = 14
        for place in range(3):
            sets[place] &= ~(1 << cap_ipc_lock)
        libc.capset(header, sets)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "start" in request:
        pid = os.fork()
        if pid == 0:
            os._exit(serve(**request["start"]))
        return {"pid": pid}
    pid, status = os.waitpid(request["poll"], os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if pid else None}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
