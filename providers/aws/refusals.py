"""What each error code of AWS KMS, and of STS on the way to it, means here.

Codes: the errors of each operation in the KMS API reference, and the errors common to all operations,
https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html. The service's own messages are never repeated:
that of a signature error, for one, holds the session token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from providers.errors import (
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
    Problem,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
)

ASSUMING: Final = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})
DRY_RUN_SUCCEEDED: Final = "DryRunOperationException"

_EXPIRED: Final = "the credentials have expired: whoever issued them must renew them"
_UNKNOWN_CREDENTIALS: Final = "AWS does not know the credentials: see hsm.credentials, or whether they were deleted"
_BAD_SIGNATURE: Final = (
    "AWS refuses the signature: the secret access key is not that of the access key id, or the clock here is wrong"
)
_NOT_ALLOWED: Final = "not allowed {operation} with {key}: see the policies of the key and of the caller"
_NO_KEY: Final = "AWS KMS has no key {key} in {region}: see hsm.kek and hsm.connection.region, or restore it"
_FAILING: Final = "AWS KMS failed by itself"
_TOO_MANY: Final = "AWS KMS asks for fewer calls: see its request quotas, or cache data keys for longer"
_NOT_AUTHENTIC: Final = (
    "the ciphertext does not authenticate under {key}: it was changed, or presented with another context"
)
_OTHER_KEY: Final = "the ciphertext was made by another key than {key}: one of the two was changed"

_MEANINGS: Final[Mapping[type[ProviderError], Mapping[str, str]]] = {
    CredentialsInvalid: {
        "ExpiredToken": _EXPIRED,
        "ExpiredTokenException": _EXPIRED,
        "IDPCommunicationError": "STS could not reach the identity provider of the web identity token",
        "IDPRejectedClaim": "the identity provider rejects the web identity token: a new one is needed",
        "IncompleteSignature": _BAD_SIGNATURE,
        "InvalidClientTokenId": _UNKNOWN_CREDENTIALS,
        "InvalidIdentityToken": "the web identity token is not one that AWS accepts: see webIdentityTokenFile",
        "InvalidSignatureException": _BAD_SIGNATURE,
        "MissingAuthenticationToken": _UNKNOWN_CREDENTIALS,
        "MissingAuthenticationTokenException": _UNKNOWN_CREDENTIALS,
        "NotAuthorized": _UNKNOWN_CREDENTIALS,
        "RegionDisabledException": "STS is not activated in {region} for this account: activate it, or take another",
        "RequestExpired": _BAD_SIGNATURE,
        "SignatureDoesNotMatch": _BAD_SIGNATURE,
        "UnrecognizedClientException": _UNKNOWN_CREDENTIALS,
    },
    Denied: {
        "AccessDenied": _NOT_ALLOWED,
        "AccessDeniedException": _NOT_ALLOWED,
        "InvalidGrantTokenException": _NOT_ALLOWED,
        "LimitExceededException": "a quota of AWS KMS is used up: raise it in Service Quotas",
        "OptInRequired": "this AWS account has not opted in to KMS in {region}",
    },
    NotFound: {
        "InvalidAliasNameException": _NO_KEY,
        "InvalidArnException": _NO_KEY,
        "NotFoundException": _NO_KEY,
    },
    KeyDisabled: {
        "DisabledException": "{key} is disabled: enable it",
        "KMSInvalidStateException": "{key} is in a state that forbids this (pending deletion or import, or its key "
        "store is disconnected): see its state in AWS KMS",
    },
    Tampered: {
        "IncorrectKeyException": _OTHER_KEY,
        "InvalidCiphertextException": _NOT_AUTHENTIC,
        "KMSInvalidSignatureException": "the signature is not one that {key} made of this data",
    },
    Throttled: dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "LimitExceeded",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
        ),
        _TOO_MANY,
    ),
    Unavailable: dict.fromkeys(
        (
            "DependencyTimeoutException",
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "KMSInternalException",
            "KeyUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
            "ServiceUnavailable",
            "ServiceUnavailableException",
        ),
        _FAILING,
    ),
    InputRefused: {
        "AlreadyExistsException": "AWS KMS has that already: choose another label",
        "ConflictException": "somebody else is changing {key} at this moment: try again",
        "ExpiredImportTokenException": "importing took longer than its token lives: try again",
        "IncorrectKeyMaterialException": "that is not the key material that {key} was made with",
        "InvalidImportTokenException": "AWS KMS refuses its own import token: try again",
        "InvalidKeyUsageException": "{key} is of another kind than {operation} needs",
        "MalformedPolicyDocumentException": "AWS KMS refuses the key policy: name administrators and users that exist, "
        "by ARN, and whoever makes the key among the administrators",
        "PackedPolicyTooLarge": "the role's session policies are too large",
        "TagException": "AWS KMS refuses a tag: keys have at most 128 characters, values 256, and `aws:` is reserved",
        "UnsupportedOperationException": "AWS KMS does not do {operation} with {key}",
        "ValidationException": "AWS KMS refuses the input of {operation}",
    },
}  # fmt: skip

MEANING: Final[Mapping[str, tuple[type[ProviderError], str]]] = {
    code: (kind, message) for kind, messages in _MEANINGS.items() for code, message in messages.items()
}
"""Each code's error and what to say, with places for {operation}, {key} and {region}."""

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,63}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call was about, for the message."""

    operation: str  # `Decrypt`
    key: str
    region: str


def refusal(answer: Mapping[str, Any], asked: Asked) -> ProviderError:
    """The error for an answer that is one; `answer` is botocore's `ClientError.response`."""
    error, metadata = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode")
    headers = metadata.get("HTTPHeaders", {})
    if asked.operation in ASSUMING:
        return _assuming_refused(code, status)
    kind, message = MEANING.get(code) or _unknown(code, status)
    said = f"{message.format(operation=asked.operation, key=asked.key, region=asked.region)} ({_trace(code, headers)})"
    return Throttled(said, _retry_after(headers)) if kind is Throttled else kind(said)


