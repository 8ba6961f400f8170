"""The C limit server: about the least work that any process can do behind a Unix socket, built for one benchmark.

Looked for in $KEYSIDE_LIMIT, else in ../shared/limit beside the checkout. Where there is none, rows say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from benchmarks.processes import pin, stop, wait_until_listening
from demo.sidecar import end_with_parent

AES_GCM = "1"
BESIDE = Path(__file__).parent.parent.parent / "shared" / "limit"


def source() -> Path | None:
    """Where server.c is, or None."""
    folder = Path(os.environ.get("KEYSIDE_LIMIT", BESIDE))
    return folder / "server.c" if (folder / "server.c").is_file() else None


class Limit:
    """The server in AES-GCM mode on a socket of its own, on one CPU. A context manager: leaving it ends the process."""

    def __init__(self, server_c: Path, folder: Path) -> None:
        self.path = str(folder / "limit.sock")
        self._program = folder / "limit-server"
        compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
        subprocess.run(
            [compiler, "-O2", "-w", "-o", str(self._program), str(server_c), "-lcrypto"],
            check=True,
            capture_output=True,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Limit:
        self._process = subprocess.Popen([str(self._program), self.path, AES_GCM], preexec_fn=end_with_parent)
        wait_until_listening(self.path, self._process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            stop(self._process)

    def move_to(self, cpu: int) -> None:
        """Run on the CPU that the product's worker is pinned to, so that both are measured in the same place."""
        assert self._process is not None
        pin(self._process.pid, {cpu})
