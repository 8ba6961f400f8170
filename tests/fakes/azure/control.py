"""The face that tests have: what an administrator, an attacker or bad luck does, as POST /control."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, Final

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.fakes.azure.algorithms import Json, b64
from tests.fakes.azure.entra import Application
from tests.fakes.azure.web import Fault, State


class Control:
    """Each public method is a command; what it returns is the answer's `result`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def register(self, client_id: str, secret: str | None = None, certificate: str | None = None,
                 federated_token: str | None = None, system: bool = False) -> None:  # fmt: skip
        """Register an application or identity, or change it."""
        loaded = x509.load_pem_x509_certificate(certificate.encode()) if certificate else None
        self._state.entra.applications[client_id] = Application(client_id, secret, loaded, federated_token)
        if system:
            self._state.entra.system_identity = client_id

    def token(self, client_id: str, audience: str) -> str:
        """A token as `az account get-access-token` gives one."""
        return str(self._state.entra._issue(client_id, audience)["access_token"])

    def revoke(self) -> None:
        """Every token that was issued stops being good."""
        self._state.entra.revoke()

    def lifetime(self, seconds: int) -> None:
        """Of tokens to come."""
        self._state.entra.lifetime = seconds

    def permit(self, client_id: str, permissions: list[str] | None) -> None:
        """Allow these alone; None: all."""
        self._state.permissions.pop(client_id, None)
        if permissions is not None:
            self._state.permissions[client_id] = frozenset(permissions)

    def firewall(self, closed: bool) -> None:
        """Whether the vault's firewall knows the caller's address."""
        self._state.firewall = closed

    def create(self, name: str, body: Json) -> Json:
        """Make a key as an administrator."""
        return self._state.vault.create(name, body)

    def update(self, name: str, body: Json, version: str | None = None) -> Json:
        """Change attributes, operations or tags as an administrator."""
        return self._state.vault.update(name, version, body)

    def rotate(self, name: str) -> Json:
        """Make a new version as the rotation policy does."""
        return self._state.vault.rotate(name)

    def delete(self, name: str) -> Json:
        """Delete softly as an administrator."""
        return self._state.vault.delete(name)

    def recover(self, name: str) -> Json:
        """Undo `delete`."""
        return self._state.vault.recover(name)

    def forget(self, name: str) -> None:
        """As if the key had never been, for a fresh start."""
        self._state.vault.keys.pop(name, None)
        self._state.vault.deleted.pop(name, None)
        self._state.vault.policies.pop(name, None)

    def policy(self, name: str) -> Json:
        """The rotation policy."""
        return self._state.vault.policy(name, None)

    def reveal(self, kid: str) -> str:
        """A key's private material for independent checks: PEM, or base64url for a symmetric key."""
        name, version = kid.rsplit("/", 2)[1:]
        material = self._state.vault.version(name, version).material
        if isinstance(material, bytes):
            return b64(material)
        kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return material.private_bytes(*kinds).decode()

    def fault(self, **fault: Any) -> None:
        """Add a fault: see `Fault`."""
        self._state.faults.append(Fault(**fault))

    def calm(self) -> None:
        """No faults and no latency any more."""
        self._state.faults.clear()
        self._state.latency = 0.0
        self._state.firewall = False

    async def unplug(self) -> None:
        """The vault refuses connections and drops those that are open when they are used."""
        assert self._state.listening is not None
        self._state.faults.insert(0, Fault("^vault", times=1 << 30, how="drop"))
        await self._state.listening.stop()

    async def plug(self) -> None:
        """Undo `unplug`."""
        assert self._state.listening is not None
        self._state.faults.clear()
        await self._state.listening.start()

    def known_as(self, url: str) -> None:
        """The vault's own URL where it is reached through a proxy: keys made from now on carry it."""
        self._state.vault.url = url

    def latency(self, seconds: float) -> None:
        """How long each request to the vault takes at least."""
        self._state.latency = seconds

    def accepted(self) -> int:
        """How many connections to the vault have sent a request so far."""
        return len(self._state.peers)

    def seen(self) -> list[str]:
        """The requests since the last time: face, method, path."""
        requests, self._state.seen = self._state.seen, []
        return requests


COMMANDS: Final = frozenset(name for name in vars(Control) if not name.startswith("_"))


def control_application(state: State) -> web.Application:
    """POST /control {"command": ..., "arguments": {...}}."""
    control = Control(state)

    async def run(request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["command"] in COMMANDS
        result = getattr(control, asked["command"])(**asked["arguments"])
        return web.json_response({"result": await result if isawaitable(result) else result})

    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/control", run)
    return application
