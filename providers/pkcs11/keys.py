"""Keys of a token: how they are found, made, brought in and destroyed.

Several keys may have one label; the one with the greatest CKA_ID, read as a number, is the current one, and the others
unwrap what they wrapped.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from pkcs11 import MGF, Attribute, KeyType, MechanismFlag, ObjectClass, Session
from pkcs11 import Mechanism as Ckm
from pkcs11.util.ec import encode_named_curve_parameters

from providers.errors import ConfigurationInvalid, InputRefused, NotFound, Problem
from providers.options import SECTION
from providers.pkcs11.names import KeyName
from providers.pkcs11.vendors import Mechanism
from providers.wiping import wipe

ID_BYTES: Final = 8
AES_KEY_BYTES: Final = 32
MAC_KEY_BITS: Final = 256
TRANSPORT_BITS: Final = 3072

_NEVER_LEAVES: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: True,
}
_CURVES: Final = {"EC-P256": SECP256R1.name, "EC-P384": SECP384R1.name}
SIGNING_ALGORITHMS: Final = tuple(_CURVES)


def current_name(session: Session, label: str) -> str:
    """The name of the key that wraps now. Raises NotFound, ConfigurationInvalid."""
    identities = [
        bytes(key[Attribute.ID])
        for key in _objects(session, {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})
        if key[Attribute.KEY_TYPE] == KeyType.AES
    ]
    if not identities:
        raise NotFound(
            f"the token has no AES key labelled {label!r} that this PIN can see: make one (docs/providers/pkcs11.md), "
            "or name it in hsm.kek"
        )
    newest = max(identities, key=_number)
    if sum(_number(identity) == _number(newest) for identity in identities) > 1:
        raise ConfigurationInvalid(
            [Problem(f"{SECTION}.kek", f"several AES keys are labelled {label!r} with one CKA_ID: give each its own")]
        )
    return str(KeyName(label, newest))


def find_key(session: Session, name: str, key_type: KeyType, kind: ObjectClass = ObjectClass.SECRET_KEY) -> Any:
    """The key of that name. Raises NotFound."""
    label, identity = KeyName.parse(name)
    found = [
        key
        for key in _objects(session, {Attribute.CLASS: kind, Attribute.LABEL: label, Attribute.ID: identity})
        if key[Attribute.KEY_TYPE] == key_type
    ]
    if len(found) != 1:
        raise NotFound(
            f"the token has {len(found) or 'no'} {key_type.name} keys named {name!r}: restore the one key of that "
            "label and CKA_ID from the HSM's backup"
        )
    return found[0]


def generate_wrapping_key(session: Session, label: str, mechanism: Mechanism) -> str:
    """Make an AES-256 key that stays in the token, for one mechanism; with it a MAC key where that needs one."""
    identity = _new_identity()
    session.generate_key(
        KeyType.AES,
        AES_KEY_BYTES * 8,
        id=identity,
        label=label,
        store=True,
        capabilities=_uses(mechanism),
        template=_NEVER_LEAVES,
    )
    _complete(session, label, identity, mechanism)
    return str(KeyName(label, identity))


def import_wrapping_key(session: Session, label: str, mechanism: Mechanism, material: bytearray) -> str:
    """Bring in 32 bytes, encrypted to an RSA key that the token makes for this one import and then forgets.

    So the material is in the clear in this process alone: not in the client library, its logs or the wire.
    """
    if len(material) != AES_KEY_BYTES:
        raise InputRefused(f"an AES-256 key has {AES_KEY_BYTES} bytes")
    private: Any
    public, private = session.generate_keypair(
        KeyType.RSA,
        TRANSPORT_BITS,
        store=False,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        private_template={Attribute.EXTRACTABLE: False},
    )
    identity = _new_identity()
    try:
        numbers = rsa.RSAPublicNumbers(
            int.from_bytes(public[Attribute.PUBLIC_EXPONENT]), int.from_bytes(public[Attribute.MODULUS])
        )
        # OAEP with SHA-1 is what every token takes (SoftHSM takes nothing else); its security does not rest on
        # collisions (RFC 8017, appendix B.1)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
        copy = bytes(material)
        try:
            encrypted = numbers.public_key().encrypt(copy, oaep)
        finally:
            wipe(copy)
        private.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            encrypted,
            id=identity,
            label=label,
            store=True,
            capabilities=_uses(mechanism),
            mechanism=Ckm.RSA_PKCS_OAEP,
            mechanism_param=(Ckm.SHA_1, MGF.SHA1, None),
            template=_NEVER_LEAVES,
        )
    finally:
        public.destroy()
        private.destroy()
    _complete(session, label, identity, mechanism)
    return str(KeyName(label, identity))


def generate_signing_key(session: Session, label: str, algorithm: str) -> str:
    """Make an EC key pair whose private key stays in the token."""
    if algorithm not in _CURVES:
        raise InputRefused(f"a token signs with {' or '.join(_CURVES)} here, not {algorithm!r}")
    parameters = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[algorithm])}, local=True
    )
    identity = _new_identity()
    parameters.generate_keypair(
        id=identity,
        label=label,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template=_NEVER_LEAVES,
    )
    return str(KeyName(label, identity))


def destroy(session: Session, name: KeyName) -> None:
    """Destroy every object of that label and CKA_ID. Raises NotFound."""
    found = _objects(session, {Attribute.LABEL: name.label, Attribute.ID: name.identity})
    if not found:
        raise NotFound(f"the token has no key named {str(name)!r}")
    for key in found:
        key.destroy()


def _complete(session: Session, label: str, identity: bytes, mechanism: Mechanism) -> None:
    if mechanism == "AES-256-CBC-HMAC-SHA256":
        session.generate_key(
            KeyType.GENERIC_SECRET,
            MAC_KEY_BITS,
            id=identity,
            label=label,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            mechanism=Ckm.GENERIC_SECRET_KEY_GEN,
            template=_NEVER_LEAVES,
        )


def _uses(mechanism: Mechanism) -> MechanismFlag:
    if mechanism in ("AES-256-GCM", "AES-256-CBC-HMAC-SHA256"):
        return MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    return MechanismFlag.WRAP | MechanismFlag.UNWRAP


def _objects(session: Session, template: dict[Attribute, Any]) -> list[Any]:
    return list(session.get_objects(template))


def _number(identity: bytes) -> int:
    return int.from_bytes(identity)


def _new_identity() -> bytes:
    """Greater than every one before: milliseconds since 1970 in 6 bytes, then 2 random ones."""
    return (time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(ID_BYTES - 6)
