"""HTTPS connections: the pool under the SDK's client, and the one for calls with a token that the vault knows."""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest

from providers.http import Connections, HttpAnswer, Method
from providers.pool import Pool, PoolUsage

MAX_ANSWER_BYTES: Final = 1 << 20  # the service's are a few kilobytes
IDLE_SECONDS: Final = 60.0  # the service's front ends close connections that are idle for some minutes


class PooledTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):
    """Sends each request on a connection of the pool, and gives it back when the answer has been read whole.

    A member of the pool is a session of aiohttp with one connection. The SDK's client may close this transport without
    effect: `shut` does it.
    """

    def __init__(self, tls: ssl.SSLContext, size: int, max_age: int, *, proxy: str | None) -> None:
        self._tls = tls
        self._max_age = max_age
        self._proxy = proxy
        self._pool: Pool[AioHttpTransport] = Pool(self._connection, _dispose, size=size, max_age=max_age)

    async def send(self, request: HttpRequest, **options: Any) -> AsyncHttpResponse:
        """The SDK's call. What is asked for as a stream is read whole, too: the SDK then leaves the body unparsed."""
        options["stream"] = False
        request.headers["Accept-Encoding"] = "identity"  # the SDK would unpack a body whole, however long it becomes
        async with self._pool.lease() as connection:
            answer: AsyncHttpResponse = await connection.send(request, **options)
            return answer

    @property
    def usage(self) -> PoolUsage:
        """The counts, now."""
        return self._pool.usage

    def drop_idle(self) -> None:
        """Close what is free."""
        self._pool.drop_idle()

    async def shut(self) -> None:
        """Close what is free now, what is lent when it comes back."""
        await self._pool.close()

    async def open(self) -> None:
        """Connections are opened when they are needed."""

    async def close(self) -> None:
        """See `shut`."""

    async def __aexit__(self, *exc_details: object) -> None:
        """See `shut`."""

    async def _connection(self) -> AioHttpTransport:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=1, keepalive_timeout=self._max_age)
        session = aiohttp.ClientSession(
            connector=connector,
            proxy=self._proxy,
            trust_env=False,  # it would look up proxies, and passwords in .netrc, on a thread at every request
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=BoundedResponse,
        )
        return AioHttpTransport(session=session)


class Direct:
    """Requests to the vault past the SDK's pipeline, which takes longer over a request than the vault may."""

    def __init__(self, vault: str, tls: ssl.SSLContext, size: int, max_age: int) -> None:
        self._connections = Connections(size=size, max_age=max_age, largest=MAX_ANSWER_BYTES, idle=IDLE_SECONDS)

        async def trust() -> ssl.SSLContext:
            return tls

        self._connections.aim(vault, trust)

    async def send(self, method: Method, target: str, token: str, content: bytes | None) -> HttpAnswer:
        """One request with a token. Raises OSError, Malformed, UnfitHeader."""
        headers = [("authorization", f"Bearer {token}"), ("accept", "application/json"), ("user-agent", "keyside")]
        if content is not None:
            headers.append(("content-type", "application/json"))
        return await self._connections.exchange(method, target, headers, content)

    @property
    def usage(self) -> PoolUsage:
        """The counts, now."""
        return self._connections.usage

    async def close(self) -> None:
        """Close what is free now, what is lent when it comes back."""
        await self._connections.close()


class BoundedResponse(aiohttp.ClientResponse):
    """Reads no more than MAX_ANSWER_BYTES."""

    async def read(self) -> bytes:
        """The whole body. Raises ClientPayloadError when it is too long, or compressed, which nobody asked for."""
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            self.close()
            raise aiohttp.ClientPayloadError("the answer is compressed")
        if (self.content_length or MAX_ANSWER_BYTES + 1) > MAX_ANSWER_BYTES:
            body = bytearray()
            async for chunk in self.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    self.close()
                    raise aiohttp.ClientPayloadError("the answer is too long")
            return bytes(body)
        return await super().read()


def proxy_of(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY name for a URL."""
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


async def _dispose(connection: AioHttpTransport) -> None:
    await connection.close()
