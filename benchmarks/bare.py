"""One unwrap by each service's own client, as its documentation shows it: without pool, deadline, checks of ours."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from providers import WrapContext, WrappedKey
from tests.servers import Served

Call = Callable[[], Awaitable[object]]
Bare = Callable[[Served, WrappedKey, WrapContext], AbstractAsyncContextManager[Call]]


@asynccontextmanager
async def aws(served: Served, wrapped: WrappedKey, context: WrapContext) -> AsyncIterator[Call]:
    """aiobotocore."""
    from aiobotocore.session import get_session

    data, connection = served.hsm["credentials"]["data"], served.hsm["connection"]
    async with get_session().create_client(
        "kms",
        region_name=connection["region"],
        endpoint_url=connection["endpoint"],
        aws_access_key_id=_read(data["accessKeyIdFile"]).decode(),
        aws_secret_access_key=_read(data["secretAccessKeyFile"]).decode(),
    ) as client:
        strings = context.as_strings()
        yield lambda: client.decrypt(KeyId=wrapped.kek, CiphertextBlob=wrapped.blob, EncryptionContext=strings)


@asynccontextmanager
async def azure(served: Served, wrapped: WrappedKey, context: WrapContext) -> AsyncIterator[Call]:
    """azure-keyvault-keys with azure-identity; RSA-OAEP-256 and no signature, which the SDK does not know."""
    from azure.identity.aio import ClientSecretCredential
    from azure.keyvault.keys.crypto import KeyWrapAlgorithm
    from azure.keyvault.keys.crypto.aio import CryptographyClient

    data, authority = served.hsm["credentials"]["data"], served.hsm["connection"]["tls"]["caFile"]
    credential = ClientSecretCredential(
        data["tenantId"],
        data["clientId"],
        data["clientSecret"],
        authority=data["authority"],
        disable_instance_discovery=True,
        connection_verify=authority,
    )
    client = CryptographyClient(wrapped.kek, credential, connection_verify=authority, verify_challenge_resource=False)
    async with credential, client:
        sealed = (await client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, os.urandom(32))).encrypted_key
        yield lambda: client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, sealed)


@asynccontextmanager
async def gcp(served: Served, wrapped: WrappedKey, context: WrapContext) -> AsyncIterator[Call]:
    """google-cloud-kms over gRPC."""
    import grpc
    from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
    from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcAsyncIOTransport
    from google.oauth2.service_account import Credentials

    connection = served.hsm["connection"]
    account = Credentials.from_service_account_file(
        served.hsm["credentials"]["data"]["serviceAccountKeyFile"],
        scopes=["https://www.googleapis.com/auth/cloudkms"],
    ).with_always_use_jwt_access(True)
    account.refresh(None)
    metadata = (("authorization", f"Bearer {account.token}"),)
    tls = grpc.ssl_channel_credentials(_read(connection["tls"]["caFile"]))
    async with grpc.aio.secure_channel(connection["endpoint"], tls) as channel:
        client = KeyManagementServiceAsyncClient(transport=KeyManagementServiceGrpcAsyncIOTransport(channel=channel))
        request = {
            "name": wrapped.kek.partition("/cryptoKeyVersions/")[0],
            "ciphertext": wrapped.blob,
            "additional_authenticated_data": context.authenticated(),
        }
        yield lambda: client.decrypt(request=request, metadata=metadata)


@asynccontextmanager
async def vault(served: Served, wrapped: WrappedKey, context: WrapContext) -> AsyncIterator[Call]:
    """aiohttp: the service's own client is HTTP."""
    import aiohttp

    mount, _, version = wrapped.kek.rpartition(":")
    path, _, key = mount.rpartition("/")
    url = f"{served.hsm['connection']['endpoint']}/v1/{path}/decrypt/{key}"
    headers = {"X-Vault-Token": _read(served.hsm["credentials"]["data"]["tokenFile"]).decode()}
    body = {
        "ciphertext": f"vault:{version}:{base64.b64encode(wrapped.blob).decode()}",
        "associated_data": base64.b64encode(context.authenticated()).decode(),
    }
    async with aiohttp.ClientSession() as session:

        async def call() -> bytes:
            async with session.post(url, json=body, headers=headers) as answer:
                found: dict[str, Any] = json.loads(await answer.read())
            return base64.b64decode(found["data"]["plaintext"])

        yield call


def _read(path: str) -> bytes:
    return Path(path).read_bytes().strip()


BARE: Final[dict[str, Bare]] = {"AWS_KMS": aws, "AZURE_KEY_VAULT": azure, "GCP_KMS": gcp, "VAULT_TRANSIT": vault}
