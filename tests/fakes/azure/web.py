"""The HTTP faces: the vault with its challenge, Entra's token endpoint, the machine's identity endpoints."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from dataclasses import dataclass, field
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from tests.fakes.azure.algorithms import Json
from tests.fakes.azure.entra import Entra, Refusal
from tests.fakes.azure.refusals import Refused, bad_parameter
from tests.fakes.azure.vault import CALLS, OPERATIONS, Vault

HOST: Final = "127.0.0.1"
AUDIENCES: Final = {"vault": "https://vault.azure.net", "hsm": "https://managedhsm.azure.net"}
API_VERSIONS: Final = {"7.4", "7.5", "7.6", "2025-07-01"}
ALL_PERMISSIONS: Final = frozenset({
    "get", "list", "create", "import", "update", "delete", "recover", "purge", "rotate", "release",
    "getrotationpolicy", "setrotationpolicy", *OPERATIONS["RSA"],
})  # fmt: skip


@dataclass
class Fault:
    """What happens to the next `times` requests whose face and path match `path`."""

    path: str
    times: int = 1
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None  # instead of the service's answer
    edit: Json | None = None  # put into the service's answer
    how: str = "answer"  # answer, hang, drop

    def takes(self, path: str) -> bool:
        if self.times and re.search(self.path, path):
            self.times -= 1
            return True
        return False


class Listening:
    """A listening socket that can go away and come back."""

    def __init__(self, runner: web.AppRunner, tls: ssl.SSLContext | None) -> None:
        self._runner = runner
        self._tls = tls
        self._site: web.TCPSite | None = None
        self._port = 0

    async def start(self) -> str:
        """Listen, on the same port as before; returns the URL."""
        self._site = web.TCPSite(self._runner, HOST, self._port, ssl_context=self._tls, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[-1][1]
        return f"{'https' if self._tls else 'http'}://{HOST}:{self._port}"

    async def stop(self) -> None:
        """Refuse new connections."""
        assert self._site is not None
        await self._site.stop()


@dataclass
class State:
    """Everything that the control face changes."""

    vault: Vault
    entra: Entra
    latency: float = 0.0
    identity_header: str = ""
    permissions: dict[str, frozenset[str]] = field(default_factory=dict)
    firewall: bool = False
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    listening: Listening | None = None  # where the vault is
    peers: set[object] = field(default_factory=set)  # whose connections sent the vault a request

    def allow(self, client_id: str, permission: str) -> None:
        """Raise the service's 403 when the caller may not."""
        if self.firewall:
            message = (
                "Client address is not authorized and caller is not a trusted service.\r\nClient address: 127.0.0.1"
            )
            raise Refused(403, "Forbidden", message, "ForbiddenByFirewall")
        if permission not in self.permissions.get(client_id, ALL_PERMISSIONS):
            message = f"Caller is not authorized to perform action on resource. Action: '{permission}'"
            raise Refused(403, "Forbidden", message, "ForbiddenByRbac")


