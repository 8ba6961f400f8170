"""From the `credentials` section to one of azure-identity's credentials."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.identity.aio import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from providers.azure.connections import PooledTransport
from providers.azure.options import Certificate, Cloud, Identity, Secret, Token
from providers.azure.tokens import Source
from providers.errors import CredentialsInvalid
from providers.private_file import read_private
from providers.secrets import MAX_SECRET_BYTES
from providers.wiping import wipe

UNKNOWN_LIFETIME_SECONDS: Final = 600  # of a token that does not say when it ends: then it is read anew
FEDERATED: Final = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")  # set by AKS
_NO_RETRIES: Final[Mapping[str, Any]] = {"retry_total": 0, "retry_status": 0}  # retries are BoundedCalls'


def source(data: Cloud, base: Path, transport: PooledTransport) -> Callable[[], Source]:
    """A function that reads the secrets and makes the credential; it may block."""
    settings: dict[str, Any] = {"transport": transport, **_NO_RETRIES}
    if data.authority is not None:
        settings["authority"] = data.authority
    match data:
        case Secret():
            return lambda: _client_secret(data, base, settings)
        case Certificate():
            return lambda: _certificate(data, base, settings)
        case Token():
            return lambda: StaticToken(data, base)
        case Identity():
            return lambda: _identity(data, base, settings)
    raise AssertionError(type(data))


def is_managed_identity(data: Cloud) -> bool:
    """Whether tokens come from an endpoint of this machine, which no proxy leads to."""
    return isinstance(data, Identity) and _federation(data) is None


class StaticToken:
    """A token that somebody else renews."""

    def __init__(self, data: Token, base: Path) -> None:
        self._data = data
        self._base = base

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Read it anew. Raises CredentialsInvalid when it has expired, and what reading raises."""
        token = self._data.token.text(self._base)
        expires = _expiry(token)
        if expires is not None and expires <= time.time():
            raise CredentialsInvalid("the access token has expired: put a new one where hsm.credentials.data says")
        return AccessTokenInfo(token, expires or int(time.time()) + UNKNOWN_LIFETIME_SECONDS)

    async def close(self) -> None:
        """Nothing is open."""


def _client_secret(data: Secret, base: Path, settings: Mapping[str, Any]) -> Source:
    return ClientSecretCredential(data.tenant_id, data.client_id, data.client_secret.text(base), **settings)


def _certificate(data: Certificate, base: Path, settings: Mapping[str, Any]) -> Source:
    path = base / data.certificate_file
    content = read_private(path, "certificate file", "restore it, or correct certificateFile", limit=MAX_SECRET_BYTES)
    password = data.password.read(base) if data.password else None
    try:
        return CertificateCredential(
            data.tenant_id,
            data.client_id,
            certificate_data=bytes(content),
            password=bytes(password) if password else None,
            **settings,
        )
    except (ValueError, TypeError) as error:
        raise CredentialsInvalid(
            f"the certificate file {path} cannot be used: it holds an RSA key and its certificate, PEM or PKCS#12, and "
            "the password is that of the key"
        ) from error
    finally:
        for secret in (content, password):
            if secret:
                wipe(secret)


def _identity(data: Identity, base: Path, settings: dict[str, Any]) -> Source:
    federation = _federation(data)
    if federation is None:
        return ManagedIdentityCredential(client_id=data.client_id, transport=settings["transport"], **_NO_RETRIES)
    tenant, client, file = federation
    if tenant is None or client is None:
        raise CredentialsInvalid(
            "federatedTokenFile needs tenantId and clientId: the application that trusts its issuer"
        )
    if not os.access(base / file, os.R_OK):
        raise CredentialsInvalid(f"the federated token {base / file} cannot be read: is the workload's token mounted?")
    return WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=str(base / file), **settings)


def _federation(data: Identity) -> tuple[str | None, str | None, str] | None:
    """Tenant, application and token file of a workload identity, each as configured or as AKS sets it."""
    tenant, client, file = (os.environ.get(name) for name in FEDERATED)
    if data.federated_token_file is None and None in (tenant, client, file):
        return None
    token_file = data.federated_token_file or file
    assert token_file is not None
    return data.tenant_id or tenant, data.client_id or client, token_file


def _expiry(token: str) -> int | None:
    """When a JWT ends, in Unix time; None for what does not say so."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return int(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None
