"""`python -m tests.fakes.gcp FOLDER [--client-certificates]`: prints one line of JSON when it serves.

Ends with its parent or when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import sys
from pathlib import Path

import uvloop

from tests.fakes.gcp.server import FakeGoogle, as_json

_PR_SET_PDEATHSIG = 1


async def serve(folder: Path, client_certificates: bool) -> None:
    server = FakeGoogle(folder, client_certificates)
    print(as_json(await server.start()), flush=True)  # noqa: T201  # the line that whoever starts it waits for
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A Google Cloud KMS for tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--client-certificates", action="store_true", help="demand one of every caller")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    uvloop.run(serve(arguments.folder, arguments.client_certificates))
