"""HTTP to a Vault or OpenBao server, or to an agent of it: one request, one answer, over pooled connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import aiohttp
from yarl import URL

from providers.errors import Unavailable
from providers.options import Tls
from providers.pool import Pool, PoolUsage
from providers.tls import client_context
from providers.vault.options import VaultOptions
from providers.wiping import wipe

MAX_ANSWER_BYTES: Final = 65_536  # the longest is a key's description with the public keys of many versions

_UNIX_HOST: Final = "http://agent"
_NO_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=None)  # performance.requestTimeout bounds every call
_JSON: Final = {"Content-Type": "application/json"}

Method = Literal["GET", "POST", "DELETE"]


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
        self._socket_path = options.connection.socket_path
        self._tls = _TlsFiles(options.connection.tls, base) if self._origin.startswith("https:") else None
        self._base = URL(_UNIX_HOST if self._socket_path else self._origin)
        self._urls: dict[str, URL] = {}
        # the header that makes a request none that a browser could be tricked into; agents may insist on it
        self._headers = {"X-Vault-Request": "true", "User-Agent": "keyside"}
        self._namespace = {"X-Vault-Namespace": options.namespace} if options.namespace else {}
        self._pool: Pool[aiohttp.ClientSession] = Pool(
            self._connect,
            _disconnect,
            size=performance.connection_pool_size,
            max_age=performance.connection_max_age,
            usable=lambda session: not session.closed,
        )
        self._keep_alive = performance.connection_max_age

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
        headers = dict(self._headers)
        if in_namespace:
            headers |= self._namespace
        if token is not None:
            headers["X-Vault-Token"] = token
        if body is not None:
            headers |= _JSON
        async with self._pool.lease() as session:
            try:
                async with session.request(
                    method, self._url(path), data=body, headers=headers, allow_redirects=False
                ) as response:
                    return Answer(response.status, await _read(response.content), _retry_after(response.headers))
            except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
                # without the cause: aiohttp's errors may carry the request's headers, and so the token
                raise Unavailable(f"{self._origin}: {_reason(error)}") from None

    def tls_files(self) -> str:
        """Which contents the files of hsm.connection.tls have, as far as that shows without reading them."""
        return repr(self._tls.versions()) if self._tls is not None else ""

    def reconnect(self) -> None:
        """Let the next calls make new connections, and show the certificate that is in its file now."""
        self._pool.drop_idle()

    @property
    def usage(self) -> PoolUsage:
        return self._pool.usage

    async def close(self) -> None:
        await self._pool.close()

    def _url(self, path: str) -> URL:
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = self._base.with_path(f"/v1/{path.partition('?')[0]}").with_query(
                path.partition("?")[2] or None
            )
        return url

    async def _connect(self) -> aiohttp.ClientSession:
        """A session that holds at most one connection, opened by its first request."""
        connector: aiohttp.BaseConnector
        if self._socket_path is not None:
            connector = aiohttp.UnixConnector(self._socket_path, limit=1, keepalive_timeout=self._keep_alive)
        else:
            context = await self._tls.context() if self._tls is not None else False
            connector = aiohttp.TCPConnector(ssl=context, limit=1, keepalive_timeout=self._keep_alive)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=_NO_LIMIT, auto_decompress=False
        )


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


async def _disconnect(session: aiohttp.ClientSession) -> None:
    await session.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = await content.read(MAX_ANSWER_BYTES + 1)
    while not content.at_eof() and len(body) <= MAX_ANSWER_BYTES:
        parts = body, await content.read(MAX_ANSWER_BYTES)
        body = b"".join(parts)
        for part in parts:
            wipe(part)
    if len(body) > MAX_ANSWER_BYTES:
        raise Unavailable(
            f"the answer is longer than {MAX_ANSWER_BYTES} bytes: is hsm.connection.endpoint a Vault server?"
        )
    return body


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; None without one, or with a date, which no Vault sends."""
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return (
                "the server's certificate is not trusted: name its authority in hsm.connection.tls.caFile, and reach "
                "the server by a name that is in the certificate"
            )
        case aiohttp.ClientConnectorDNSError():
            return "the name cannot be resolved: see hsm.connection.endpoint and the machine's DNS"
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "the TLS handshake failed: see hsm.connection.tls (versions, certificateFile), or is it http?"
        case aiohttp.ClientConnectorError():
            return "no connection: is the server running, and hsm.connection.endpoint right?"
        case aiohttp.ClientOSError() | aiohttp.ServerDisconnectedError():
            return "the connection was closed before the answer"
        case aiohttp.ClientPayloadError():
            return "the answer is incomplete"
        case _:
            return f"no valid HTTP answer ({type(error).__name__})"
