"""What may be claimed of a token's key-encryption key, read from its own attributes."""

from __future__ import annotations

from typing import Any, Final

from pkcs11 import Attribute, KeyType, MechanismFlag, PKCS11Error

from providers.capabilities import ComplianceInfo
from providers.pkcs11.device import Device, Held

_ORIGINS: Final = {
    True: "generated inside the token (CKA_LOCAL)",
    False: "brought in from outside (no CKA_LOCAL)",
}


def compliance(device: Device, held: Held) -> ComplianceInfo:
    """The claims, and what PKCS #11 cannot tell."""
    key = held.key(device.kek, KeyType.AES)
    token = device.token
    flags = token.slot.get_mechanism_info(device.sealing.ckm).flags
    place = "hardware" if MechanismFlag.HW in flags else "software, by the token's own account (no CKF_HW)"
    return ComplianceInfo(
        key_storage=f"{place}: {token.manufacturer_id} {token.model}, serial {token.serial.decode(errors='replace')}, "
        f"firmware {token.firmware_version[0]}.{token.firmware_version[1]}",
        validated_to=None,
        extractable=_attribute(key, Attribute.EXTRACTABLE) is not False,
        mechanisms=(device.sealing.name,),
        notes=(
            f"key {device.kek}: AES-256, {_origin(key)}",
            f"has always been sensitive: {_said(key, Attribute.ALWAYS_SENSITIVE)}",
            f"has never been extractable: {_said(key, Attribute.NEVER_EXTRACTABLE)}",
            "rotation: a newer key of the same label takes over when the sidecar opens the token anew; this one stays",
            "PKCS #11 does not report validations: look up this model and firmware in the maker's FIPS 140 certificate",
        ),
    )


def _origin(key: Any) -> str:
    made = _attribute(key, Attribute.LOCAL)
    return "of an origin that the token does not tell" if made is None else _ORIGINS[made]


def _said(key: Any, attribute: Attribute) -> str:
    return {True: "yes", False: "no", None: "the token does not tell"}[_attribute(key, attribute)]


def _attribute(key: Any, attribute: Attribute) -> bool | None:
    try:
        return bool(key[attribute])
    except PKCS11Error:
        return None
