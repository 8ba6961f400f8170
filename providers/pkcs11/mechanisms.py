"""The ways of sealing bytes under a token's AES key, all of which authenticate. Byte for byte: docs/spec/wrap.md."""

from __future__ import annotations

import ctypes
import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from hashlib import sha256
from typing import Any, ClassVar, Final, Self

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass, PKCS11Error, Session
from pkcs11 import Mechanism as Ckm

from providers.errors import Tampered
from providers.pkcs11.failures import ALTERED, disabled
from providers.pkcs11.vendors import STANDARD_NUMBERS, Mechanism, Vendor
from providers.wiping import wipe

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
BLOCK_BYTES: Final = 16
SEMIBLOCK_BYTES: Final = 8
DIGEST_BYTES: Final = 32

FindKey = Callable[[KeyType], Any]
"""Finds the key-encryption key of a name, by its type: AES, or GENERIC_SECRET for the MAC key that goes with it."""


class _GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS (PKCS #11 v3.1, 6.13.5), holding on to what it points to.

    In this form python-pkcs11 hands it on as it is. Its own form of it refuses the IV of 16 bytes that some tokens
    make, and finding out which mechanism it belongs to takes longer than SoftHSM takes to decrypt.
    """

    _fields_ = (
        ("iv", ctypes.c_char_p),
        ("iv_bytes", ctypes.c_ulong),
        ("iv_bits", ctypes.c_ulong),
        ("associated", ctypes.c_char_p),
        ("associated_bytes", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    )

    @classmethod
    def of(cls, iv: bytes, associated: bytes) -> Self:
        return cls(iv, len(iv), len(iv) * 8, associated, len(associated), TAG_BYTES * 8)


class Sealing(ABC):
    """One mechanism of one token. Stateless; used from the threads that hold a session."""

    name: Mechanism
    needs: ClassVar[MechanismFlag]

    def __init__(self, name: Mechanism, number: int, vendor: Vendor) -> None:
        self.name = name
        self.ckm = ckm(number)
        self._vendor = vendor

    @abstractmethod
    def seal(self, session: Session, find: FindKey, secret: bytes | bytearray, associated: bytes) -> bytes:
        """Encrypt and authenticate `secret`, bound to `associated`."""

    @abstractmethod
    def open(self, session: Session, find: FindKey, blob: bytes, associated: bytes) -> bytearray:
        """Undo `seal`; the caller wipes the result. Raises Tampered, or what the token answered."""


class Gcm(Sealing):
    """AES-256-GCM: the IV's length (1 byte), IV, ciphertext, tag (16). 12 random bytes, or the token's own IV."""

    needs = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT

    def seal(self, session: Session, find: FindKey, secret: bytes | bytearray, associated: bytes) -> bytes:
        key = find(KeyType.AES)
        nonce = os.urandom(NONCE_BYTES)
        copy = bytes(bytearray(secret))  # never the caller's own object, for it is wiped
        try:
            parameters = _GcmParameters.of(nonce, associated)
            sealed: bytes = permitted(key, "encrypt")(copy, mechanism=self.ckm, mechanism_param=bytes(parameters))
        finally:
            wipe(copy)
        appended = len(sealed) - len(secret) - TAG_BYTES
        if appended in self._vendor.appended_iv_bytes:
            sealed, nonce = sealed[:-appended], sealed[-appended:]
        elif appended:
            raise PKCS11Error(f"the token's AES-GCM answered {appended} bytes more than ciphertext and tag")
        return bytes([len(nonce)]) + nonce + sealed

    def open(self, session: Session, find: FindKey, blob: bytes, associated: bytes) -> bytearray:
        iv_bytes = blob[0] if blob else 0
        if iv_bytes != NONCE_BYTES and iv_bytes not in self._vendor.appended_iv_bytes:
            raise Tampered(ALTERED)
        if len(blob) < 1 + iv_bytes + TAG_BYTES:
            raise Tampered(ALTERED)
        parameters = _GcmParameters.of(blob[1 : 1 + iv_bytes], associated)
        decrypt = permitted(find(KeyType.AES), "decrypt")
        return taken(decrypt(blob[1 + iv_bytes :], mechanism=self.ckm, mechanism_param=bytes(parameters)))


class KeyWrap(Sealing):
    """AES-KW (RFC 3394) and AES-KWP (RFC 5649; both NIST SP 800-38F), which take no associated data.

    What is wrapped is SHA-256 of the associated data, the secret, and padding to whole 8 bytes: KW needs it, and tokens
    differ in what they give back of a KWP whose length is another.
    Tokens offer these for keys only, so the payload becomes an object of the session for a moment.
    """

    needs = MechanismFlag.WRAP | MechanismFlag.UNWRAP

    def seal(self, session: Session, find: FindKey, secret: bytes | bytearray, associated: bytes) -> bytes:
        wrap = permitted(find(KeyType.AES), "wrap_key")
        payload = bytearray(sha256(associated).digest()) + secret + padding(len(secret), SEMIBLOCK_BYTES)
        copy = bytes(payload)
        wipe(payload)
        try:
            carrier = session.create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
                    Attribute.VALUE: copy,
                    **_CARRIER,
                }
            )
        finally:
            wipe(copy)
        try:
            return bytes(wrap(carrier, mechanism=self.ckm))
        finally:
            carrier.destroy()

    def open(self, session: Session, find: FindKey, blob: bytes, associated: bytes) -> bytearray:
        if len(blob) % SEMIBLOCK_BYTES or len(blob) < DIGEST_BYTES + SEMIBLOCK_BYTES:
            raise Tampered(ALTERED)
        unwrap = permitted(find(KeyType.AES), "unwrap_key")
        carrier = unwrap(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            blob,
            mechanism=self.ckm,
            capabilities=MechanismFlag(0),
            template=_CARRIER,
        )
        try:
            payload = taken(carrier[Attribute.VALUE])
        finally:
            carrier.destroy()
        try:
            if not hmac.compare_digest(payload[:DIGEST_BYTES], sha256(associated).digest()):
                raise Tampered(ALTERED)
            unpad(payload, SEMIBLOCK_BYTES)
            return payload[DIGEST_BYTES:]
        finally:
            wipe(payload)


class CbcHmac(Sealing):
    """AES-256-CBC, then HMAC-SHA-256 over all of it under a key of its own: for tokens that have none of the others.

    IV (16 random bytes), ciphertext, tag (32). The tag covers SHA-256 of the associated data, IV and ciphertext, and is
    verified by the token before anything is decrypted, so neither padding nor plaintext of altered bytes is looked at.
    """

    needs = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT

    def seal(self, session: Session, find: FindKey, secret: bytes | bytearray, associated: bytes) -> bytes:
        encrypt, sign = permitted(find(KeyType.AES), "encrypt"), permitted(find(KeyType.GENERIC_SECRET), "sign")
        initial = os.urandom(BLOCK_BYTES)
        sealed: bytes
        padded = bytes(bytearray(secret) + padding(len(secret), BLOCK_BYTES))
        try:
            sealed = initial + encrypt(padded, mechanism=self.ckm, mechanism_param=initial)
        finally:
            wipe(padded)
        return sealed + bytes(sign(sha256(associated).digest() + sealed, mechanism=Ckm.SHA256_HMAC))

    def open(self, session: Session, find: FindKey, blob: bytes, associated: bytes) -> bytearray:
        sealed, tag = blob[:-DIGEST_BYTES], blob[-DIGEST_BYTES:]
        if len(sealed) % BLOCK_BYTES or len(sealed) < 2 * BLOCK_BYTES:
            raise Tampered(ALTERED)
        decrypt, verify = permitted(find(KeyType.AES), "decrypt"), permitted(find(KeyType.GENERIC_SECRET), "verify")
        if not verify(sha256(associated).digest() + sealed, tag, mechanism=Ckm.SHA256_HMAC):
            raise Tampered(ALTERED)
        secret = taken(decrypt(sealed[BLOCK_BYTES:], mechanism=self.ckm, mechanism_param=sealed[:BLOCK_BYTES]))
        unpad(secret, BLOCK_BYTES)
        return secret


_KINDS: Final[dict[Mechanism, type[Sealing]]] = {
    "AES-256-GCM": Gcm,
    "AES-KWP": KeyWrap,
    "AES-KEY-WRAP-PAD": KeyWrap,
    "AES-KW": KeyWrap,
    "AES-256-CBC-HMAC-SHA256": CbcHmac,
}
_CARRIER: Final = {
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}


def ckm(number: int) -> Ckm:
    """The mechanism of that number, a maker's own included: python-pkcs11 takes members of its enumeration alone."""
    try:
        return Ckm(number)
    except ValueError:
        member = int.__new__(Ckm, number)
        member._name_, member._value_ = f"VENDOR_{number:X}", number
        return member


def sealing(name: Mechanism, offered: set[int], vendor: Vendor) -> Sealing | None:
    """The mechanism of that name by whichever number the token offers; None when it offers none of them."""
    if name == "AES-256-CBC-HMAC-SHA256" and Ckm.SHA256_HMAC not in offered:
        return None
    for number in (STANDARD_NUMBERS[name], vendor.numbers.get(name)):
        if number is not None and number in offered:
            return _KINDS[name](name, number, vendor)
    return None


def permitted(key: Any, operation: str) -> Callable[..., Any]:
    """The operation of a key, when its attributes allow it. Raises KeyDisabled."""
    method = getattr(key, operation, None)
    if method is None:
        raise disabled(f"no CKA_{operation.removesuffix('_key').upper()}")
    return method  # type: ignore[no-any-return]  # mixins of python-pkcs11


def taken(secret: bytes) -> bytearray:
    """The same in a buffer that can be wiped; the library's own copy is wiped."""
    copy = bytearray(secret)
    wipe(secret)
    return copy


def padding(length: int, block: int) -> bytes:
    """PKCS #7 padding: 1 to `block` bytes."""
    count = block - length % block
    return bytes([count]) * count


def unpad(secret: bytearray, block: int) -> None:
    """Cut the padding off in place. Raises Tampered, which authenticated bytes never lead to."""
    count = secret[-1] if secret else 0
    if not 1 <= count <= min(block, len(secret)):
        wipe(secret)
        raise Tampered(ALTERED)
    del secret[-count:]
