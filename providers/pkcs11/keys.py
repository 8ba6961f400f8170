"""Keys of a token: how they are found, made, brought in and destroyed.

Several keys may have one label; the one with the greatest CKA_ID, read as a number, is the current one, and the others
unwrap what they wrapped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from pkcs11 import MGF, Attribute, KeyType, MechanismFlag, ObjectClass, PKCS11Error, Session
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
PAIRED: Final = "AES-256-CBC-HMAC-SHA256"
"""The mechanism whose keys are pairs: an AES key, and a MAC key with its label and CKA_ID."""

_log = logging.getLogger(__name__)

_NEVER_LEAVES: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: True,
}
_CURVES: Final = {"EC-P256": SECP256R1.name, "EC-P384": SECP384R1.name}
SIGNING_ALGORITHMS: Final = tuple(_CURVES)


def current_name(session: Session, label: str, *, paired: bool = False) -> str:
    """The name of the key that wraps now. Raises NotFound, ConfigurationInvalid.

    `paired`: only keys with a MAC key are meant. One without is what a broken attempt to make a pair left behind.
    """
    found = _objects(session, {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})
    of_type = [(key[Attribute.KEY_TYPE], bytes(key[Attribute.ID])) for key in found]
    partners = {identity for key_type, identity in of_type if key_type == KeyType.GENERIC_SECRET}
    everything = [identity for key_type, identity in of_type if key_type == KeyType.AES]
    identities = [identity for identity in everything if identity in partners] if paired else everything
    if everything and not identities:
        raise NotFound(
            f"no AES key labelled {label!r} has a MAC key of its CKA_ID: make a pair (docs/providers/pkcs11.md)"
        )
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
    name = KeyName(label, _new_identity())
    with _whole(session, name):
        _add_partner(session, name, mechanism)
        session.generate_key(
            KeyType.AES,
            AES_KEY_BYTES * 8,
            id=name.identity,
            label=label,
            store=True,
            capabilities=_uses(mechanism),
            template=_NEVER_LEAVES,
        )
    return str(name)


def import_wrapping_key(session: Session, label: str, mechanism: Mechanism, material: bytearray) -> str:
    """Bring in 32 bytes, encrypted to an RSA key that the token makes for this one import and then forgets.

    So the material is in the clear in this process alone: not in the client library, its logs or the wire.
    """
    if len(material) != AES_KEY_BYTES:
        raise InputRefused(f"an AES-256 key has {AES_KEY_BYTES} bytes")
    name = KeyName(label, _new_identity())
    with _whole(session, name):
        _add_partner(session, name, mechanism)
        _bring_in(session, name, mechanism, material)
    return str(name)


def _bring_in(session: Session, name: KeyName, mechanism: Mechanism, material: bytearray) -> None:
    private: Any
    public, private = session.generate_keypair(
        KeyType.RSA,
        TRANSPORT_BITS,
        store=False,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        private_template={Attribute.EXTRACTABLE: False},
    )
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
            id=name.identity,
            label=name.label,
            store=True,
            capabilities=_uses(mechanism),
            mechanism=Ckm.RSA_PKCS_OAEP,
            mechanism_param=(Ckm.SHA_1, MGF.SHA1, None),
            template=_NEVER_LEAVES,
        )
    finally:
        public.destroy()
        private.destroy()


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


@contextmanager
def _whole(session: Session, name: KeyName) -> Iterator[None]:
    """Leave nothing of that new name when making it failed, whatever of it the token made and did not answer."""
    try:
        yield
    except Exception:
        try:
            for key in _objects(session, {Attribute.LABEL: name.label, Attribute.ID: name.identity}):
                key.destroy()
        except PKCS11Error as error:
            _log.warning("making key %s failed and may have left objects of that name: %s", name, type(error).__name__)
        raise


def _add_partner(session: Session, name: KeyName, mechanism: Mechanism) -> None:
    """Make the MAC key of a pair: before the AES key, which alone would be current and open nothing."""
    if mechanism == PAIRED:
        session.generate_key(
            KeyType.GENERIC_SECRET,
            MAC_KEY_BITS,
            id=name.identity,
            label=name.label,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            mechanism=Ckm.GENERIC_SECRET_KEY_GEN,
            template=_NEVER_LEAVES,
        )


def _uses(mechanism: Mechanism) -> MechanismFlag:
    if mechanism in ("AES-256-GCM", PAIRED):
        return MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    return MechanismFlag.WRAP | MechanismFlag.UNWRAP


def _objects(session: Session, template: dict[Attribute, Any]) -> list[Any]:
    return list(session.get_objects(template))


def _number(identity: bytes) -> int:
    return int.from_bytes(identity)


def _new_identity() -> bytes:
    """Greater than every one before: milliseconds since 1970 in 6 bytes, then 2 random ones."""
    return (time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(ID_BYTES - 6)
