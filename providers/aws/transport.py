"""HTTP connections for the SDK: HTTP/1.1 over our pool, in the place of the SDK's own session.

aiobotocore takes the class of its HTTP session as a setting (`AioConfig(http_session_cls=...)`). This one exists for
three things that its default cannot give: connections that are counted and recycled by age, request and answer bodies
that are wiped, and a third less CPU a call. It speaks to one host, sends one request at a time on a connection, and
takes what AWS KMS answers: a body with a length, or chunked.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from providers.aws.http import AnswerParser, HttpAnswer, Malformed
from providers.errors import ProviderError, Unavailable
from providers.pool import Pool, PoolUsage
from providers.wiping import wipe

_IDLE_SECONDS: Final = 12.0  # the SDK's own keep-alive time: servers close sooner or later after it
_PORTS: Final = {"http": 80, "https": 443}


class HttpConnection(asyncio.Protocol):
    """One connection. Whatever goes wrong on it makes it unusable."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._parser = AnswerParser()
        self._lost = False
        self._used_at = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._lost and time.monotonic() - self._used_at < _IDLE_SECONDS

    async def exchange(self, head: bytes, body: bytes) -> HttpAnswer:
        """Send one request and return its answer. Raises Unavailable when the connection breaks first."""
        assert self._transport is not None
        if self._lost:
            raise _broken()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        self._transport.write(body)  # not joined to the head: that would make one more copy of a key
        try:
            answer = await self._answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None
        self._used_at = time.monotonic()
        if not answer.keep_alive:
            self.abort()
        return answer

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._lost = True
        self._parser.wipe()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        try:
            answer = self._parser.feed(data)
        except Malformed as error:
            self._fail(Unavailable(f"what answers for AWS KMS speaks no HTTP ({error}): see hsm.connection.endpoint"))
            self.abort()
            return
        if answer is not None:
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._fail(_broken())

    def _fail(self, error: ProviderError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Transport:
    """The connections to one endpoint. Lives as long as the provider, whatever becomes of SDK clients on the way."""

    def __init__(self, *, size: int, max_age: float) -> None:
        self._url: SplitResult | None = None
        self._tls: ssl.SSLContext | None = None
        self._host = b""
        self._pool: Pool[HttpConnection] = Pool(
            self._connect, self._dispose, size=size, max_age=max_age, usable=lambda connection: connection.usable
        )

    @property
    def usage(self) -> PoolUsage:
        """The pool's counts."""
        return self._pool.usage

    def aim(self, endpoint: str, tls: ssl.SSLContext | None) -> None:
        """Send to this endpoint from now on, without TLS when `tls` is None; free connections are dropped."""
        self._url, self._tls = urlsplit(endpoint), tls
        name = f"[{self._url.hostname}]" if ":" in str(self._url.hostname) else self._url.hostname
        port = "" if self._url.port in (None, _PORTS[self._url.scheme]) else f":{self._url.port}"
        self._host = f"{name}{port}".encode()
        self._pool.drop_idle()

    async def send(self, request: Any) -> HttpAnswer:
        """Send botocore's AWSPreparedRequest. Raises Unavailable. The body is wiped once it has been answered."""
        body: bytes = request.body
        head = self._head(request.method, request.url, request.headers.items())
        try:
            async with self._pool.lease() as connection:
                return await connection.exchange(head, body)
        finally:
            wipe(body)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def _head(self, method: str, url: str, headers: Any) -> bytes:
        target = urlsplit(url)
        if self._url is None or (target.scheme, target.netloc) != (self._url.scheme, self._url.netloc):
            raise Unavailable("the SDK turned to another host than the endpoint it was opened with")
        lines = [f"{method} {target.path or '/'} HTTP/1.1".encode(), b"host: " + self._host]
        lines += [name.encode("ascii") + b": " + _line(value) for name, value in headers]
        return b"\r\n".join([*lines, b"", b""])

    async def _connect(self) -> HttpConnection:
        assert self._url is not None
        host = self._url.hostname or ""
        port = self._url.port or _PORTS[self._url.scheme]
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                HttpConnection, host, port, ssl=self._tls
            )
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                f"the certificate of {host}:{port} is not trusted ({error.verify_message}): see tls.caFile"
            ) from None
        except ssl.SSLError as error:
            raise Unavailable(f"no TLS with {host}:{port} ({error.reason}): see hsm.connection.tls") from None
        except OSError as error:
            raise Unavailable(
                f"{host}:{port} cannot be reached ({error.strerror or type(error).__name__}): see the network, DNS and "
                "hsm.connection.endpoint"
            ) from None
        return connection

    async def _dispose(self, connection: HttpConnection) -> None:
        connection.abort()


class _Raw:
    """The body as botocore reads it, and as we wipe it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body

    def wipe(self) -> None:
        wipe(self._body)


def session_class(transport: Transport, response: Any) -> type:
    """The class to give to `AioConfig(http_session_cls=...)`; `response` is aiobotocore's `AioAWSResponse`."""

    class Session:
        def __init__(self, **_settings: object) -> None:
            """Whatever the SDK would configure is configured in `transport` already."""

        async def __aenter__(self) -> Session:
            return self

        async def __aexit__(self, *_error: object) -> None:
            """Connections outlive SDK clients."""

        async def close(self) -> None:
            """As above."""

        async def send(self, request: Any) -> Any:
            answer = await transport.send(request)
            return response(request.url, answer.status, answer.headers, _Raw(answer.body))

    return Session


def _line(value: object) -> bytes:
    line = value if isinstance(value, bytes) else str(value).encode("latin-1")
    if b"\r" in line or b"\n" in line:
        raise Unavailable("a request header holds a line end: see the credentials for one")
    return line


def _broken() -> Unavailable:
    return Unavailable("the connection to AWS KMS broke before it had answered")
