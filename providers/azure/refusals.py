"""What the service's refusals mean, by HTTP status, error code and inner error code (Azure: rest-error-codes).

| status | code, or inner code                              | here                                            |
|--------|--------------------------------------------------|-------------------------------------------------|
| 400    | BadParameter of unwrapkey and decrypt            | Tampered                                        |
| 400    | none: the answer of something in between         | Unavailable                                     |
| 400    | others                                           | InputRefused                                    |
| 401    |                                                  | CredentialsInvalid                              |
| 403    | KeyDisabled, KeyNotYetValidOrExpired             | KeyDisabled                                     |
| 403    | KeyOperationForbidden, ForbiddenByRbac,          | Denied, each with its remedy                    |
|        | ForbiddenByPolicy, ForbiddenByFirewall,          |                                                 |
|        | ForbiddenByConnection, others                    |                                                 |
| 404    | KeyNotFound and others                           | NotFound                                        |
| 408    |                                                  | Timeout                                         |
| 409    | ObjectIsDeletedButRecoverable, ...BeingDeleted   | InputRefused                                    |
| 409    | others                                           | Unavailable                                     |
| 429    |                                                  | Throttled, with the pause of Retry-After        |
| others | 3xx, 5xx                                         | Unavailable                                     |

The service's own message is not passed on: it may quote what was sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

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

OPENING: Final = frozenset({"unwrapkey", "decrypt"})

_NO_CODE: Final = "no error code"
_DISABLED: Final = {
    "KeyDisabled": "is disabled: enable that version, or restore access to it",
    "KeyNotYetValidOrExpired": "is outside its validity (nbf, exp): rotate it, or extend the version's validity",
}
_ROLE: Final = "Key Vault Crypto User (Managed HSM Crypto User)"
_DENIED: Final = {
    "KeyOperationForbidden": "the key's key_ops lack it: az keyvault key set-attributes --ops",
    "ForbiddenByFirewall": "the vault's firewall keeps this address out: add its network, or a private endpoint",
    "ForbiddenByConnection": "the vault wants a private endpoint: use it, or allow public access",
    "ForbiddenByPolicy": "no access policy lets this identity do it: add the key permission to the policy",
    "ForbiddenByRbac": f"no role lets this identity do it: assign {_ROLE}, or a role with this data action",
}
_DENIED_OTHERWISE: Final = f"this identity may not do it: assign {_ROLE}, or see the vault's network rules"


def refusal(operation: str, key: str, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
    """The error for an answer that is no success; `key` is the key or vault that was asked."""
    code, inner = _codes(content)
    asked = f"{operation} with {key}"
    match status:
        case 400:
            return _bad_request(operation, asked, code)
        case 401:
            return CredentialsInvalid(
                f"{key} does not accept the access token: see the credentials, their tenant, and "
                "hsm.credentials.data.audience"
            )
        case 403:
            if inner in _DISABLED:
                return KeyDisabled(f"{key} {_DISABLED[inner]}")
            return Denied(f"{asked} is forbidden ({inner or code}): {_DENIED.get(inner, _DENIED_OTHERWISE)}")
        case 404:
            return NotFound(f"{key} was not found: see its name and version; a deleted key can be recovered for a time")
        case 408:
            return Timeout(f"{asked}: the service ran out of time")
        case 409:
            return _conflict(asked, key, inner or code)
        case 429:
            return Throttled(f"{asked} is throttled: the vault's limit is reached", retry_after(headers))
    return Unavailable(f"{asked} failed with HTTP status {status} ({code}): see the state of the vault and of Azure")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause that an answer asks for, in seconds: Retry-After as seconds or as a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")  # names are lower case, or their case is ignored
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _bad_request(operation: str, asked: str, code: str) -> ProviderError:
    if code == _NO_CODE:
        return Unavailable(f"{asked} failed with HTTP status 400 ({code}): is a gateway or proxy in between?")
    if operation in OPENING and code == "BadParameter":
        return Tampered(
            f"{asked} is refused: the wrap's bytes were changed, or it belongs to another data key, keyring, partition "
            "or purpose; restore that keystore row from a backup"
        )
    return InputRefused(f"{asked} is refused ({code}): the key's type or size does not fit the operation")


def _conflict(asked: str, key: str, code: str) -> ProviderError:
    if code in ("ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted"):
        return InputRefused(f"{key} was deleted and can be recovered: recover or purge it, or choose another name")
    return Unavailable(f"{asked} conflicts with another operation ({code}): try again")


def _codes(content: bytes) -> tuple[str, str]:
    """The error code and the inner error code; what is not the service's JSON has neither."""
    try:
        error: Any = json.loads(content)["error"]
        inner = error.get("innererror") or {}
        return _word(error.get("code")) or _NO_CODE, _word(inner.get("code"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _NO_CODE, ""


def _word(code: object) -> str:
    """A code as it may be shown: the service's are words."""
    return code if isinstance(code, str) and code.isalnum() and len(code) <= 64 else ""
