"""What differs between makers of tokens, as data. Everything else is one code for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Mechanism = Literal["AES-256-GCM", "AES-KWP", "AES-KEY-WRAP-PAD", "AES-KW", "AES-256-CBC-HMAC-SHA256"]

PREFERENCE: Final[tuple[Mechanism, ...]] = (
    "AES-256-GCM",
    "AES-KWP",
    "AES-KEY-WRAP-PAD",
    "AES-KW",
    "AES-256-CBC-HMAC-SHA256",
)
"""Best first. AES-CBC with padding and nothing else is not among them: it does not authenticate."""

STANDARD_NUMBERS: Final[Mapping[Mechanism, int]] = {
    "AES-256-GCM": 0x1087,
    "AES-KWP": 0x210B,
    "AES-KEY-WRAP-PAD": 0x210A,
    "AES-KW": 0x2109,
    "AES-256-CBC-HMAC-SHA256": 0x1082,
}
"""CKM_AES_GCM, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP, CKM_AES_CBC (PKCS #11 v3.1, 6.13)."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """One maker's client library and the liberties that it takes."""

    libraries: tuple[str, ...]  # where the installer puts it, newest first
    numbers: Mapping[Mechanism, int] = field(default_factory=dict)  # mechanisms that have a number of the maker's own
    appended_iv_bytes: tuple[int, ...] = ()  # lengths of an IV that the token makes itself and appends when encrypting


VENDORS: Final[Mapping[str, Vendor]] = {
    "LUNA_HSM": Vendor(
        libraries=(
            "/usr/safenet/lunaclient/lib/libCryptoki2_64.so",
            "/usr/lunasa/lib/libCryptoki2_64.so",
            "/usr/local/luna/libs/64/libCryptoki2.so",
        ),
        # CKM_LUNA_AES_KW and CKM_LUNA_AES_KWP: many firmware releases offer key wrapping by these numbers alone
        numbers={"AES-KW": 0x80000170, "AES-KWP": 0x80000171},
        # in FIPS mode the partition ignores our IV, makes one and returns it behind the tag: 16 bytes, from firmware
        # 7.9.3 on 12 where 96 bits were asked for
        # (https://thalesdocs.com/gphsm/luna/7/docs/network/Content/sdk/mechanisms/CKM_AES_GCM.htm)
        appended_iv_bytes=(12, 16),
    ),
    "THALES_HSM": Vendor(
        libraries=(
            "/opt/safenet/protecttoolkit7/ptk/lib/libcryptoki.so",
            "/opt/safenet/protecttoolkit5/ptk/lib/libcryptoki.so",
            "/opt/nfast/toolkits/pkcs11/libcknfast.so",
        ),
    ),
}
