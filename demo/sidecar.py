"""A sidecar of the demo's own: its folder, its process, and the certainty that the process ends when the demo does."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import yaml

COMMAND = Path(sys.executable).with_name("keyside")
PR_SET_PDEATHSIG = 1
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class SidecarError(Exception):
    """A command failed or the sidecar did not come up; the message ends with what it said itself."""


def end_with_parent() -> None:
    """Runs in the child before exec: the kernel kills the sidecar should the demo itself be killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Sidecar:
    """`keyside serve` on a folder. A context manager: leaving it, by any road, ends the process.

    `hsm`: the section of that name, for a provider other than LOCAL. `environment`: more variables for the process.
    """

    def __init__(
        self,
        folder: Path,
        provider: str,
        hsm: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.hsm = hsm
        self.environment = os.environ | (environment or {})
        self.config = folder / "keyside.yaml"
        self.socket = folder / "run" / "keyside.sock"
        self.log = folder / "sidecar.log"
        self.provider = provider
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, *words: str) -> str:
        """Run `keyside WORDS` with this sidecar's configuration. Raises SidecarError."""
        done = subprocess.run(
            [str(COMMAND), *words, "--config", str(self.config)],
            capture_output=True,
            text=True,
            env=self.environment,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends its children in order
        )
        if done.returncode:
            raise SidecarError(
                f"`keyside {' '.join(words)}` failed with {done.returncode}:\n{done.stderr or done.stdout}"
            )
        return done.stdout

    def init(self) -> None:
        """Write configuration, keystore and, with LOCAL, the root key. Raises SidecarError."""
        if self.hsm is not None:
            owner = {"name": "owner", "uid": os.geteuid(), "keyrings": ["*"], "operations": "all"}
            sections = {"hsm": dict(self.hsm), "policy": {"peers": [owner]}}
            self.config.write_text(yaml.safe_dump(sections))
            self.config.chmod(0o600)  # credentials of a test server, yet a habit
        self.command("init")

    def start(self) -> int:
        """Start the process, wait until it accepts connections, return its pid. Raises SidecarError."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(COMMAND), "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.accepts():
            if self.process.poll() is not None:
                raise SidecarError(f"the sidecar ended with {self.process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise SidecarError(f"the sidecar did not listen within {START_SECONDS:.0f} s:\n{self.last_words()}")
            time.sleep(0.02)
        return self.process.pid

    def accepts(self) -> bool:
        """Whether somebody listens on the data socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, so that it drains; SIGKILL when it takes too long. Does nothing when it does not run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def last_words(self) -> str:
        """The end of the sidecar's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
