"""Routes of the admin socket (docs/spec/http.md): each asks the sidecar and renders its answer."""

import json
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy import log
from proxy.admin.access import AdminPeers, peer_of_request
from proxy.admin.errors import AdminError, ConfigRefused, Invalid

_MAX_BODY: Final = 65_536
_NEW_KEYRING: Final = {"name": str, "partitioned": bool, "index_bits": int}

_HTTP_MESSAGES: Final = {
    404: "there is nothing at this path; docs/spec/http.md lists those of the admin socket",
    405: "this path does not take that method; docs/spec/http.md lists those of the admin socket",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sidecar(Protocol):
    """What the admin side asks of the service. Mappings go out as JSON as they are."""

    async def missing(self) -> list[str]:
        """What keeps the sidecar from serving; empty: ready."""

    async def status(self) -> dict[str, object]: ...

    async def metrics(self) -> str: ...

    async def keyrings(self) -> list[dict[str, object]]: ...

    async def keyring(self, name: str) -> dict[str, object]:
        """Raises NotFound."""

    async def create_keyring(self, name: str, partitioned: bool, index_bits: int | None) -> dict[str, object]:
        """Raises Conflict, Invalid."""

    async def reload(self) -> dict[str, object]:
        """Raises ConfigRefused."""


async def serve_admin(sidecar: Sidecar, peers: AdminPeers, listening: socket.socket) -> web.AppRunner:
    """Serve on a listening Unix socket until the runner is cleaned up."""
    app = web.Application(client_max_size=_MAX_BODY, middlewares=[_guard(peers)])
    app.add_routes(_Routes(sidecar).routes())
    runner = web.AppRunner(app, access_log=None, handle_signals=False, auto_decompress=False, shutdown_timeout=2.0)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return runner


def _guard(peers: AdminPeers) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = peer_of_request(request)
        if peer is None or not peers.admits(peer):
            return _error(
                403, "denied", f"uid {peer.uid if peer else '?'} may not use the admin socket; see admin.peers"
            )
        try:
            return await handler(request)
        except ConfigRefused as error:
            problems = [{"path": path, "message": message} for path, message in error.problems]
            return _error(error.http_status, error.code, str(error), problems=problems)
        except AdminError as error:
            return _error(error.http_status, error.code, str(error))
        except web.HTTPException as error:
            return _error(error.status, "http", _HTTP_MESSAGES.get(error.status, error.reason))
        except (ConnectionError, web.RequestPayloadError):
            return _error(400, "http", "the connection was closed before the request was whole")
        except Exception as error:  # whatever it is, the operator gets an answer and the log its type
            correlation = log.defect("an admin request failed", error)
            return _error(500, "internal", f"a defect; the sidecar's log has it under correlation={correlation}")

    return guard


def _error(status: int, code: str, message: str, **more: object) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, **more}}, status=status)


class _Routes:
    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/health", self.health),
            web.get("/v1/ready", self.ready),
            web.get("/v1/status", self.status),
            web.get("/v1/keyrings", self.keyrings),
            web.post("/v1/keyrings", self.create_keyring),
            web.get("/v1/keyrings/{name}", self.keyring),
            web.post("/v1/reload", self.reload),
            web.get("/metrics", self.metrics),
        ]

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        missing = await self._sidecar.missing()
        return web.json_response({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._sidecar.status())

    async def metrics(self, request: web.Request) -> web.Response:
        text = await self._sidecar.metrics()
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def keyrings(self, request: web.Request) -> web.Response:
        return web.json_response({"keyrings": await self._sidecar.keyrings()})

    async def keyring(self, request: web.Request) -> web.Response:
        return web.json_response(await self._sidecar.keyring(request.match_info["name"]))

    async def create_keyring(self, request: web.Request) -> web.Response:
        wanted = _new_keyring(await request.read())
        name, partitioned, index_bits = wanted.get("name"), wanted.get("partitioned", False), wanted.get("index_bits")
        if not isinstance(name, str):
            raise Invalid("name is required: 1 to 64 characters of a-z A-Z 0-9 _ . -")
        made = await self._sidecar.create_keyring(
            name, bool(partitioned), index_bits if isinstance(index_bits, int) else None
        )
        return web.json_response(made, status=201)

    async def reload(self, request: web.Request) -> web.Response:
        return web.json_response(await self._sidecar.reload())


def _new_keyring(body: bytes) -> dict[str, object]:
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid("the body is not JSON") from error
    if not isinstance(wanted, dict):
        raise Invalid("the body must be an object with name, partitioned and index_bits")
    for field, value in wanted.items():
        if field not in _NEW_KEYRING:
            raise Invalid("unknown field; there are name, partitioned and index_bits")
        # bool is an int to isinstance, and neither may stand for the other here
        if type(value) is not _NEW_KEYRING[field]:
            raise Invalid(f"{field} must be a {_NEW_KEYRING[field].__name__}")
    return wanted
