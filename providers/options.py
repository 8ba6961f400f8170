"""The settings that every back end shares, in the vocabulary of operators (camelCase), typed in full.

A back end subclasses HsmOptions with its own settings. Unknown settings are problems; all are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Secret, ValidationError
from pydantic.alias_generators import to_camel

from providers.errors import Problem

SECTION = "hsm"

# YAML reads a serial number or a slot label of digits alone as an integer; both spellings mean the same text
Text = Annotated[str, Field(min_length=1), BeforeValidator(lambda v: str(v) if type(v) is int else v)]


class Section(BaseModel):
    """Base of every group of settings: frozen, exact types, camelCase in files, nothing unknown."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True
    )


class RetryPolicy(Section):
    """How often and how patiently retryable failures are tried again."""

    max_retries: int = Field(default=3, ge=0, le=20)  # attempts after the first
    backoff_multiplier: float = Field(default=2.0, ge=1, le=10)


class Performance(Section):
    """Bounds on calls to the back end."""

    connection_pool_size: int = Field(default=8, ge=1, le=1024)  # calls at once
    request_timeout: int = Field(default=3000, ge=1, le=600_000)  # milliseconds, retries included
    retry_policy: RetryPolicy = RetryPolicy()
    session_cache_size: int = Field(default=8, ge=0, le=65_536)
    connection_max_age: int = Field(default=3600, ge=1, le=86_400)  # seconds, then a connection is replaced


class Tls(Section):
    """How the back end is spoken to. Certificates are checked always."""

    ca_file: Text | None = None  # authorities to trust instead of the system's
    certificate_file: Text | None = None  # ours, PEM, for back ends that ask for one
    key_file: Text | None = None  # its private key, PEM; in certificate_file when left out
    minimum_version: Literal["1.2", "1.3"] = "1.2"


class Connection(Section):
    """Where the back end is."""

    endpoint: Text | None = None
    region: Text | None = None
    partition: Text | None = None
    slot: int | None = Field(default=None, ge=0)
    library_path: Text | None = None
    tls: Tls = Tls()


CredentialType = Literal["IAM_ROLE", "SERVICE_PRINCIPAL", "CERTIFICATE", "TOKEN"]
_TAGS = get_args(CredentialType)  # pydantic puts the chosen member of a union into a problem's path


class Credentials(Section):
    """Who the sidecar is to the back end. `data` never appears in a message, a description or a log."""

    type: CredentialType
    data: Secret[Any] | None = None


class Replica(Section):
    """Another region that holds the same key."""

    region: Text
    role_arn: Text | None = None


class Member(Section):
    """One device of a high-availability group."""

    serial: Text
    hostname: Text | None = None


class Synchronization(Section):
    """How members of a group are kept equal; `interval` in seconds."""

    automatic: bool = False
    interval: int | None = Field(default=None, ge=1)


class HighAvailability(Section):
    """Several places that can serve."""

    replicas: tuple[Replica, ...] = Field(default=(), strict=False)
    load_balancing: Literal["ROUND_ROBIN", "LEAST_CONNECTIONS", "FAILOVER"] = "FAILOVER"
    ha_group_name: Text | None = None
    members: tuple[Member, ...] = Field(default=(), strict=False)
    synchronization: Synchronization = Synchronization()


class Cloudwatch(Section):
    """Metrics sent to CloudWatch."""

    enabled: bool = False
    namespace: Text | None = None


class Alert(Section):
    """What to do when a metric passes a threshold."""

    metric: Text
    threshold: float
    action: Text


class Monitoring(Section):
    """Who is told about the back end's health."""

    cloudwatch: Cloudwatch = Cloudwatch()
    alerts: tuple[Alert, ...] = Field(default=(), strict=False)


class HsmOptions(Section):
    """The `hsm` section as far as every provider shares it."""

    provider: str
    connection: Connection = Connection()
    credentials: Credentials | None = None
    performance: Performance = Performance()
    high_availability: HighAvailability = HighAvailability()
    monitoring: Monitoring = Monitoring()


class RemoteOptions(HsmOptions):
    """The `hsm` section of a back end that is another machine or device."""

    kek: Text = "keyside"  # the key-encryption key's name there


Options = TypeVar("Options", bound=HsmOptions)


def without_nulls(value: object) -> Any:
    """Drop what is empty in the file (`connection:` with every line under it commented out): it means the default."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def read(model: type[Options], hsm: Mapping[str, object]) -> tuple[Options | None, list[Problem]]:
    """Validate `hsm`. Returns the options, or None and every problem."""
    try:
        return model.model_validate(without_nulls(hsm)), []
    except ValidationError as error:
        return None, list(_problems(error))


def _problems(error: ValidationError) -> Iterator[Problem]:
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        yield Problem(_path(item["loc"]), _message(item["type"], item["msg"]))


def _path(location: tuple[int | str, ...]) -> str:
    path = SECTION
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _TAGS:
            path += f".{step}"
    return path


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown setting: remove it, or correct its spelling"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ")
