"""What Cloud KMS answers instead of a result, as our errors.

Statuses: https://cloud.google.com/apis/design/errors. A reason (google.rpc.ErrorInfo) or a violated precondition
(google.rpc.PreconditionFailure) says more than the status and is looked at first. The service's own sentence is not
repeated, since nothing says what stands in it; the permission that it misses is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.api_core.exceptions import GoogleAPICallError
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from grpc import StatusCode

from providers.errors import (
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
    ProviderError,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
)


class Meaning(NamedTuple):
    """Our error, and what it tells to do."""

    error: type[ProviderError]
    remedy: str


_ROLE: Final = "grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key to the caller"
_ENABLE_API: Final = "enable the Cloud KMS API in the project: gcloud services enable cloudkms.googleapis.com"
_USABLE: Final = "enable or restore the key version (gcloud kms keys versions enable), or restore its primary version"
_RENEW: Final = "the credentials are not accepted: renew the access token or key that hsm.credentials names"
_TRY_LATER: Final = "it is tried again; see https://status.cloud.google.com when it lasts"
_BEING_MADE: Final = "the key version is still being made: try again in a minute"

BY_REASON: Final[Mapping[str, Meaning]] = {
    "IAM_PERMISSION_DENIED": Meaning(Denied, _ROLE),
    "SERVICE_DISABLED": Meaning(Denied, _ENABLE_API),
    "BILLING_DISABLED": Meaning(Denied, "the project has no billing account: link one, keys work again within minutes"),
    "CONSUMER_INVALID": Meaning(Denied, "the project in the key's name does not exist, or is being deleted"),
    "CONSUMER_SUSPENDED": Meaning(Denied, "the project is suspended: its owners were told why"),
    "ACCESS_RENEW_SCOPE_INSUFFICIENT": Meaning(
        Denied, "give the machine or token the scope https://www.googleapis.com/auth/cloudkms or cloud-platform"
    ),
    "SECURITY_POLICY_VIOLATED": Meaning(Denied, "VPC Service Controls keep this caller out: add it to the perimeter"),
    "LOCATION_ORG_POLICY_VIOLATED": Meaning(Denied, "an organization policy forbids this location"),
    "ACCESS_RENEW_EXPIRED": Meaning(CredentialsInvalid, _RENEW),
    "RATE_LIMIT_EXCEEDED": Meaning(Throttled, "raise the project's quota of cryptographic requests"),
    "KEY_DISABLED": Meaning(KeyDisabled, _USABLE),
    "KEY_DESTROYED": Meaning(KeyDisabled, "the key version is destroyed: nothing wrapped under it can be unwrapped"),
    "KEY_DESTROY_SCHEDULED": Meaning(KeyDisabled, f"destruction is scheduled: {_USABLE}"),
    "KEY_IMPORT_FAILED": Meaning(KeyDisabled, "the import of the key version failed: import it anew"),
    "KEY_GENERATION_FAILED": Meaning(KeyDisabled, "the key version could not be made: make another one"),
    "KEY_PENDING_GENERATION": Meaning(Unavailable, _BEING_MADE),
    "KEY_PENDING_IMPORT": Meaning(Unavailable, _BEING_MADE),
}
BY_STATUS: Final[Mapping[StatusCode, Meaning]] = {
    StatusCode.PERMISSION_DENIED: Meaning(Denied, _ROLE),
    StatusCode.UNAUTHENTICATED: Meaning(CredentialsInvalid, _RENEW),
    StatusCode.NOT_FOUND: Meaning(NotFound, "see that the key ring and key of this name exist in this location"),
    StatusCode.FAILED_PRECONDITION: Meaning(KeyDisabled, _USABLE),
    StatusCode.INVALID_ARGUMENT: Meaning(InputRefused, "the service refuses these arguments"),
    StatusCode.OUT_OF_RANGE: Meaning(InputRefused, "the service refuses these arguments"),
    StatusCode.ALREADY_EXISTS: Meaning(InputRefused, "something of this name is there already, and names are for ever"),
    StatusCode.RESOURCE_EXHAUSTED: Meaning(Throttled, "raise the project's quota of cryptographic requests"),
    StatusCode.DEADLINE_EXCEEDED: Meaning(
        Timeout, "see whether it can be reached, or raise hsm.performance.requestTimeout"
    ),
    StatusCode.UNIMPLEMENTED: Meaning(
        Unavailable, "what answers at hsm.connection.endpoint is no Cloud KMS: correct it, or wait for the service"
    ),
    StatusCode.UNAVAILABLE: Meaning(Unavailable, f"see whether hsm.connection.endpoint can be reached; {_TRY_LATER}"),
    StatusCode.INTERNAL: Meaning(Unavailable, _TRY_LATER),
    StatusCode.UNKNOWN: Meaning(Unavailable, _TRY_LATER),
    StatusCode.ABORTED: Meaning(Unavailable, _TRY_LATER),
    StatusCode.CANCELLED: Meaning(Unavailable, _TRY_LATER),
    StatusCode.DATA_LOSS: Meaning(Unavailable, _TRY_LATER),
}

_UNKNOWN: Final = Meaning(Unavailable, _TRY_LATER)
_BROKEN_ON_THE_WAY: Final = re.compile(r"checksum in field \w+ did not match")
_API_OFF: Final = re.compile(r"API has not been used in (this )?project|it is disabled")
_PENDING: Final = re.compile(r"current state is: PENDING_")
_PERMISSION: Final = re.compile(r"Permission '([a-zA-Z.]{1,100})' denied")


def failure(error: GoogleAPICallError, operation: str, resource: str) -> ProviderError:
    """Our error for `error`, met by `operation` (a method of the SDK's client: `decrypt`) on `resource`."""
    meaning = _meaning(error, operation)
    code = error.grpc_status_code.name if isinstance(error.grpc_status_code, StatusCode) else "no status"
    said = next((f"{code}, {reason}" for reason in _reasons(error)), code)
    if permission := _PERMISSION.search(error.message):
        said += f", {permission[1]}"
    message = f"Cloud KMS refused {operation} of {resource} ({said}): {meaning.remedy}"
    if issubclass(meaning.error, Throttled):
        return meaning.error(message, _retry_after(error))
    return meaning.error(message)


def _meaning(error: GoogleAPICallError, operation: str) -> Meaning:
    for reason in _reasons(error):
        if reason in BY_REASON:
            return BY_REASON[reason]
    status = error.grpc_status_code
    if status is StatusCode.INVALID_ARGUMENT:
        if _BROKEN_ON_THE_WAY.search(error.message):
            return Meaning(Unavailable, "what was sent was damaged on the way, by its checksum; it is tried again")
        if operation == "decrypt":
            return Meaning(Tampered, "it was changed, or is presented with another context than it was made for")
    if status is StatusCode.FAILED_PRECONDITION:
        if _API_OFF.search(error.message):
            return BY_REASON["SERVICE_DISABLED"]
        if _PENDING.search(error.message):
            return BY_REASON["KEY_PENDING_GENERATION"]
    return _UNKNOWN if status is None else BY_STATUS.get(status, _UNKNOWN)


def _reasons(error: GoogleAPICallError) -> Iterator[str]:
    """Reasons in capitals, as AIP-193 has them: nothing else of the details is shown."""
    for detail in _details(error):
        if isinstance(detail, ErrorInfo):
            found = [detail.reason]
        elif isinstance(detail, PreconditionFailure):
            found = [violation.type for violation in detail.violations]
        else:
            continue
        yield from (reason for reason in found if re.fullmatch(r"[A-Z][A-Z0-9_]{1,62}", reason))


def _retry_after(error: GoogleAPICallError) -> float | None:
    """The pause that the service asks for, in seconds."""
    for detail in _details(error):
        if isinstance(detail, RetryInfo):
            return max(0.0, float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9))
    return None


def _details(error: GoogleAPICallError) -> list[Any]:
    return list(error.details or ())
