"""Settings of the VAULT_TRANSIT provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from providers.endpoints import is_in_clear, is_loopback, is_origin
from providers.errors import Problem
from providers.options import SECTION, Connection, RemoteOptions, Section, Text
from providers.secrets import CredentialData, SecretSource

DEFAULT_ENDPOINT: Final = "https://127.0.0.1:8200"  # as of Vault's own command
KUBERNETES_TOKEN_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path

_UNIX: Final = "unix://"
_NAME: Final = re.compile(r"\w([\w.-]*\w)?", re.ASCII)  # what Vault accepts in a path's last part
_PATH: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


def is_key_name(name: str) -> bool:
    """Whether a transit key can have that name."""
    return _NAME.fullmatch(name) is not None


def _key_name(name: str) -> str:
    if not is_key_name(name):
        raise ValueError("is a name of letters, digits, _, - and . that begins and ends with a letter, digit or _")
    return name


def _path(path: str) -> str:
    path = path.strip("/")
    if not _PATH.fullmatch(path):
        raise ValueError("is a path such as `transit` or `team/transit`: letters, digits, _, - and . between slashes")
    return path


def _endpoint(endpoint: str) -> str:
    if endpoint.startswith(_UNIX):
        if not endpoint.removeprefix(_UNIX).startswith("/"):
            raise ValueError("is unix:///absolute/path for an agent's socket")
        return endpoint
    if not is_origin(endpoint):
        raise ValueError("is https://HOST or https://HOST:PORT and no more, or unix:///PATH")
    if is_in_clear(endpoint):
        raise ValueError("would send tokens and data keys in clear: use https:// (http:// is for 127.0.0.1 alone)")
    return endpoint.rstrip("/")


KeyName = Annotated[Text, AfterValidator(_key_name)]
MountPath = Annotated[Text, AfterValidator(_path)]
Endpoint = Annotated[Text, AfterValidator(_endpoint)]


class VaultConnection(Connection):
    """The server, a load balancer before several, or an agent on this machine."""

    endpoint: Endpoint = DEFAULT_ENDPOINT

    @property
    def socket_path(self) -> str | None:
        """The Unix socket of an agent, when the endpoint is one."""
        return self.endpoint.removeprefix(_UNIX) if self.endpoint.startswith(_UNIX) else None


class TokenData(CredentialData):
    """A token that somebody else obtained."""

    token: SecretSource


class AppRoleData(CredentialData):
    """An AppRole."""

    role_id: Text
    secret_id: SecretSource
    auth_mount: MountPath = "approle"


class CertificateData(Section):
    """The certificate itself is `connection.tls.certificateFile`, for it is the TLS handshake that shows it."""

    role: Text | None = None  # None: the server tries every role that the certificate fits
    auth_mount: MountPath = "cert"


class WorkloadData(Section):
    """A token that the platform writes into a file and renews there: a Kubernetes service account, or any JWT."""

    role: Text
    jwt_file: Text = KUBERNETES_TOKEN_FILE
    auth_mount: MountPath = "kubernetes"


class TokenCredentials(Section):
    """TOKEN."""

    type: Literal["TOKEN"]
    data: TokenData


class AppRoleCredentials(Section):
    """SERVICE_PRINCIPAL."""

    type: Literal["SERVICE_PRINCIPAL"]
    data: AppRoleData


class CertificateCredentials(Section):
    """CERTIFICATE."""

    type: Literal["CERTIFICATE"]
    data: CertificateData = CertificateData()


class WorkloadCredentials(Section):
    """IAM_ROLE."""

    type: Literal["IAM_ROLE"]
    data: WorkloadData


VaultCredentials = TokenCredentials | AppRoleCredentials | CertificateCredentials | WorkloadCredentials


class VaultOptions(RemoteOptions):
    """One server, one transit mount, one key in it."""

    provider: Literal["VAULT_TRANSIT"]
    connection: VaultConnection = VaultConnection()
    credentials: Annotated[VaultCredentials, Field(discriminator="type")] | None = None  # type: ignore[assignment]  # each type has its own data here
    kek: KeyName = "keyside"
    retired_keks: tuple[KeyName, ...] = Field(default=(), strict=False)  # keys that may still unwrap what they wrapped
    mount: MountPath = "transit"
    namespace: MountPath | None = None


def contradictions(hsm: Mapping[str, object]) -> list[Problem]:
    """Say which settings do not go together."""
    connection = _section(hsm, "connection")
    endpoint, tls = str(connection.get("endpoint", DEFAULT_ENDPOINT)), _section(connection, "tls")
    credentials = hsm.get("credentials")
    kind = credentials.get("type") if isinstance(credentials, Mapping) else None
    problems = []
    if credentials is None and not _is_local(endpoint):
        problems.append(
            Problem(f"{SECTION}.credentials", "is required, unless connection.endpoint is an agent on this machine")
        )
    if kind == "CERTIFICATE" and not (endpoint.startswith("https:") and "certificateFile" in tls):
        problems.append(
            Problem(
                f"{SECTION}.credentials.type",
                "CERTIFICATE needs connection.tls.certificateFile and an https:// endpoint: the handshake shows it",
            )
        )
    if tls and not endpoint.startswith("https:"):
        problems.append(Problem(f"{SECTION}.connection.tls", "has no use with an endpoint that is not https://"))
    return problems


def _is_local(endpoint: str) -> bool:
    if endpoint.startswith(_UNIX) or not is_origin(endpoint):
        return True  # no endpoint at all is a problem of its own
    return is_loopback(endpoint)


def _section(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}
