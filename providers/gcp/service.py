"""Cloud KMS as this package speaks to it: leased channels, a token on each call, checksums both ways, our errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from google.api_core.exceptions import GoogleAPICallError, from_grpc_error
from google.api_core.gapic_v1 import routing_header
from google.api_core.gapic_v1.client_info import ClientInfo
from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.types import DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse
from google.protobuf.wrappers_pb2 import Int64Value
from grpc import RpcError

from providers.errors import CredentialsInvalid, Unavailable
from providers.gcp import integrity, names
from providers.gcp.channels import Channels
from providers.gcp.failures import failure
from providers.gcp.options import GcpOptions
from providers.gcp.tokens import AccessToken, Issued, issuer
from providers.pool import Pool, PoolUsage
from providers.wiping import wipe

Metadata = tuple[tuple[str, str], ...]
Send = Callable[[KeyManagementServiceAsyncClient, Metadata], Awaitable[Any]]

_SDK: Final = (ClientInfo().to_grpc_metadata(),)  # what calls, and its versions, as every client of Google says


class CloudKms:
    """An open connection to the service. Every method speaks to it once; retries are the caller's."""

    def __init__(self, options: GcpOptions, base: Path) -> None:
        """Read the TLS files. Raises CredentialsInvalid."""
        performance = options.performance
        channels = Channels(options.connection, base)
        self._timeout = performance.request_timeout / 1000
        self._token = AccessToken(issuer(options, base))
        self._pool: Pool[KeyManagementServiceAsyncClient] = Pool(
            channels.make,
            channels.dispose,
            size=performance.connection_pool_size,
            max_age=performance.connection_max_age,
            usable=channels.usable,
        )

    @property
    def usage(self) -> PoolUsage:
        """How busy the channels are."""
        return self._pool.usage

    async def identity(self) -> Issued:
        """The access token in use, or a new one."""
        return await self._token.get()

    async def encrypt(self, key: str, plaintext: bytes | bytearray, associated_data: bytes) -> tuple[str, bytes]:
        """Encrypt under the primary version of `key`. Returns the version's name and the ciphertext."""
        copy = bytes(memoryview(plaintext))  # the SDK takes bytes, and these can be wiped
        try:
            request = _message(
                EncryptRequest,
                associated_data,
                name=key,
                plaintext=copy,
                plaintext_crc32c=Int64Value(value=integrity.checksum(copy)),
            )
            answer = EncryptResponse.pb(await self._exchange("encrypt", request, key))
        finally:
            wipe(copy)  # not earlier: protobuf without its native part keeps this very object
        integrity.require_verified(answer.verified_plaintext_crc32c, "plaintext")
        integrity.require_verified(answer.verified_additional_authenticated_data_crc32c, "associated data")
        ciphertext = answer.ciphertext
        integrity.require_same(ciphertext, _announced(answer, "ciphertext_crc32c"), "ciphertext")
        return require_of(key, answer.name), ciphertext

    async def decrypt(self, key: str, ciphertext: bytes, associated_data: bytes) -> bytearray:
        """Decrypt under whichever version of `key` made `ciphertext`. Raises Tampered; the caller wipes the result."""
        request = _message(
            DecryptRequest,
            associated_data,
            name=key,
            ciphertext=ciphertext,
            ciphertext_crc32c=Int64Value(value=integrity.checksum(ciphertext)),
        )
        answer = DecryptResponse.pb(await self._exchange("decrypt", request, key))
        plaintext = answer.plaintext  # the message makes a new object each time it is asked
        try:
            integrity.require_same(plaintext, _announced(answer, "plaintext_crc32c"), "plaintext")
            return bytearray(plaintext)
        finally:
            wipe(plaintext)

    async def permissions(self, key: str, *wanted: str) -> frozenset[str]:
        """Those of `wanted` that the caller has on `key`: none of them when there is no such key. Free of charge."""
        answer = await self.call("test_iam_permissions", {"resource": key, "permissions": list(wanted)}, key)
        return frozenset(answer.permissions)

    async def primary_state(self, key: str) -> str:
        """The state of the version of `key` that encrypts: `ENABLED`, `DISABLED` ...; free of charge."""
        found = await self.call("get_crypto_key", {"name": key}, key)
        return str(found.primary.state.name)

    async def call(self, method: str, request: Any, resource: str) -> Any:
        """Call one method of the SDK's client; `resource` is what an error names. Raises ProviderError."""

        def send(client: KeyManagementServiceAsyncClient, metadata: Metadata) -> Awaitable[Any]:
            # retry=None: the SDK's own would go on for a minute, whatever `timeout` says
            answer: Awaitable[Any] = getattr(client, method)(
                request=request, retry=None, timeout=self._timeout, metadata=metadata
            )
            return answer

        return await self._authorized(send, method, resource)

    async def close(self) -> None:
        """Close all channels."""
        await self._token.close()
        await self._pool.close()

    async def _exchange(self, method: str, request: Any, key: str) -> Any:
        """The same for what is done with each data key, through the SDK's transport.

        Its client would do no more than add the two headers, and take a fifth of the event loop's time for it.
        """
        headers = (*_SDK, routing_header.to_grpc_metadata((("name", key),)))

        def send(client: KeyManagementServiceAsyncClient, metadata: Metadata) -> Awaitable[Any]:
            answer: Awaitable[Any] = getattr(client.transport, method)(
                request, timeout=self._timeout, metadata=(*metadata, *headers)
            )
            return answer

        return await self._authorized(send, method, key)

    async def _authorized(self, send: Send, method: str, resource: str) -> Any:
        """Send with a token, once more with a new one when the service refuses the first."""
        token = await self._token.get()
        try:
            return await self._attempt(send, method, resource, token)
        except CredentialsInvalid:
            if not self._token.refused(token):
                raise
        return await self._attempt(send, method, resource, await self._token.get())

    async def _attempt(self, send: Send, method: str, resource: str, token: Issued) -> Any:
        metadata = (("authorization", f"Bearer {token.token}"),)
        async with self._pool.lease() as client:
            try:
                return await send(client, metadata)
            except GoogleAPICallError as error:
                raise failure(error, method, resource) from None
            except RpcError as error:
                raise failure(from_grpc_error(error), method, resource) from None


def require_of(key: str, version: str) -> str:
    """Return `version` when it is one of `key`'s. Raises Unavailable when another key answered."""
    if not names.has_version(version) or not version.startswith(f"{key}/"):
        raise Unavailable(f"Cloud KMS answered for another key than {key}: see what hsm.connection.endpoint is")
    return version


def _message(kind: Any, associated_data: bytes, **fields: Any) -> Any:
    """A request made of the plain message: proto-plus takes a tenth of a whole call to look at each field."""
    message = kind.pb()(
        additional_authenticated_data=associated_data,
        additional_authenticated_data_crc32c=Int64Value(value=integrity.checksum(associated_data)),
        **fields,
    )
    return kind.wrap(message)


def _announced(answer: Any, field: str) -> int | None:
    """The checksum in an answer, when there is one."""
    return int(getattr(answer, field).value) if answer.HasField(field) else None
