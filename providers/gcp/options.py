"""Settings of the GCP_KMS provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from providers.errors import Problem
from providers.gcp.names import is_full, is_short
from providers.options import SECTION, Connection, RemoteOptions, Section, Text
from providers.secrets import CredentialData, SecretSource

DEFAULT_ENDPOINT: Final = "cloudkms.googleapis.com:443"
DEFAULT_LOCATION: Final = "global"
DEFAULT_RING: Final = "keyside"

_ENDPOINT: Final = re.compile(r"(?:https://)?(?P<host>[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{1,5}))?/?")


def _endpoint(endpoint: str) -> str:
    """Host and port, as gRPC wants them."""
    if (found := _ENDPOINT.fullmatch(endpoint)) is None or int(found["port"] or 443) > 65_535:
        raise ValueError("is a host name, or host:port, of a Cloud KMS endpoint; it is always spoken to by TLS")
    return f"{found['host']}:{found['port'] or 443}"


def _key(name: str) -> str:
    if not (is_full(name) or is_short(name)):
        raise ValueError("is a key's name, or projects/.../locations/.../keyRings/.../cryptoKeys/NAME")
    return name.partition("/cryptoKeyVersions/")[0]


KeyName = Annotated[Text, AfterValidator(_key)]


class GcpConnection(Connection):
    """`region` is the location of keys, `partition` their key ring; both complete a short name."""

    endpoint: Annotated[Text, AfterValidator(_endpoint)] = DEFAULT_ENDPOINT


class AmbientData(CredentialData):
    """Beside what the environment gives: metadata server, or GOOGLE_APPLICATION_CREDENTIALS."""

    credential_file: Text | None = None  # of workload identity federation: `type: external_account`
    service_account: Text | None = None  # e-mail of the service account to act as (impersonation)
    project: Text | None = None


class KeyFileData(CredentialData):
    """A service account's JSON key."""

    service_account_key: SecretSource
    service_account: Text | None = None
    project: Text | None = None


class TokenData(CredentialData):
    """An OAuth 2.0 access token that somebody else renews."""

    token: SecretSource
    project: Text | None = None


class IamRole(Section):
    """Whoever the machine or workload is."""

    type: Literal["IAM_ROLE"]
    data: AmbientData = AmbientData()


class ServicePrincipal(Section):
    """A service account, by its key."""

    type: Literal["SERVICE_PRINCIPAL"]
    data: KeyFileData


class AccessTokenGiven(Section):
    """An access token."""

    type: Literal["TOKEN"]
    data: TokenData


class NoCertificate(Section):
    """What Cloud KMS does not have."""

    type: Literal["CERTIFICATE"]
    data: Any = None

    @field_validator("type")
    @classmethod
    def _refuse(cls, value: str) -> str:
        raise ValueError(
            "Cloud KMS knows no caller by a certificate alone: use IAM_ROLE with the credentialFile of an X.509 "
            "workload identity pool; a certificate for the connection goes to hsm.connection.tls.certificateFile"
        )


GcpCredentials = Annotated[IamRole | ServicePrincipal | AccessTokenGiven | NoCertificate, Field(discriminator="type")]


class GcpOptions(RemoteOptions):
    """Where the key-encryption key is, who asks for it, and what keys made here are like."""

    provider: Literal["GCP_KMS"]
    kek: KeyName = "keyside"
    retired_keks: tuple[KeyName, ...] = Field(default=(), strict=False)  # keys that still unwrap, and wrap no more
    connection: GcpConnection = GcpConnection()
    credentials: GcpCredentials | None = None  # type: ignore[assignment]  # narrower than what all back ends take
    protection_level: Literal["HSM", "SOFTWARE"] = "HSM"  # of keys made by generate_key and import_key
    rotation_period: int = Field(default=90, ge=1, le=36_500)  # days, of keys that wrap, made by generate_key
    destroy_after: int = Field(default=30, ge=1, le=120)  # days from delete_key to the end, of keys made here

    @property
    def project(self) -> str | None:
        """The project that completes short names, when the configuration says."""
        return None if self.credentials is None else getattr(self.credentials.data, "project", None)

    @property
    def location(self) -> str:
        """Where keys are: `europe-west1`, `global`."""
        return self.connection.region or DEFAULT_LOCATION

    @property
    def ring(self) -> str:
        """The key ring."""
        return self.connection.partition or DEFAULT_RING


def setting_problems(hsm: Mapping[str, object]) -> list[Problem]:
    """Say what cannot be obeyed although each setting is right by itself."""
    connection = hsm.get("connection")
    tls = connection.get("tls") if isinstance(connection, Mapping) else None
    if not isinstance(tls, Mapping):
        return []
    path, problems = f"{SECTION}.connection.tls", []
    if tls.get("minimumVersion") == "1.3":
        problems.append(
            Problem(
                f"{path}.minimumVersion",
                "gRPC uses TLS 1.3 wherever the service offers it, and has no setting that insists: leave 1.2",
            )
        )
    if "keyFile" in tls and "certificateFile" not in tls:
        problems.append(Problem(f"{path}.keyFile", "needs certificateFile: the certificate that this key belongs to"))
    return problems
