"""A real `keyside serve` in a folder of its own, for tests that ask the whole thing."""

import atexit
import http.client
import io
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
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

from proxy.cli import run

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


class Said(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


def command(*arguments: str | Path, stdin: bytes = b"") -> Said:
    """The command line within this process, which saves its imports."""
    streams = [io.TextIOWrapper(io.BytesIO(given), encoding="utf-8") for given in (stdin, b"", b"")]
    with patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]):
        code = run([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
    _, out, err = (stream.detach() for stream in streams)
    return Said(code, out.getvalue(), err.getvalue())


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ks") as name:
        path = Path(name)
        path.chmod(0o755)  # some tests come as somebody else
        yield path


def initialize(home: Path, **settings: str) -> Path:
    """`keyside init`, then sections replaced by the given YAML. Returns the configuration's path."""
    path = home / "keyside.yaml"
    done = command("init", "--config", path)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    for section, yaml in settings.items():
        text = replace_section(text, section, yaml)
    path.write_text(text)
    return path


def replace_section(text: str, section: str, yaml: str) -> str:
    """`text` with one top-level section replaced."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"{section}:")), len(lines))
    end = next(
        (number for number, line in enumerate(lines) if number > start and line[:1].isalpha()),
        len(lines),
    )
    return "\n".join([*lines[:start], f"{section}: {yaml}", *lines[end:], ""])


class Process(Protocol):
    """The part of subprocess.Popen that a sidecar's process is asked for."""

    pid: int

    def poll(self) -> int | None: ...


class Forked:
    """A process that the zygote forked."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._zygote.ask(poll=self.pid)["status"]
        return self._status


class Zygote:
    """A process that has imported everything, and forks sidecars (tests/proxy/service/zygote.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proxy.service.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, config: Path, log: Path, environ: dict[str, str], locked: int | None) -> Forked:
        start = {"config": str(config), "log": str(log), "environ": environ, "locked": locked}
        return Forked(self, self.ask(start=start)["pid"])

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@cache
def zygote() -> Zygote:
    started = Zygote()
    atexit.register(started.close)
    return started


def executed(config: Path, log: Path, environ: dict[str, str], pass_fds: tuple[int, ...]) -> Process:
    with log.open("ab") as written:
        return subprocess.Popen(
            [*KEYSIDE, "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            env=environment(**environ),
            pass_fds=pass_fds,
        )


class Sidecar:
    """A running `keyside serve`: forked, or executed as an operator would. `log`: its standard error."""

    def __init__(
        self,
        config: Path,
        *,
        execute: bool = False,
        environ: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        locked: int | None = None,
    ) -> None:
        self.config = config
        self.home = config.parent
        self.data = self.home / "run" / "keyside.sock"
        self.admin = self.home / "run" / "admin.sock"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(f"\0keyside-test-{os.getpid()}-{time.monotonic_ns()}")
        address = self._notify.getsockname().decode().replace("\0", "@")
        whole = {"NOTIFY_SOCKET": address, **(environ or {})}
        log = self.home / "serve.log"
        self.process: Process = (
            executed(config, log, whole, pass_fds) if execute else zygote().start(config, log, whole, locked)
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
                assert self.process.poll() is None, f"the sidecar ended: {self.log}"
                continue
            return dict(line.split("=", 1) for line in received.splitlines())
        raise AssertionError(f"no report within {PATIENCE} s: {self.log}")

    def until_ready(self) -> "Sidecar":
        while self.notification().get("READY") != "1":
            pass
        return self

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """A command that must succeed; returns its standard output."""
        done = command(*arguments, "--config", self.config, stdin=stdin)
        assert done.returncode == 0, (done.stderr, self.log)
        return done.stdout

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request on the admin socket: HTTP status and the decoded body."""
        return http_request(self.admin, method, path, body)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """A request over HTTP on the data socket."""
        return http_request(self.data, "POST", path, body)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still running after {PATIENCE} s: {self.log}"
            time.sleep(0.01)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.wait()
        self._notify.close()


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
