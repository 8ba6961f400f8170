"""A narrow client of the service: requests through the SDK's pipeline, answers checked, errors those of this package.

Requests go out by the public `KeyClient.send_request`. The SDK's CryptographyClient is not used: for some keys it
encrypts by itself, in this process, with a symmetric key that nobody keeps or with the first key version that it saw.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
import re
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import ClientConnectorCertificateError
from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.keyvault.keys.aio import KeyClient

from providers.azure.connections import Direct, PooledTransport
from providers.azure.names import KeyName
from providers.azure.refusals import refusal
from providers.azure.tokens import Tokens
from providers.errors import CredentialsInvalid, ProviderError, Unavailable
from providers.http import Malformed, Method, UnfitHeader
from providers.pool import PoolUsage
from providers.wiping import wipe

Json = dict[str, Any]

TIDYING_SECONDS: Final = 5.0

_VALUE: Final = re.compile(rb'"value"\s*:\s*"([A-Za-z0-9_-]*)"')
_JSON: Final = {"Content-Type": "application/json"}
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")

# at INFO the SDK writes several lines a request; at WARNING it repeats what the token endpoint said
logging.getLogger("azure").setLevel(logging.ERROR)


class Straight(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """In the place of a policy of the SDK's pipeline that has nothing to do here, or must do nothing."""

    async def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, AsyncHttpResponse]:
        """Pass on."""
        return await self.next.send(request)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the vault said."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    authorization: str | None = field(repr=False)  # what was sent


