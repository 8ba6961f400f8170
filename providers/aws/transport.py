"""AWS KMS by our connections, in the place of the SDK's own HTTP session.

aiobotocore takes the class of its HTTP session as a setting (`AioConfig(http_session_cls=...)`). This one exists for
what its default cannot give: connections that are counted and recycled by age, request and answer bodies that are
wiped, and a third less CPU a call.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from providers.errors import Unavailable
from providers.http import PORTS, Broken, Connections, HttpAnswer, Malformed, UnfitHeader
from providers.pool import PoolUsage
from providers.wiping import wipe

MAX_ANSWER_BYTES: Final = 262_144  # the longest are key policies of 32 KiB; a decrypted value has 4

_IDLE_SECONDS: Final = 12.0  # the SDK's own keep-alive time


class Transport:
    """The connections to one endpoint. Lives as long as the provider, whatever becomes of SDK clients on the way."""

    def __init__(self, *, size: int, max_age: float) -> None:
        self._connections = Connections(size=size, max_age=max_age, largest=MAX_ANSWER_BYTES, idle=_IDLE_SECONDS)
        self._origin = ("", "")
        self._place = ""

    @property
    def usage(self) -> PoolUsage:
        """The pool's counts."""
        return self._connections.usage

    def aim(self, endpoint: str, tls: ssl.SSLContext | None) -> None:
        """Send to this endpoint from now on, without TLS when `tls` is None; see `Connections.aim`."""

        async def trust() -> ssl.SSLContext:
            assert tls is not None
            return tls

        url = urlsplit(endpoint)
        self._origin = url.scheme, url.netloc
        self._place = f"{url.hostname}:{url.port or PORTS[url.scheme]}"
        self._connections.aim(endpoint, None if tls is None else trust)

    async def send(self, request: Any) -> HttpAnswer:
        """Send botocore's AWSPreparedRequest. Raises Unavailable. The body is wiped once it has been answered."""
        return await self.exchange(request.method, request.url, request.headers.items(), request.body)

    async def exchange(
        self, method: str, whole_url: str, given: Iterable[tuple[str, str | bytes]], body: bytes
    ) -> HttpAnswer:
        """The same of its parts."""
        url = urlsplit(whole_url)
        if (url.scheme, url.netloc) != self._origin:
            raise Unavailable("the SDK turned to another host than the endpoint it was opened with")
        headers = [(name, value) for name, value in given if name.lower() != "content-length"]
        try:
            return await self._connections.exchange(method, url.path or "/", headers, body)
        except UnfitHeader:
            raise Unavailable("a request header holds a line end: see the credentials for one") from None
        except Malformed as error:
            raise Unavailable(
                f"what answers for AWS KMS speaks no HTTP ({error}): see hsm.connection.endpoint"
            ) from None
        except OSError as error:
            raise Unavailable(self._reason(error)) from None
        finally:
            wipe(body)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    def _reason(self, error: OSError) -> str:
        match error:
            case Broken():
                return "the connection to AWS KMS broke before it had answered"
            case ssl.SSLCertVerificationError():
                return f"the certificate of {self._place} is not trusted ({error.verify_message}): see tls.caFile"
            case ssl.SSLError():
                return f"no TLS with {self._place} ({error.reason}): see hsm.connection.tls"
            case _:
                return (
                    f"{self._place} cannot be reached ({error.strerror or type(error).__name__}): see the network, DNS "
                    "and hsm.connection.endpoint"
                )


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
