"""All of it in one process: gRPC over TLS, HTTP beside it, and the orders that tests give."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from google.cloud.kms_v1.types import resources

from tests.fakes.gcp.certificates import Authority, write
from tests.fakes.gcp.endpoints import Endpoints
from tests.fakes.gcp.faults import Fault, Faults
from tests.fakes.gcp.identity import PROJECT, Identity
from tests.fakes.gcp.keys import Algorithm, Keys, State
from tests.fakes.gcp.service import KmsService

RING = f"projects/{PROJECT}/locations/europe-west1/keyRings/keyside"


@dataclass(frozen=True)
class Ready:
    """What whoever started it must know."""

    port: int  # gRPC, TLS
    http: int
    authority: str  # files
    account: str
    workload: str
    client_certificate: str
    client_key: str
    secrets: tuple[str, ...]  # must never be seen in messages


class FakeGoogle:
    """The server; `obey` takes the orders."""

    def __init__(self, folder: Path, client_certificates: bool = False) -> None:
        self.keys = Keys()
        self.keys.rings.add(RING)
        self.identity = Identity()
        self.faults = Faults()
        self.service = KmsService(self.keys, self.identity, self.faults)
        self.endpoints = Endpoints(self.identity, self.obey)
        self._folder = folder
        self._authority = Authority()
        self._certified = self._authority.certify("fake kms")
        self._demands_certificates = client_certificates
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._runner = web.AppRunner(self.endpoints.application(), access_log=None)

    async def start(self) -> Ready:
        await self._plug()
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        http = int(self._runner.addresses[0][1])
        self.new_key("keyside")
        return self._write(http)

    async def stop(self) -> None:
        await self._unplug()
        await self._runner.cleanup()

    def new_key(self, name: str, *, protection: str = "HSM", purpose: str = "ENCRYPT_DECRYPT") -> str:
        """A key with one version, there from the start."""
        signs = purpose == "ASYMMETRIC_SIGN"
        shown = resources.CryptoKey.pb()(purpose=resources.CryptoKey.CryptoKeyPurpose[purpose])
        shown.version_template.protection_level = resources.ProtectionLevel[protection]
        shown.version_template.algorithm = (
            Algorithm.EC_SIGN_P256_SHA256 if signs else Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION
        )
        return str(self.keys.create(RING, name, shown, skip_version=False).shown.name)

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order of a test: a key `do` with its arguments."""
        arguments = {name: value for name, value in order.items() if name != "do"}
        return await getattr(self, f"_do_{order['do']}")(**arguments) or {}

    async def _do_new_key(self, name: str, **kind: str) -> dict[str, Any]:
        return {"name": self.new_key(name, **kind)}

    async def _do_rotate(self, key: str) -> None:
        found = self.keys.key(key)
        found.primary = found.add_version(found.shown.version_template.algorithm)

    async def _do_state(self, key: str, state: str, number: int | None = None) -> None:
        """Every version of a key, or one of them, enters `state`."""
        for version in self.keys.key(key).versions[slice(None) if number is None else slice(number - 1, number)]:
            version.shown.state = State[state]

    async def _do_fault(self, method: str, kind: str, count: int = 1, **status: Any) -> None:
        self.faults.add(method, Fault(kind, count, status))

    async def _do_latency(self, seconds: float) -> None:
        self.faults.latency = seconds

    async def _do_restrict(self, permissions: list[str] | None) -> None:
        self.identity.restrict(permissions)

    async def _do_revoke_tokens(self) -> None:
        self.identity.revoke_all()

    async def _do_token(self, principal: str, seconds: float = 3600) -> dict[str, Any]:
        self.identity.token_seconds = int(seconds)
        return self.identity.issue(principal)

    async def _do_token_seconds(self, seconds: int) -> None:
        self.identity.token_seconds = seconds

    async def _do_endpoints(self, broken: bool = False, hanging: bool = False) -> None:
        self.endpoints.broken, self.endpoints.hanging = broken, hanging

    async def _do_unplug(self) -> None:
        await self._unplug()

    async def _do_plug(self) -> None:
        await self._plug()

    async def _do_calm(self) -> None:
        """End everything that was ordered to go wrong."""
        self.faults.clear()
        self.identity.restrict(None)
        self.identity.token_seconds = 3600
        self.endpoints.broken = self.endpoints.hanging = False
        self.service.calls.clear()
        self.service.peers.clear()
        self.service.most_busy = 0
        if self._server is None:
            await self._plug()

    async def _do_seen(self) -> dict[str, Any]:
        service = self.service
        return {
            "calls": service.calls,
            "connections": len(service.peers),
            "most_busy": service.most_busy,
            "issued": self.endpoints.issued,
        }

    async def _do_key(self, key: str) -> dict[str, Any]:
        found = self.keys.key(key)
        return {
            "labels": dict(found.shown.labels),
            "protection": resources.ProtectionLevel(found.shown.version_template.protection_level).name,
            "rotation_seconds": found.shown.rotation_period.seconds,
            "destroy_seconds": found.shown.destroy_scheduled_duration.seconds,
            "import_only": found.shown.import_only,
            "states": [State(version.shown.state).name for version in found.versions],
        }

    async def _plug(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)])
        server.add_generic_rpc_handlers(self.service.handlers())
        pair = [(self._certified.key, self._certified.certificate)]
        demands = self._demands_certificates
        roots = self._authority.certificate if demands else None
        credentials = grpc.ssl_server_credentials(pair, roots, demands)
        self._port = server.add_secure_port(f"127.0.0.1:{self._port}", credentials)
        await server.start()
        self._server = server

    async def _unplug(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    def _write(self, http: int) -> Ready:
        """The files that a sidecar and its SDK are given."""
        address = f"http://127.0.0.1:{http}"
        authority = self._folder / "authority.pem"
        authority.write_bytes(self._authority.certificate)
        certificate, key = write(self._folder, "client", self._authority.certify("keyside"))
        account = self.identity.new_account(f"{address}/token")
        subject = self._private("subject-token", self.identity.subject_token)
        workload = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/keyside",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{address}/v1/token",
            "credential_source": {"file": str(subject)},
        }
        return Ready(
            port=self._port,
            http=http,
            authority=str(authority),
            account=str(self._private("account.json", json.dumps(account))),
            workload=str(self._private("workload.json", json.dumps(workload))),
            client_certificate=str(certificate),
            client_key=str(key),
            secrets=(self.identity.subject_token, account["private_key"]),
        )

    def _private(self, name: str, content: str) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        return path


def as_json(ready: Ready) -> str:
    return json.dumps(asdict(ready))
