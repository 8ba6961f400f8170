"""Settings of the AZURE_KEY_VAULT provider."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from providers.azure.names import KeyName, is_managed_hsm, vault_url
from providers.errors import Problem
from providers.options import SECTION, Credentials, RemoteOptions, Text
from providers.secrets import CredentialData, SecretSource

Mechanism = Literal["A256GCM", "A256KW", "RSA-OAEP-256+ES256", "RSA-OAEP-256"]
A256GCM: Final = "A256GCM"
A256KW: Final = "A256KW"
SIGNED_OAEP: Final = "RSA-OAEP-256+ES256"
OAEP: Final = "RSA-OAEP-256"
MECHANISMS: Final = (A256GCM, A256KW, SIGNED_OAEP, OAEP)

_DURATION: Final = re.compile(r"P\d{1,4}[DMY]")


def _https(url: str) -> str:
    if not re.fullmatch(r"https://[^/\s?#@]+(/[^\s?#]*)?", url):
        raise ValueError("is a URL that begins with https://")
    return url.rstrip("/")


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError("is a time like P90D, P18M or P1Y")
    return text


Https = Annotated[Text, AfterValidator(_https)]


class Cloud(CredentialData):
    """What all credentials may say of a cloud that is not Azure's public one."""

    authority: Https | None = None  # Entra ID's host, `https://login.microsoftonline.us`
    audience: Https | None = None  # what tokens are for, `https://vault.azure.net`; as the vault says when left out


class Identity(Cloud):
    """Of the machine (managed identity), or federated from another issuer (workload identity)."""

    client_id: Text | None = None  # a user-assigned identity; the system's own when left out
    tenant_id: Text | None = None
    federated_token_file: Text | None = None  # what Kubernetes or a CI writes; makes it a workload identity


class Secret(Cloud):
    """An application and its client secret."""

    tenant_id: Text
    client_id: Text
    client_secret: SecretSource


class Certificate(Cloud):
    """An application and its certificate with the private key, PEM or PKCS#12."""

    tenant_id: Text
    client_id: Text
    certificate_file: Text
    password: SecretSource | None = None


class Token(Cloud):
    """An access token from elsewhere, read anew when it has gone old."""

    token: SecretSource


class IamRole(Credentials):
    """`IAM_ROLE`: an identity that Azure gives the machine or pod; nothing secret is configured."""

    type: Literal["IAM_ROLE"]
    data: Identity = Identity()  # type: ignore[assignment]  # typed here; in the shared vocabulary it is anything


class ServicePrincipal(Credentials):
    """`SERVICE_PRINCIPAL`."""

    type: Literal["SERVICE_PRINCIPAL"]
    data: Secret  # type: ignore[assignment]  # as above


class CertificatePrincipal(Credentials):
    """`CERTIFICATE`."""

    type: Literal["CERTIFICATE"]
    data: Certificate  # type: ignore[assignment]  # as above


class AccessToken(Credentials):
    """`TOKEN`."""

    type: Literal["TOKEN"]
    data: Token  # type: ignore[assignment]  # as above


AzureCredentials = Annotated[
    IamRole | ServicePrincipal | CertificatePrincipal | AccessToken, Field(discriminator="type")
]


class AzureOptions(RemoteOptions):
    """Which vault and keys, and how data keys are wrapped: docs/spec/wrap.md.

    `kek` is a name, `name/version` (pinned: a rotation is not followed), or the key's whole URL.
    """

    provider: Literal["AZURE_KEY_VAULT"]
    credentials: AzureCredentials | None = None
    mechanism: Mechanism | None = None  # by default A256GCM on a Managed HSM, RSA-OAEP-256+ES256 on a vault
    signing_key: Text | None = None  # P-256; by default the KEK's name and `-signing`
    accept_unsigned: bool = False  # unwrap what RSA-OAEP-256 alone wrapped: for the time of moving away from it
    retired_keks: tuple[Text, ...] = Field(default=(), strict=False)  # names; unwrap what they wrapped, wrap nothing
    former_endpoints: tuple[Text, ...] = Field(default=(), strict=False)  # of the vault whose backup was restored here
    key_protection: Literal["HSM", "SOFTWARE"] = "HSM"  # of keys that generate_key makes
    rotate_after: Annotated[Text, AfterValidator(_duration)] | None = "P1Y"  # likewise, of those that wrap

    @field_validator("former_endpoints", mode="after")
    @classmethod
    def _canonical(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(vault_url(url) for url in urls)

    @property
    def cloud(self) -> Cloud:
        """The credentials' data; without credentials the machine's own identity."""
        data = self.credentials.data if self.credentials else Identity()
        assert isinstance(data, Cloud)
        return data

    @property
    def vault(self) -> str:
        """The vault's canonical URL."""
        return vault_url(self.connection.endpoint or self.kek.partition("/keys/")[0])

    @property
    def key(self) -> KeyName:
        """The key-encryption key, with a version where one is pinned."""
        return KeyName.parse(self.kek, self.vault)

    @property
    def signing(self) -> KeyName:
        """The key that signs wraps."""
        return KeyName.parse(self.signing_key or f"{self.key.name}-signing", self.vault)

    @property
    def retired(self) -> frozenset[str]:
        """Names of keys that unwrap beside the KEK."""
        return frozenset(KeyName.parse(name, self.vault).name for name in self.retired_keks)

    @property
    def wraps_with(self) -> Mechanism:
        """The mechanism of new wraps."""
        if self.mechanism is not None:
            return self.mechanism
        return A256GCM if is_managed_hsm(self.cloud.audience or self.vault) else SIGNED_OAEP


def vault_problems(hsm: Mapping[str, object]) -> list[Problem]:
    """What is wrong with the vault and the names of keys."""
    return list(_vault_problems(hsm))


def _vault_problems(hsm: Mapping[str, Any]) -> Iterator[Problem]:
    connection = hsm.get("connection")
    endpoint = connection.get("endpoint") if isinstance(connection, Mapping) else None
    kek = hsm.get("kek", "")
    if endpoint is None and "://" not in str(kek):
        yield Problem(f"{SECTION}.connection.endpoint", "is required: the vault, https://NAME.vault.azure.net")
        return
    try:
        vault = vault_url(str(endpoint)) if endpoint else KeyName.parse(str(kek), "").vault
    except ValueError as error:
        yield Problem(f"{SECTION}.connection.endpoint" if endpoint else f"{SECTION}.kek", str(error))
        return
    for path, name in _key_names(hsm):
        try:
            if KeyName.parse(name, vault).vault != vault:
                yield Problem(path, f"is in another vault than {vault}: all keys are in that of the endpoint")
        except ValueError as error:
            yield Problem(path, str(error))


def _key_names(hsm: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for setting in ("kek", "signingKey"):
        if isinstance(hsm.get(setting), str):
            yield f"{SECTION}.{setting}", hsm[setting]
    retired = hsm.get("retiredKeks")
    if isinstance(retired, list | tuple):
        for index, name in enumerate(retired):
            if isinstance(name, str):
                yield f"{SECTION}.retiredKeks[{index}]", name
