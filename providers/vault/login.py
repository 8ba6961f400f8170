"""The ways to a token. Each reads its secret anew every time, so that a changed file is seen."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from providers.errors import CredentialsInvalid, Denied, InputRefused, NotFound
from providers.secrets import SecretSource
from providers.vault.answers import data, document, failure, not_vault
from providers.vault.options import (
    AppRoleCredentials,
    CertificateCredentials,
    TokenCredentials,
    VaultCredentials,
    WorkloadCredentials,
)
from providers.vault.server import Server

MAX_JWT_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and how long it is good for."""

    token: str = field(repr=False)
    seconds: float | None  # from `since` on; None: it does not end, or nobody says when
    renewable: bool
    since: float  # time.monotonic()

    @property
    def left(self) -> float | None:
        """Seconds to its end, negative after it; None without an end."""
        return None if self.seconds is None else self.since + self.seconds - time.monotonic()


class Login(ABC):
    """One way to a token."""

    revocable: bool  # whether the token was made for this process alone, and should end with it

    @abstractmethod
    async def secret(self) -> str:
        """What will be sent, read now. Raises NotFound, Denied, CredentialsInvalid, Unavailable."""

    @abstractmethod
    async def log_in(self, secret: str) -> Lease:
        """Spend it. Raises CredentialsInvalid when the server refuses it, or what the connection raises."""


class TokenLogin(Login):
    """A token that somebody else obtained, and may put anew into the same place."""

    revocable = False

    def __init__(self, server: Server, source: SecretSource, base: Path) -> None:
        self._server = server
        self._source = source
        self._base = base

    async def secret(self) -> str:
        return await asyncio.to_thread(self._source.text, self._base)

    async def log_in(self, secret: str) -> Lease:
        """Ask how long the token is good for. One that may not ask is taken as it is: the first call will tell."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise CredentialsInvalid("hsm.credentials: no token has such characters: is it some other file?")
        since = time.monotonic()
        answer = await self._server.call("GET", "auth/token/lookup-self", secret)
        if answer.status == 403:
            return Lease(secret, None, False, since)
        found = data(answer, "looking up the token")
        seconds, renewable = found.get("ttl"), found.get("renewable") is True
        return Lease(secret, float(seconds) if isinstance(seconds, int) and seconds > 0 else None, renewable, since)


class MethodLogin(Login):
    """AppRole, TLS certificate, Kubernetes and JWT: one request to auth/MOUNT/login, whose body is the secret."""

    revocable = True

    def __init__(
        self,
        server: Server,
        mount: str,
        body: Callable[[], Mapping[str, str]],
        remedy: str,
        *,
        by_handshake: bool = False,
    ) -> None:
        self._server = server
        self._path = f"auth/{mount}/login"
        self._body = body  # blocks: it reads files
        self._remedy = remedy
        self._by_handshake = by_handshake

    async def secret(self) -> str:
        return json.dumps(await asyncio.to_thread(self._body))

    async def log_in(self, secret: str) -> Lease:
        since, about = time.monotonic(), f"logging in at {self._path}"
        if self._by_handshake:
            self._server.reconnect()
        answer = await self._server.call("POST", self._path, body=secret.encode())
        if 400 <= answer.status < 500:
            error = failure(answer, about)
            if isinstance(error, Denied | InputRefused | NotFound | CredentialsInvalid):
                raise CredentialsInvalid(f"{about}: refused: {self._remedy}")
        return granted(document(answer, about), since, about)


def granted(found: Mapping[str, Any], since: float, about: str) -> Lease:
    """The lease in an answer to a login or a renewal. Raises Unavailable when there is none."""
    auth = found.get("auth")
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        raise not_vault(about)
    seconds = auth.get("lease_duration")
    ends = float(seconds) if isinstance(seconds, int) and seconds > 0 else None
    return Lease(auth["client_token"], ends, auth.get("renewable") is True, since)


def login_for(credentials: VaultCredentials | None, server: Server, base: Path) -> Login | None:
    """The login that the settings ask for; None leaves it to an agent."""
    match credentials:
        case None:
            return None
        case TokenCredentials(data=token):
            return TokenLogin(server, token.token, base)
        case AppRoleCredentials(data=role):
            return MethodLogin(
                server,
                role.auth_mount,
                lambda: {"role_id": role.role_id, "secret_id": role.secret_id.text(base)},
                "see roleId, whether the secretId has expired or is used up, and authMount",
            )
        case CertificateCredentials(data=certificate):
            return MethodLogin(
                server,
                certificate.auth_mount,
                lambda: {"name": certificate.role} if certificate.role else {},
                "see whether connection.tls.certificateFile has expired and fits a role of the auth method",
                by_handshake=True,
            )
        case WorkloadCredentials(data=workload):
            return MethodLogin(
                server,
                workload.auth_mount,
                lambda: {"role": workload.role, "jwt": _jwt(base / workload.jwt_file)},
                "see role, authMount, and whether the role is bound to this service account, namespace and audience",
            )


def _jwt(path: Path) -> str:
    """The platform's token. Its file may be readable by others: the platform, not this process, sets its mode."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JWT_BYTES + 1)
    except OSError as error:
        raise NotFound(f"the token file {path} cannot be read ({error.strerror}): see jwtFile") from error
    try:
        jwt = content.decode("ascii").strip()
    except UnicodeDecodeError:
        jwt = ""
    if not jwt or len(content) > MAX_JWT_BYTES:
        raise CredentialsInvalid(f"the token file {path} holds no token: see jwtFile")
    return jwt
