"""Settings of the AWS_KMS provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from providers.aws.names import is_identifier, is_key_arn, region_of
from providers.endpoints import is_in_clear, is_origin
from providers.errors import Problem
from providers.options import SECTION, RemoteOptions, Section, Text
from providers.secrets import CredentialData, SecretSource

_MEANINGLESS: Final = {
    "SERVICE_PRINCIPAL": "AWS_KMS has no service principals",
    "CERTIFICATE": "AWS_KMS takes no certificates (IAM Roles Anywhere turns one into a role's credentials: "
    "let its credential helper do so in an AWS profile)",
}


def _key_name(name: str) -> str:
    if not is_identifier(name):
        raise ValueError("is a key id, a key ARN, alias/NAME or an alias ARN")
    return name


def _key_arn(name: str) -> str:
    if not is_key_arn(name):
        raise ValueError("is the ARN of a key, as wraps record it")
    return name


KeyName = Annotated[Text, AfterValidator(_key_name)]
KeyArn = Annotated[Text, AfterValidator(_key_arn)]
RoleArn = Annotated[Text, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$")]
SessionName = Annotated[Text, StringConstraints(pattern=r"^[\w+=,.@-]{2,64}$")]


class RoleData(CredentialData):
    """A role to take on. Nothing given: who the machine, container or environment is, by the SDK's default chain."""

    role_arn: RoleArn | None = None
    external_id: SecretSource | None = None
    session_name: SessionName = "keyside"  # what CloudTrail shows
    duration: int = Field(default=3600, ge=900, le=43_200)  # seconds; renewed before they are over
    web_identity_token_file: Text | None = None  # a JWT that something else keeps fresh
    sts_endpoint: Text | None = None


class AccessKeyData(CredentialData):
    """An access key, with the session token that belongs to it when it is temporary."""

    access_key_id: SecretSource
    secret_access_key: SecretSource
    session_token: SecretSource | None = None


class IamRole(Section):
    """Temporary credentials that renew themselves."""

    type: Literal["IAM_ROLE"] = "IAM_ROLE"
    data: RoleData = RoleData()


class AccessKey(Section):
    """Credentials that somebody else renews, or nobody."""

    type: Literal["TOKEN"]
    data: AccessKeyData


class AwsOptions(RemoteOptions):
    """Which key, as whom, and what the keys that are made here are like."""

    provider: Literal["AWS_KMS"]
    kek: KeyName = "alias/keyside"
    credentials: Annotated[IamRole | AccessKey, Field(discriminator="type")] = IamRole()  # type: ignore[assignment]  # narrower than what all back ends share
    retired_keks: tuple[KeyArn, ...] = Field(
        default=(), strict=False
    )  # of other accounts; they unwrap, and wrap nothing
    use_fips_endpoint: bool = False
    deletion_window: int = Field(default=30, ge=7, le=30)  # days between delete_key and the key's end

    @field_validator("credentials", mode="before")
    @classmethod
    def _meaningful(cls, credentials: object) -> object:
        kind = credentials.get("type") if isinstance(credentials, Mapping) else None
        if isinstance(kind, str) and kind in _MEANINGLESS:
            raise ValueError(f"{_MEANINGLESS[kind]}: use IAM_ROLE or TOKEN")
        return credentials


def contradictions(hsm: Mapping[str, object]) -> list[Problem]:
    """Say where settings that are well formed do not go together."""
    return [Problem(f"{SECTION}.{path}", message) for path, message in _contradictions(hsm)]


def _contradictions(hsm: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    connection = _section(hsm, "connection")
    endpoint, region = connection.get("endpoint"), connection.get("region")
    if isinstance(endpoint, str):
        if problem := endpoint_problem(endpoint):
            yield "connection.endpoint", problem
        if hsm.get("useFipsEndpoint"):
            yield "useFipsEndpoint", "excludes connection.endpoint: name the FIPS endpoint there, or nothing"
    home = region_of(kek) if isinstance(kek := hsm.get("kek"), str) else None
    if home is not None and isinstance(region, str) and home != region:
        yield (
            "kek",
            f"is a key of {home} and connection.region is {region}: a call reaches the keys of its region alone",
        )
    data = _section(_section(hsm, "credentials"), "data")
    if "webIdentityTokenFile" in data and "roleArn" not in data:
        yield "credentials.data", "webIdentityTokenFile needs roleArn: the role that the token is exchanged for"
    if isinstance(sts := data.get("stsEndpoint"), str) and (problem := endpoint_problem(sts)):
        yield "credentials.data.stsEndpoint", problem


def endpoint_problem(endpoint: str) -> str | None:
    """What is wrong with the URL of an endpoint; None when nothing is."""
    if not is_origin(endpoint):
        return "is https://HOST or https://HOST:PORT, nothing more"
    if is_in_clear(endpoint):
        return "must be https: data keys would cross the network in the clear"
    return None


def _section(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}
