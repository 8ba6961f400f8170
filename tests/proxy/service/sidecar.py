"""A real `keyside serve` in a folder of its own, for tests that ask the whole thing."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 20.0
KEYSIDE = [sys.executable, "-m", "proxy.cli"]
ROOT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    """Ours without a trace of an outer sidecar, and with the sources importable from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYSIDE_", "LISTEN_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def keyside(
    *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end."""
    return subprocess.run(
        [*KEYSIDE, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        env=environment(**environ),
        cwd=cwd,
        check=False,
    )


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ks") as name:
        yield Path(name)


def initialize(home: Path, **settings: str) -> Path:
    """`keyside init`, then sections replaced by the given YAML. Returns the configuration's path."""
    path = home / "keyside.yaml"
    done = keyside("init", "--config", path)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    for section, yaml in settings.items():
        text = replace_section(text, section, yaml)
    path.write_text(text)
    return path


def replace_section(text: str, section: str, yaml: str) -> str:
    """`text` with one top-level section replaced."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{section}:"))
    end = next(
        (number for number, line in enumerate(lines) if number > start and line[:1].isalpha()),
        len(lines),
    )
    return "\n".join([*lines[:start], f"{section}: {yaml}", *lines[end:], ""])


class Sidecar:
    """The running process. `log` is what it wrote to standard error."""

    def __init__(self, config: Path, *, environ: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()) -> None:
        self.config = config
        self.home = config.parent
        self.data = self.home / "run" / "keyside.sock"
        self.admin = self.home / "run" / "admin.sock"
        self._log = (self.home / "serve.log").open("ab")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(f"\0keyside-test-{os.getpid()}-{time.monotonic_ns()}")
        self._notify.settimeout(PATIENCE)
        address = self._notify.getsockname().decode().replace("\0", "@")
        self.process = subprocess.Popen(
            [*KEYSIDE, "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment(NOTIFY_SOCKET=address, **(environ or {})),
            pass_fds=pass_fds,
        )

    @property
    def log(self) -> str:
        return (self.home / "serve.log").read_text()

    def notification(self) -> dict[str, str]:
        """The next report to the service manager."""
        deadline = time.monotonic() + PATIENCE
        self._notify.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                received = self._notify.recv(4096).decode()
            except TimeoutError:
                assert self.process.poll() is None, f"the sidecar ended with {self.process.returncode}: {self.log}"
                continue
            return dict(line.split("=", 1) for line in received.splitlines())
        raise AssertionError(f"no report within {PATIENCE} s: {self.log}")

    def until_ready(self) -> "Sidecar":
        while self.notification().get("READY") != "1":
            pass
        return self

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """A command that must succeed; returns its standard output."""
        done = keyside(*arguments, "--config", self.config, stdin=stdin)
        assert done.returncode == 0, (done.stderr, self.log)
        return done.stdout

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request on the admin socket: HTTP status and the decoded body."""
        return http_request(self.admin, method, path, body)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """A request over HTTP on the data socket."""
        return http_request(self.data, "POST", path, body)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._notify.close()
        self._log.close()


@contextmanager
def running(config: Path, **options: Any) -> Iterator[Sidecar]:
    """A sidecar that is ready; ended without mercy when the block ends."""
    sidecar = Sidecar(config, **options)
    try:
        yield sidecar.until_ready()
    finally:
        sidecar.close()


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self.path))


def http_request(path: Path, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    connection = UnixHttp(path)
    try:
        connection.request(method, target, body if body is None or isinstance(body, bytes) else json.dumps(body))
        response = connection.getresponse()
        read = response.read()
    finally:
        connection.close()
    is_json = response.headers.get_content_type() == "application/json"
    return response.status, json.loads(read) if is_json else read.decode()
