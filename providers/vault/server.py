"""HTTP to a Vault or OpenBao server, or to an agent of it: one request, one answer, over pooled connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from providers.endpoints import is_tls
from providers.errors import Unavailable
from providers.http import Broken, Connections, Malformed, Method, UnfitHeader
from providers.options import Tls
from providers.pool import PoolUsage
from providers.tls import client_context
from providers.vault.options import VaultOptions

MAX_ANSWER_BYTES: Final = 65_536  # the longest is a key's description with the public keys of many versions
IDLE_SECONDS: Final = 60.0  # servers close after five minutes, what stands before them often after one

_UNIX_HOST: Final = "http://agent"
_JSON: Final = ("Content-Type", "application/json")
_IN_TARGETS: Final = "/?=&-._~"


@dataclass(slots=True)
class Answer:
    """What the server said. `body` may hold a data key: whoever reads one out of it wipes it."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None  # seconds


class Server:
    """At most `connectionPoolSize` connections, each with one request at a time. Used from one event loop."""

    def __init__(self, options: VaultOptions, base: Path) -> None:
        performance = options.performance
        self._origin = options.connection.endpoint
        self._tls = _TlsFiles(options.connection.tls, base) if is_tls(self._origin) else None
        # the header that makes a request none that a browser could be tricked into; agents may insist on it
        self._headers = [("X-Vault-Request", "true"), ("User-Agent", "keyside")]
        self._namespace = [("X-Vault-Namespace", options.namespace)] if options.namespace else []
        self._connections = Connections(
            size=performance.connection_pool_size,
            max_age=performance.connection_max_age,
            largest=MAX_ANSWER_BYTES,
            idle=IDLE_SECONDS,
        )
        socket_path = options.connection.socket_path
        self._connections.aim(
            _UNIX_HOST if socket_path else self._origin,
            self._tls.context if self._tls is not None else None,
            socket_path=socket_path,
        )

    async def call(
        self,
        method: Method,
        path: str,
        token: str | None = None,
        body: bytes | bytearray | None = None,
        *,
        in_namespace: bool = True,
    ) -> Answer:
        """Send one request; `path` is what follows /v1/. Redirects are answers: a token never goes to another host.

        Raises Unavailable for whatever happens to the connection, CredentialsInvalid for unusable TLS files.
        """
        headers = [*self._headers, *self._namespace] if in_namespace else list(self._headers)
        if token is not None:
            headers.append(("X-Vault-Token", token))
        if body is not None:
            headers.append(_JSON)
        try:
            answer = await self._connections.exchange(method, quote(f"/v1/{path}", safe=_IN_TARGETS), headers, body)
        except (Malformed, UnfitHeader, OSError) as error:
            # without the cause: what was sent holds the token
            raise Unavailable(f"{self._origin}: {_reason(error)}") from None
        return Answer(answer.status, answer.body, _retry_after(answer.headers))

    def tls_files(self) -> str:
        """Which contents the files of hsm.connection.tls have, as far as that shows without reading them."""
        return repr(self._tls.versions()) if self._tls is not None else ""

    def reconnect(self) -> None:
        """Let the next calls make new connections, and show the certificate that is in its file now."""
        self._connections.drop_idle()

    @property
    def usage(self) -> PoolUsage:
        return self._connections.usage

    async def close(self) -> None:
        await self._connections.close()


class _TlsFiles:
    """The TLS context, made anew when one of its files was changed: certificates are renewed under their names."""

    def __init__(self, tls: Tls, base: Path) -> None:
        self._tls = tls
        self._base = base
        self._files = [base / name for name in (tls.ca_file, tls.certificate_file, tls.key_file) if name is not None]
        self._made: tuple[list[tuple[int, int, int]], ssl.SSLContext] | None = None

    async def context(self) -> ssl.SSLContext:
        return await asyncio.to_thread(self._current)

    def versions(self) -> list[tuple[int, int, int]]:
        return [self._version(file) for file in self._files]

    def _current(self) -> ssl.SSLContext:
        versions = self.versions()
        if self._made is None or self._made[0] != versions:
            self._made = versions, client_context(self._tls, self._base)
        return self._made[1]

    @staticmethod
    def _version(file: Path) -> tuple[int, int, int]:
        try:
            status = file.stat()
        except OSError:
            return 0, 0, 0  # reading it says what is wrong
        return status.st_ino, status.st_size, status.st_mtime_ns


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; None without one, or with a date, which no Vault sends."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _reason(error: Exception) -> str:
    match error:
        case Malformed():
            return f"no valid HTTP answer ({error}): is hsm.connection.endpoint a Vault server?"
        case UnfitHeader():
            return "a token or namespace with a line end or a character outside of Latin-1 cannot be sent: correct it"
        case Broken():
            return "the connection was closed before the answer"
        case ssl.SSLCertVerificationError():
            return (
                "the server's certificate is not trusted: name its authority in hsm.connection.tls.caFile, and reach "
                "the server by a name that is in the certificate"
            )
        case ssl.SSLError():
            return "the TLS handshake failed: see hsm.connection.tls (versions, certificateFile), or is it http?"
        case socket.gaierror():
            return "the name cannot be resolved: see hsm.connection.endpoint and the machine's DNS"
        case _:
            return "no connection: is the server running, and hsm.connection.endpoint right?"
