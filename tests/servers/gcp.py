"""A Google Cloud KMS on loopback: the test server of tests/fakes/gcp, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.servers import Served

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = "keyside-test"
LOCATION: Final = "europe-west1"
RING: Final = f"projects/{PROJECT}/locations/{LOCATION}/keyRings/keyside"


@dataclass(frozen=True)
class ServedGoogle(Served):
    """The running server, and what tests order it to do."""

    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Host and port of the gRPC service."""
        return f"127.0.0.1:{self.ready['port']}"

    def order(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it `do` something: rotate, state, fault, latency, restrict, unplug ... (tests/fakes/gcp/server.py)."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ready['http']}/control",
            json.dumps({"do": do, **arguments}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return dict(json.load(answer))


@contextmanager
def serve(folder: Path, *, client_certificates: bool = False, latency: float = 0.0) -> Iterator[ServedGoogle]:
    """Start it with the key `keyside`; `latency` in seconds is added to every call."""
    command = [sys.executable, "-m", "tests.fakes.gcp", str(folder)]
    if client_certificates:
        command.append("--client-certificates")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            if not (line := process.stdout.readline()):
                raise RuntimeError("the test server ended before it served: its message is above")
            served = _described(json.loads(line), client_certificates)
            if latency:
                served.order("latency", seconds=latency)
            yield served
        finally:
            process.kill()


def _described(ready: dict[str, Any], client_certificates: bool) -> ServedGoogle:
    tls = {"caFile": ready["authority"]}
    if client_certificates:
        tls |= {"certificateFile": ready["client_certificate"], "keyFile": ready["client_key"]}
    hsm = {
        "provider": "GCP_KMS",
        "kek": "keyside",
        "connection": {
            "endpoint": f"127.0.0.1:{ready['port']}",
            "region": LOCATION,
            "partition": "keyside",
            "tls": tls,
        },
        "credentials": {"type": "SERVICE_PRINCIPAL", "data": {"serviceAccountKeyFile": ready["account"]}},
    }
    metadata = f"127.0.0.1:{ready['http']}"
    environment = {"GCE_METADATA_HOST": metadata, "GCE_METADATA_IP": metadata}
    return ServedGoogle(hsm, environment, ready)