def malformed(operation: str, what: str) -> Unavailable:
    """The error for an answer that AWS KMS cannot have given."""
    return Unavailable(f"the answer to {operation} is not one of AWS KMS ({what}): see hsm.connection.endpoint")


def foreign_ciphertext(key: str) -> Tampered:
    """The error for a ciphertext that names another key than the one that Decrypt was asked to use."""
    return Tampered(_OTHER_KEY.format(key=key))


def wrong_kind_of_key(name: str, usage: object, spec: object) -> ConfigurationInvalid:
    """The error for a key-encryption key that cannot wrap."""
    found = f"{usage}, {spec}"
    return ConfigurationInvalid(
        [Problem("hsm.kek", f"{name} is a key for {found}: wrapping needs ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT")]
    )


def _assuming_refused(code: str, status: object) -> ProviderError:
    kind, message = MEANING.get(code) or _unknown(code, status)
    if kind in (Throttled, Unavailable):
        return kind(f"STS cannot be had just now ({code})")
    if kind is CredentialsInvalid:
        return kind(
            f"taking on hsm.credentials.data.roleArn: {message.format(operation='', key='', region='this region')}"
        )
    return CredentialsInvalid(
        f"hsm.credentials.data.roleArn may not be taken on ({code or status}): see the role's trust policy, "
        "its external id and its longest session"
    )


def _unknown(code: str, status: object) -> tuple[type[ProviderError], str]:
    if status == 429:
        return Throttled, _TOO_MANY
    if status == 403:
        return Denied, _NOT_ALLOWED
    if isinstance(status, int) and status >= 500:
        return Unavailable, f"what answers for AWS KMS failed with HTTP status {status}"
    return Denied, "AWS KMS refuses {operation} with {key} for a reason that this release does not know"


def _trace(code: str, headers: Mapping[str, str]) -> str:
    request = re.sub(r"[^0-9A-Za-z-]", "", headers.get("x-amzn-requestid", ""))[:64]
    said = code if _PLAIN.fullmatch(code) else "no code"
    return f"{said}, request {request}" if request else said


def _retry_after(headers: Mapping[str, str]) -> float | None:
    seconds = headers.get("retry-after", "")
    return float(seconds) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", seconds) else None
