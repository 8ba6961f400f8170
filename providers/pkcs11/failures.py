"""What a token's refusal means: from PKCS #11 return values to our errors.

    CKR_...                                            here
    ENCRYPTED_DATA_*, WRAPPED_KEY_*, SIGNATURE_*       Tampered
    DATA_INVALID, DATA_LEN_RANGE                       InputRefused; Tampered when opening
    PIN_INCORRECT, PIN_LOCKED, PIN_EXPIRED, PIN_*,
    USER_PIN_NOT_INITIALIZED                           CredentialsInvalid
    KEY_FUNCTION_NOT_PERMITTED                         KeyDisabled
    TOKEN_WRITE_PROTECTED, SESSION_READ_ONLY,
    ACTION_PROHIBITED, ATTRIBUTE_READ_ONLY             Denied
    MECHANISM_*, KEY_SIZE_RANGE, KEY_TYPE_INCONSISTENT,
    TEMPLATE_*, ATTRIBUTE_VALUE_INVALID                InputRefused
    SESSION_COUNT, DEVICE_MEMORY, HOST_MEMORY          Throttled
    everything else, vendor's own values included      Unavailable, and the token is opened anew

Tokens answer altered bytes with ENCRYPTED_DATA_*, WRAPPED_KEY_* or DATA_*, and some with GENERAL_ERROR or
FUNCTION_FAILED, as they answer a fault of their own. When opening, all of these are settled by asking the same session
to open a wrap that is known to be good: Tampered when it does, Unavailable when it does not (`settled`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pkcs11.exceptions as ck
from pkcs11.exceptions import PKCS11Error

from providers.errors import (
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
)

ALTERED: Final = (
    "the wrap does not authenticate: its bytes were changed, or it belongs to another data key, keyring, partition or "
    "purpose; restore that keystore row from a backup"
)

STALE: Final[tuple[type[PKCS11Error], ...]] = (
    ck.SessionHandleInvalid,
    ck.SessionClosed,
    ck.UserNotLoggedIn,
    ck.KeyHandleInvalid,
    ck.ObjectHandleInvalid,
    ck.UnwrappingKeyHandleInvalid,
    ck.WrappingKeyHandleInvalid,
    ck.OperationActive,
    ck.OperationNotInitialized,
)
"""The session, the login or a handle is of no use any more, whatever the input was."""

GONE: Final[tuple[type[PKCS11Error], ...]] = (
    ck.DeviceRemoved,
    ck.TokenNotPresent,
    ck.TokenNotRecognised,
    ck.SlotIDInvalid,
    ck.DeviceError,
    ck.FunctionCancelled,
)
"""The token itself is of no use for now."""

_UNAUTHENTIC: Final[tuple[type[PKCS11Error], ...]] = (
    ck.EncryptedDataInvalid,
    ck.EncryptedDataLenRange,
    ck.WrappedKeyInvalid,
    ck.WrappedKeyLenRange,
    ck.SignatureInvalid,
    ck.SignatureLenRange,
)

_LENGTHS_AND_CONTENT: Final[tuple[type[PKCS11Error], ...]] = (ck.DataInvalid, ck.DataLenRange)
"""The input is not what the mechanism takes: ours when sealing, the keystore's when opening."""

_MEANINGS: Final[Mapping[type[ProviderError], tuple[tuple[type[PKCS11Error], ...], str]]] = {
    Tampered: (_UNAUTHENTIC, ALTERED),
    CredentialsInvalid: (
        (
            ck.PinIncorrect,
            ck.PinLocked,
            ck.PinExpired,
            ck.PinInvalid,
            ck.PinLenRange,
            ck.PinTooWeak,
            ck.UserPinNotInitialized,
            ck.AnotherUserAlreadyLoggedIn,
            ck.UserTooManyTypes,
        ),
        "the token does not accept the PIN: correct hsm.credentials, and unlock the PIN if it was locked",
    ),
    Denied: (
        (ck.TokenWriteProtected, ck.SessionReadOnly, ck.AttributeReadOnly, ck.FunctionRejected),
        "the token does not allow this to the user that is logged in: see its policies and the role of the PIN",
    ),
    InputRefused: (
        (
            ck.MechanismInvalid,
            ck.MechanismParamInvalid,
            ck.KeySizeRange,
            ck.KeyTypeInconsistent,
            ck.TemplateIncomplete,
            ck.TemplateInconsistent,
            ck.AttributeTypeInvalid,
            ck.AttributeValueInvalid,
            ck.DomainParamsInvalid,
            ck.FunctionNotSupported,
            *_LENGTHS_AND_CONTENT,
        ),
        "the token does not do this with such a key: see its mechanisms with `pkcs11-tool --list-mechanisms`",
    ),
    Throttled: (
        (ck.SessionCount, ck.DeviceMemory, ck.HostMemory),
        "the token has no room for another session or object: lower hsm.performance.connectionPoolSize",
    ),
}

_UNMAPPED: Final = "Unmapped error code "
_KEY_FUNCTION_NOT_PERMITTED: Final = "0x68"  # values that python-pkcs11 has no class for
_ACTION_PROHIBITED: Final = "0x1b"


def meaning(error: PKCS11Error) -> ProviderError:
    """Our error for a token's refusal; its own name is kept, its text is not."""
    name, code = type(error).__name__, _code(error)
    if code == _KEY_FUNCTION_NOT_PERMITTED:
        return disabled("KeyFunctionNotPermitted")
    if code == _ACTION_PROHIBITED:
        return Denied(f"{_MEANINGS[Denied][1]} (ActionProhibited)")
    for kind, (refusals, advice) in _MEANINGS.items():
        if isinstance(error, refusals):
            return kind(f"{advice} ({name})")
    return Unavailable(
        f"the token failed ({code or name}): it is opened anew; if this goes on, see the HSM and its client"
    )


def disabled(why: str) -> KeyDisabled:
    """The error for a key whose attributes forbid what it is for."""
    return KeyDisabled(f"the key may not be used for this ({why}): see its CKA_DECRYPT, CKA_UNWRAP and their like")


def settled(error: PKCS11Error) -> bool:
    """Whether the refusal of an opening is plain by itself; others may be the input's fault or the token's."""
    if isinstance(error, (*_UNAUTHENTIC, *_LENGTHS_AND_CONTENT)):
        return False
    return (
        isinstance(error, (*STALE, *GONE))
        or _code(error) in (_KEY_FUNCTION_NOT_PERMITTED, _ACTION_PROHIBITED)
        or any(isinstance(error, refusals) for refusals, _ in _MEANINGS.values())
    )


def _code(error: PKCS11Error) -> str | None:
    text = str(error)
    return text.removeprefix(_UNMAPPED) if text.startswith(_UNMAPPED) else None
