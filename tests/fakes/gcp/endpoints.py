"""The HTTP side: metadata server, security token service, impersonation; and the control that tests use.

Pages: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys,
https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token (RFC 8693),
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from tests.fakes.gcp.identity import PROJECT, Identity

Control = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

MACHINE_ACCOUNT: Final = f"machine@{PROJECT}.iam.gserviceaccount.com"
WORKLOAD: Final = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/keyside"
_ACCOUNTS: Final = "/computeMetadata/v1/instance/service-accounts/{account}"
_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # a grant's name, RFC 8693


class Endpoints:
    """Answers what the credentials of google-auth ask for. `broken`: answers 503 to all of it; `hanging`: nothing."""

    def __init__(self, identity: Identity, control: Control) -> None:
        self.broken = False
        self.hanging = False
        self.issued = 0
        self._identity = identity
        self._control = control

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._weather])
        application.add_routes(
            [
                web.get("/", self._metadata_root),
                web.get("/computeMetadata/v1/project/project-id", self._project),
                web.get("/computeMetadata/v1/universe/universe-domain", self._universe),
                web.get(_ACCOUNTS + "/", self._account),
                web.get(_ACCOUNTS + "/token", self._machine_token),
                web.post("/v1/token", self._exchange),
                web.post("/v1/projects/-/serviceAccounts/{call}", self._impersonate),
                web.post("/control", self._controlled),
            ]
        )
        return application

    @web.middleware
    async def _weather(self, request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        if request.path != "/control":
            if self.hanging:
                await asyncio.Event().wait()
            if self.broken:
                return web.Response(status=503, text="<html>Service Unavailable</html>", content_type="text/html")
        return await handler(request)

    async def _metadata_root(self, request: web.Request) -> web.Response:
        return web.Response(headers={"Metadata-Flavor": "Google"})

    async def _project(self, request: web.Request) -> web.Response:
        return _metadata(request, web.Response(text=PROJECT))

    async def _universe(self, request: web.Request) -> web.Response:
        return _metadata(request, web.Response(text="googleapis.com"))

    async def _account(self, request: web.Request) -> web.Response:
        return _metadata(request, web.json_response({"email": MACHINE_ACCOUNT, "scopes": [], "aliases": ["default"]}))

    async def _machine_token(self, request: web.Request) -> web.Response:
        return _metadata(request, web.json_response(self._issue(MACHINE_ACCOUNT)))

    async def _exchange(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("grant_type") != _TOKEN_EXCHANGE or form.get("subject_token") != self._identity.subject_token:
            return web.json_response({"error": "invalid_grant", "error_description": "Unknown subject."}, status=400)
        answer = self._issue(WORKLOAD)
        answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        return web.json_response(answer)

    async def _impersonate(self, request: web.Request) -> web.Response:
        account, _, call = request.match_info["call"].partition(":")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known = self._identity.tokens.get(token)
        if call != "generateAccessToken" or known is None:
            return web.json_response({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, status=401)
        if not self._identity.may(known.principal, "iam.serviceAccounts.getAccessToken"):
            return web.json_response({"error": {"code": 403, "status": "PERMISSION_DENIED"}}, status=403)
        issued = self._issue(account)
        expires = datetime.now(UTC) + timedelta(seconds=issued["expires_in"])
        return web.json_response(
            {"accessToken": issued["access_token"], "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
        )

    async def _controlled(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control(await request.json()))

    def _issue(self, principal: str) -> dict[str, Any]:
        self.issued += 1
        return self._identity.issue(principal)


def _metadata(request: web.Request, response: web.Response) -> web.Response:
    """The metadata server answers nobody who does not show that it means to ask (server-side request forgery)."""
    if request.headers.get("Metadata-Flavor") != "Google":
        return web.Response(status=403)
    response.headers["Metadata-Flavor"] = "Google"
    return response