class KeyVault:
    """One vault or Managed HSM. Used from one event loop."""

    def __init__(
        self, vault: str, tokens: Tokens, transport: PooledTransport, direct: Direct | None, *, pinned: bool
    ) -> None:
        """`pinned`: tokens are for an audience that the configuration names, so the SDK need not guess its domain.

        `transport` is under the SDK's client, `direct` beside it: what the SDK does about a token (the vault's
        challenge, revocation) it does at the first request and whenever a token is refused. None: all through the SDK.
        """
        self.url = vault
        self._tokens = tokens
        self._transport = transport
        self._direct = direct
        self._tidying: set[asyncio.Task[None]] = set()
        self._client = KeyClient(
            vault,
            tokens,  # type: ignore[arg-type]  # it takes AsyncSupportsTokenInfo as well, by its documentation
            transport=self._transport,
            retry_policy=Straight(),  # BoundedCalls retries
            redirect_policy=Straight(),  # a redirect is an answer that we do not want
            headers_policy=Straight(),
            proxy_policy=Straight(),
            custom_hook_policy=Straight(),
            logging_policy=Straight(),
            verify_challenge_resource=not pinned,
        )

    async def ask(self, method: Method, path: str, what: str, body: Mapping[str, Any] | None = None) -> Json:
        """A request whose answer is not secret; `what` names it in messages (`get`, `create`)."""
        content = None if body is None else json.dumps(body).encode()
        return _parsed(await self._exchange(method, path, what, content))

    async def operate(
        self, key: KeyName, operation: str, alg: str, value: bytes | bytearray, **parameters: bytes
    ) -> Json:
        """An operation of a key on `value`, whose answer is not secret. The answer's `kid` is checked to be `key`."""
        content = _request(alg, value, parameters)
        try:
            answer = _parsed(await self._exchange("POST", f"{key.path}/{operation}", operation, content))
        finally:
            wipe(content)
        _check_kid(answer, key)
        return answer

    async def reveal(
        self, key: KeyName, operation: str, alg: str, value: bytes | bytearray, **parameters: bytes
    ) -> bytearray:
        """unwrapkey or decrypt: the plaintext, which the caller wipes. Copies on the way are wiped."""
        content = await self._exchange("POST", f"{key.path}/{operation}", operation, _request(alg, value, parameters))
        found = list(_VALUE.finditer(content))
        if len(found) != 1:
            wipe(content)
            raise _strange()
        start, end = found[0].span(1)
        encoded = bytearray(content[start:end])
        rest = content[:start] + content[end:]
        wipe(content)
        secret = _decoded(encoded)
        try:
            _check_kid(_parsed(rest), key)
        except ProviderError:
            wipe(secret)
            raise
        return secret

    def afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, which raises no ProviderError, without anybody waiting for it; `close` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    @property
    def usage(self) -> PoolUsage:
        """Of the connections."""
        return (self._direct or self._transport).usage

    async def close(self) -> None:
        """Finish what was left for later, and end connections, those to the token endpoint included."""
        if self._tidying:
            await asyncio.wait(self._tidying, timeout=TIDYING_SECONDS)
        await self._transport.shut()
        if self._direct is not None:
            await self._direct.close()
        await self._tokens.close()

    async def _exchange(self, method: Method, path: str, what: str, content: bytes | None) -> bytes:
        answer = await self._send(method, path, content)
        if answer.status == 401 and await self._tokens.refused(answer.authorization):
            answer = await self._send(method, path, content)
        if answer.status != 401:
            self._tokens.accepted()
            if self._direct is not None:
                self._transport.drop_idle()  # it has had its challenge
        if not 200 <= answer.status < 300:
            key = self.url + path.removesuffix(f"/{what}")
            raise refusal(what, key, answer.status, answer.headers, answer.content)
        return answer.content

    async def _send(self, method: Method, path: str, content: bytes | None) -> Answer:
        if self._direct is not None and (token := self._tokens.known()) is not None:
            return await self._send_directly(self._direct, method, path, token, content)
        answer = await self._send_through_sdk(method, path, content)
        authorization = answer.request.headers.get("Authorization")
        return Answer(answer.status_code, answer.headers, answer.content, authorization)

    async def _send_directly(
        self, direct: Direct, method: Method, path: str, token: str, content: bytes | None
    ) -> Answer:
        target = f"/{path.lstrip('/')}?api-version={self._client.api_version}"
        try:
            answer = await direct.send(method, target, token, content)
        except (OSError, Malformed, UnfitHeader) as error:
            raise self._unreachable(error) from None  # the cause's frames hold the token
        return Answer(answer.status, answer.headers, answer.body, f"Bearer {token}")

    async def _send_through_sdk(self, method: Method, path: str, content: bytes | None) -> AsyncHttpResponse:
        request = HttpRequest(method, path, content=content, headers=_JSON if content is not None else None)
        try:
            return await self._client.send_request(request, stream=True)
        except ProviderError:
            raise
        except AzureError as error:
            raise self._unreachable(error.inner_exception) from error
        except ValueError as error:  # the SDK's word for a challenge that is none, or of another domain
            raise CredentialsInvalid(
                f"{self.url} asks for a token for a service of another domain: is this the vault that is meant? In a "
                "private cloud name the audience in hsm.credentials.data.audience"
            ) from error

    def _unreachable(self, error: BaseException | None) -> Unavailable:
        if isinstance(error, ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            return Unavailable(
                f"the certificate of {self.url} is not trusted: name its authority in hsm.connection.tls.caFile, if it "
                "is the vault that is meant"
            )
        return Unavailable(f"{self.url} cannot be reached or dropped the connection: see network, DNS and firewall")


def base64url(value: bytes | bytearray) -> bytes:
    """As JOSE writes binary values: without padding."""
    return binascii.b2a_base64(value, newline=False).translate(bytes.maketrans(b"+/", b"-_"), b"=")


def binary(answer: Mapping[str, Any], name: str) -> bytes:
    """A binary member of an answer. Raises Unavailable when it is not there or malformed."""
    text = answer.get(name)
    if not isinstance(text, str) or not text.isascii():
        raise _strange()
    return bytes(_decoded(bytearray(text.encode())))


def version_of(answer: Json, key: KeyName) -> KeyName:
    """The versioned name in a key's bundle, checked to be of `key`. Raises Unavailable."""
    jwk = answer.get("key")
    return _check_kid(jwk if isinstance(jwk, dict) else {}, key)


def _request(alg: str, value: bytes | bytearray, parameters: Mapping[str, bytes]) -> bytes:
    encoded = base64url(value)
    members = b"".join(b',"%b":"%b"' % (name.encode(), base64url(part)) for name, part in parameters.items())
    try:
        return b'{"alg":"%b","value":"%b"%b}' % (alg.encode(), encoded, members)
    finally:
        wipe(encoded)


def _check_kid(answer: Json, key: KeyName) -> KeyName:
    try:
        if key.version is not None and answer["kid"] == str(key):
            return key
        found = KeyName.parse(str(answer["kid"]), "")
    except (KeyError, ValueError) as error:
        raise _strange() from error
    if found.version is None or (found if key.version else found.at(None)) != key:
        raise Unavailable(
            f"the answer is for the key {found}, not for {key}: hsm.connection.endpoint must be the vault's own name"
        )
    return found


def _parsed(content: bytes) -> Json:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _strange() from error
    if not isinstance(answer, dict):
        raise _strange()
    return answer


def _decoded(encoded: bytearray) -> bytearray:
    standard = encoded.translate(_STANDARD) + b"=" * (-len(encoded) % 4)
    wipe(encoded)
    try:
        value = binascii.a2b_base64(standard, strict_mode=True)
    except binascii.Error:
        raise _strange() from None  # not to keep the text
    finally:
        wipe(standard)
    copy = bytearray(value)
    wipe(value)
    return copy


def _strange() -> Unavailable:
    return Unavailable(
        "the answer is not that of Key Vault: is hsm.connection.endpoint a vault, or is a proxy in between?"
    )
