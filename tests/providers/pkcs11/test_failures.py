"""From a token's refusals to our errors: every one that python-pkcs11 knows, and those it has no name for."""

from __future__ import annotations

import pkcs11.exceptions as ck
import pytest
from pkcs11.exceptions import PKCS11Error

from providers import (
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
)
from providers.pkcs11.failures import GONE, STALE, meaning, settled

EXPECTED: list[tuple[PKCS11Error, type[ProviderError], bool]] = [
    (ck.EncryptedDataInvalid(), Tampered, False),
    (ck.EncryptedDataLenRange(), Tampered, False),
    (ck.WrappedKeyInvalid(), Tampered, False),
    (ck.WrappedKeyLenRange(), Tampered, False),
    (ck.DataInvalid(), InputRefused, False),
    (ck.DataLenRange(), InputRefused, False),
    (ck.PinIncorrect(), CredentialsInvalid, True),
    (ck.PinLocked(), CredentialsInvalid, True),
    (ck.PinExpired(), CredentialsInvalid, True),
    (ck.UserPinNotInitialized(), CredentialsInvalid, True),
    (ck.TokenWriteProtected(), Denied, True),
    (PKCS11Error("Unmapped error code 0x1b"), Denied, True),
    (PKCS11Error("Unmapped error code 0x68"), KeyDisabled, True),
    (ck.MechanismInvalid(), InputRefused, True),
    (ck.TemplateInconsistent(), InputRefused, True),
    (ck.SessionCount(), Throttled, True),
    (ck.DeviceMemory(), Throttled, True),
    (ck.SessionHandleInvalid(), Unavailable, True),
    (ck.UserNotLoggedIn(), Unavailable, True),
    (ck.DeviceRemoved(), Unavailable, True),
    (ck.TokenNotPresent(), Unavailable, True),
    (ck.GeneralError(), Unavailable, False),
    (ck.FunctionFailed(), Unavailable, False),
    (ck.ArgumentsBad(), Unavailable, False),
    (PKCS11Error("Unmapped error code 0x80000005"), Unavailable, False),
    (PKCS11Error("anything else"), Unavailable, False),
]


@pytest.mark.parametrize(("refusal", "kind", "plain"), EXPECTED, ids=repr)
def test_each_refusal_has_one_meaning(refusal: PKCS11Error, kind: type[ProviderError], plain: bool) -> None:
    assert type(meaning(refusal)) is kind
    assert settled(refusal) is plain


def known() -> list[type[PKCS11Error]]:
    classes = [value for value in vars(ck).values() if isinstance(value, type) and issubclass(value, PKCS11Error)]
    return [kind for kind in classes if kind is not PKCS11Error]


@pytest.mark.parametrize("kind", known(), ids=lambda kind: kind.__name__)
def test_every_class_is_translated_and_named(kind: type[PKCS11Error]) -> None:
    error = meaning(kind("secret detail"))
    assert kind.__name__ in str(error)
    assert "secret detail" not in str(error)


def test_what_is_of_no_use_any_more_is_retried() -> None:
    assert all(meaning(kind()).retryable for kind in (*STALE, *GONE))
