"""The demo's sidecar with what measuring needs: a temporary folder, settings, restarts, the admin socket."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from demo import sidecar as demo
from demo.sidecar import SidecarError

READY_SECONDS = 20.0


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Sidecar(demo.Sidecar):
    """`keyside serve` with LOCAL, or the provider of `hsm`. `settings`: sections merged into init's configuration."""

    def __init__(
        self,
        workers: int | None = None,
        hsm: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: dict[str, Any],
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keyside-bench-")
        super().__init__(Path(self._folder.name), hsm["provider"] if hsm else "LOCAL", hsm, environment)
        self.path = str(self.socket)
        self.admin_path = str(self.socket.with_name("admin.sock"))
        self._settings = settings | ({"workers": {"count": workers}} if workers else {})

    def __enter__(self) -> Sidecar:
        try:
            self.init()
            self._configure()
            self.start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        try:
            self.stop()
        finally:
            self._folder.cleanup()

    def _configure(self) -> None:
        sections = yaml.safe_load(self.config.read_text())
        for name, values in self._settings.items():
            sections[name] = (sections.get(name) or {}) | values
        self.config.write_text(yaml.safe_dump(sections))

    def start(self) -> int:
        """Start the process, wait until it is ready, return its pid. Raises SidecarError."""
        pid = super().start()
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if time.monotonic() > deadline:
                raise SidecarError(f"the sidecar was not ready within {READY_SECONDS:.0f} s:\n{self.last_words()}")
            time.sleep(0.02)
        return pid

    def _ready(self) -> bool:
        try:
            self.admin("/v1/ready")
        except (OSError, SidecarError):
            return False
        return True

    def restart(self) -> None:
        """A new process on the same keystore: no data key is cached."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def create_keyring(self, name: str, *, partitioned: bool = False) -> None:
        self.admin("/v1/keyrings", {"name": name, "partitioned": partitioned})

    def admin(self, path: str, send: dict[str, Any] | None = None) -> bytes:
        """What the admin socket answers to GET, or to POST with something to send. Raises SidecarError on a failure."""
        link = SocketConnection(self.admin_path)
        try:
            link.request("GET" if send is None else "POST", path, None if send is None else json.dumps(send))
            answer = link.getresponse()
            body = answer.read()
        finally:
            link.close()
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise SidecarError(f"{path} answered {answer.status}: {body[:200]!r}")
        return body

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.admin("/v1/status"))
        return status
