"""Each answer that is no result, as an error of ours: by status, by reason, by precondition, and what it says."""

from __future__ import annotations

import pytest
from google.api_core.exceptions import GoogleAPICallError, from_grpc_status
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from grpc import StatusCode

from providers import (
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
from providers.gcp.failures import BY_REASON, BY_STATUS, failure

SECRET = "ya29.secret-of-a-hostile-server"
KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


def met(status: StatusCode, message: str = SECRET, *details: object, operation: str = "encrypt") -> ProviderError:
    error = from_grpc_status(status, message, details=list(details))
    return failure(error, operation, KEY)


STATUSES = {
    StatusCode.PERMISSION_DENIED: Denied,
    StatusCode.UNAUTHENTICATED: CredentialsInvalid,
    StatusCode.NOT_FOUND: NotFound,
    StatusCode.FAILED_PRECONDITION: KeyDisabled,
    StatusCode.INVALID_ARGUMENT: InputRefused,
    StatusCode.OUT_OF_RANGE: InputRefused,
    StatusCode.ALREADY_EXISTS: InputRefused,
    StatusCode.RESOURCE_EXHAUSTED: Throttled,
    StatusCode.DEADLINE_EXCEEDED: Timeout,
    StatusCode.UNIMPLEMENTED: Unavailable,
    StatusCode.UNAVAILABLE: Unavailable,
    StatusCode.INTERNAL: Unavailable,
    StatusCode.UNKNOWN: Unavailable,
    StatusCode.ABORTED: Unavailable,
    StatusCode.CANCELLED: Unavailable,
    StatusCode.DATA_LOSS: Unavailable,
}


@pytest.mark.parametrize("status", [status for status in StatusCode if status is not StatusCode.OK])
def test_every_status_has_a_meaning(status: StatusCode) -> None:
    error = met(status)
    assert type(error) is STATUSES[status] is BY_STATUS[status].error
    assert KEY in str(error)
    assert status.name in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize("reason", BY_REASON)
def test_a_reason_says_more_than_the_status(reason: str) -> None:
    by_info = met(StatusCode.UNKNOWN, SECRET, ErrorInfo(reason=reason))
    violated = PreconditionFailure(violations=[PreconditionFailure.Violation(type=reason, subject=SECRET)])
    by_violation = met(StatusCode.FAILED_PRECONDITION, SECRET, violated)
    for error in (by_info, by_violation):
        assert type(error) is BY_REASON[reason].error
        assert BY_REASON[reason].remedy in str(error)
        assert reason in str(error)
        assert SECRET not in str(error)


def test_an_unknown_reason_leaves_the_status() -> None:
    assert type(met(StatusCode.PERMISSION_DENIED, "", ErrorInfo(reason="NEW_REASON"))) is Denied


@pytest.mark.parametrize("reason", [SECRET, "lower", "A" * 200, ""])
def test_what_is_no_reason_is_not_shown(reason: str) -> None:
    shown = str(met(StatusCode.PERMISSION_DENIED, "", ErrorInfo(reason=reason)))
    assert "(PERMISSION_DENIED)" in shown


def test_what_does_not_authenticate_is_tampered_only_when_decrypting() -> None:
    said = "Decryption failed: the ciphertext is invalid."
    assert type(met(StatusCode.INVALID_ARGUMENT, said, operation="decrypt")) is Tampered
    assert type(met(StatusCode.INVALID_ARGUMENT, said)) is InputRefused


def test_a_checksum_that_the_service_could_not_confirm_is_tried_again() -> None:
    said = "The checksum in field ciphertext_crc32c did not match the data in field ciphertext."
    error = met(StatusCode.INVALID_ARGUMENT, said, operation="decrypt")
    assert type(error) is Unavailable
    assert error.retryable


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"{KEY}/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.", KeyDisabled),
        (f"{KEY}/cryptoKeyVersions/1 is not enabled, current state is: PENDING_GENERATION.", Unavailable),
        ("Google Cloud KMS API has not been used in this project before, or it is disabled. Enable it", Denied),
    ],
)
def test_preconditions_without_details_are_read(said: str, expected: type[ProviderError]) -> None:
    assert type(met(StatusCode.FAILED_PRECONDITION, said)) is expected


def test_the_missing_permission_is_named() -> None:
    said = f"Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource '{SECRET}' (or it may not exist)."
    shown = str(met(StatusCode.PERMISSION_DENIED, said))
    assert "cloudkms.cryptoKeyVersions.useToDecrypt" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("delay", "seconds"), [(Duration(seconds=2, nanos=500_000_000), 2.5), (Duration(seconds=-5), 0.0), (None, None)]
)
def test_the_pause_that_is_asked_for_is_kept(delay: Duration | None, seconds: float | None) -> None:
    details = [] if delay is None else [RetryInfo(retry_delay=delay)]
    error = met(StatusCode.RESOURCE_EXHAUSTED, "", *details)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_an_error_without_a_status_is_tried_again() -> None:
    assert failure(GoogleAPICallError("what came was no gRPC"), "encrypt", KEY).retryable