def misbehaving(state: State, face: str) -> Middleware:
    """Middleware: notes each request, and lets a fault have it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = f"{face} {request.method} {request.path}"
        state.seen.append(path + ("" if request.can_read_body or request.method == "GET" else " (no body)"))
        fault = next((fault for fault in state.faults if fault.takes(path)), None)
        if fault is None:
            return await handler(request)
        if fault.how == "hang":
            await asyncio.Event().wait()
        if fault.how == "drop" and request.transport is not None:
            request.transport.abort()
        if fault.edit is not None:
            good = cast("web.Response", await handler(request))
            return web.json_response(json.loads(good.text or "") | fault.edit)
        kind = "application/json" if (fault.body or "").startswith("{") else "text/html"
        return web.Response(status=fault.status, headers=fault.headers, text=fault.body or "", content_type=kind)

    return middleware


class VaultFace:
    """The data plane: /keys and /deletedkeys."""

    def __init__(self, state: State) -> None:
        self._state = state

    def application(self) -> web.Application:
        application = web.Application(middlewares=[misbehaving(self._state, "vault")])
        application.router.add_route("*", "/{rest:.*}", self._serve)
        return application

    async def _serve(self, request: web.Request) -> web.Response:
        state, audience = self._state, AUDIENCES[self._state.vault.kind]
        began = asyncio.get_running_loop().time()
        if request.transport is not None:
            state.peers.add(request.transport.get_extra_info("peername"))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        caller = state.entra.bearer(token, audience) if scheme == "Bearer" else None
        if caller is None:
            challenge = f'Bearer authorization="{state.entra.url}/{state.entra.tenant}", resource="{audience}"'
            refused = Refused(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
            return web.json_response(refused.body(), status=401, headers={"WWW-Authenticate": challenge})
        try:
            if request.query.get("api-version") not in API_VERSIONS:
                raise bad_parameter("The specified version is not recognized.")
            answer = self._answer(caller, request, await _body(request))
        except Refused as refused:
            return web.json_response(refused.body(), status=refused.status)
        if state.latency:  # it has other machines for the work of other requests meanwhile
            await asyncio.sleep(began + state.latency - asyncio.get_running_loop().time())
        return web.json_response(answer) if answer is not None else web.Response(status=204)

    def _answer(self, caller: str, request: web.Request, body: Json) -> Json | None:
        match (request.method, *request.path.strip("/").split("/")):
            case [method, "keys", name, *rest]:
                return self._key(caller, method, name, rest, body)
            case [method, "deletedkeys", name, *rest]:
                return self._deleted_key(caller, method, name, rest)
        raise Refused(404, "NotFound", "No such resource.")

    def _key(self, caller: str, method: str, name: str, rest: list[str], body: Json) -> Json:
        state, vault = self._state, self._state.vault
        if not re.fullmatch(r"[0-9a-zA-Z-]{1,127}", name):
            raise bad_parameter("The request URI contains an invalid name.")
        match (method, *rest):
            case ("POST", *version, call) if call in CALLS and len(version) <= 1:
                state.allow(caller, CALLS[call][0])
                return vault.operate(name, version[0] if version else None, call, body)
            case ("GET", "rotationpolicy"):
                state.allow(caller, "getrotationpolicy")
                return vault.policy(name, None)
            case ("GET", *version) if len(version) <= 1:
                state.allow(caller, "get")
                return vault.get(name, version[0] if version else None)
            case ("POST", "create"):
                state.allow(caller, "create")
                return vault.create(name, body)
            case ("PUT",):
                state.allow(caller, "import")
                return vault.bring(name, body)
            case ("PUT", "rotationpolicy"):
                state.allow(caller, "setrotationpolicy")
                return vault.policy(name, body)
            case ("PATCH", *version) if len(version) <= 1:
                state.allow(caller, "update")
                return vault.update(name, version[0] if version else None, body)
            case ("POST", "rotate"):
                state.allow(caller, "rotate")
                return vault.rotate(name)
            case ("DELETE",):
                state.allow(caller, "delete")
                return vault.delete(name)
            case ("POST", _, "release"):
                raise Refused(403, "Forbidden", "The key is not exportable.", "KeyNotExportable")
        raise Refused(404, "NotFound", "No such resource.")

    def _deleted_key(self, caller: str, method: str, name: str, rest: list[str]) -> Json | None:
        state, vault = self._state, self._state.vault
        match (method, *rest):
            case ("GET",):
                state.allow(caller, "get")
                return vault.get_deleted(name)
            case ("POST", "recover"):
                state.allow(caller, "recover")
                return vault.recover(name)
            case ("DELETE",):
                state.allow(caller, "purge")
                vault.purge(name)
                return None
        raise Refused(404, "NotFound", "No such resource.")


def entra_application(state: State) -> web.Application:
    """POST /{tenant}/oauth2/v2.0/token."""

    async def token(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            return web.json_response(state.entra.grant(request.match_info["tenant"], form))
        except Refusal as refusal:
            status = 401 if refusal.code == "invalid_client" else 400
            return web.json_response({"error": refusal.code, "error_description": str(refusal)}, status=status)

    application = web.Application(middlewares=[misbehaving(state, "entra")])
    application.router.add_post("/{tenant}/oauth2/v2.0/token", token)
    return application


def machine_application(state: State) -> web.Application:
    """The endpoints that a virtual machine (IMDS) and an App Service have, without TLS as there."""

    async def imds(request: web.Request) -> web.Response:
        if request.headers.get("Metadata") != "true" or "api-version" not in request.query:
            return web.json_response(
                {"error": "invalid_request", "error_description": "Required metadata header"}, status=400
            )
        return _managed(request)

    async def app_service(request: web.Request) -> web.Response:
        if request.headers.get("X-IDENTITY-HEADER") != state.identity_header:
            return web.json_response({"statusCode": 401, "message": "Unauthorized"}, status=401)
        return _managed(request)

    def _managed(request: web.Request) -> web.Response:
        try:
            return web.json_response(state.entra.managed(request.query["resource"], request.query.get("client_id")))
        except Refusal as refusal:
            return web.json_response({"error": refusal.code, "error_description": str(refusal)}, status=400)

    application = web.Application(middlewares=[misbehaving(state, "machine")])
    application.router.add_get("/metadata/identity/oauth2/token", imds)
    application.router.add_get("/msi/token", app_service)
    return application


async def _body(request: web.Request) -> Json:
    if not (content := await request.read()):
        return {}
    try:
        return cast("Json", json.loads(content))
    except ValueError as error:
        raise bad_parameter("The request body is not JSON.") from error
