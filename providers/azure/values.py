"""Small values encrypted under a key of the vault: docs/spec/wrap.md, Azure Key Vault."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from providers.azure.names import KeyName
from providers.azure.options import A256GCM, MECHANISMS
from providers.azure.wraps import NONCE_BYTES, SECRET_BYTES, TAG_BYTES, Wraps
from providers.errors import ForeignWrap, Tampered
from providers.wiping import wipe

_LABEL: Final = b"KSV\x01"  # no context of a wrap begins so
_FILLER: Final = b"\x01"  # in front of a value, for the service takes no empty one
_LENGTH_BYTES: Final = 2
_HYBRID: Final = f"/{A256GCM}"

_REFUSED: Final = "the value does not authenticate: its bytes were changed, or its associated data is another"


async def encrypt(
    wraps: Wraps, mechanism: str, key: KeyName, plaintext: bytes | bytearray, associated_data: bytes
) -> tuple[str, bytes]:
    """The mechanism's name and the blob. A key that takes 32 bytes at most wraps a content key, used once, here."""
    bound = _bound(associated_data)
    if mechanism == A256GCM:
        filled = bytearray(_FILLER) + plaintext
        try:
            return mechanism, await wraps.gcm_seal(key, filled, bound)
        finally:
            wipe(filled)
    content_key = bytearray(os.urandom(SECRET_BYTES))
    try:
        sealed = await wraps.seal(mechanism, key, content_key, bound)
        nonce = os.urandom(NONCE_BYTES)
        encrypted = AESGCM(content_key).encrypt(nonce, plaintext, bound)
    finally:
        wipe(content_key)
    return mechanism + _HYBRID, len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed + nonce + encrypted


async def decrypt(
    wraps: Wraps, mechanism: str, key: KeyName, asked: KeyName, blob: bytes, associated_data: bytes
) -> bytearray:
    """Undo `encrypt`; the caller wipes the result. Raises Tampered, ForeignWrap."""
    bound = _bound(associated_data)
    if mechanism == A256GCM:
        filled = await wraps.gcm_unseal(asked, blob, bound)
        if not filled.startswith(_FILLER):
            wipe(filled)
            raise Tampered(_REFUSED)
        del filled[:1]
        return filled
    wrapped_by, _, content = mechanism.partition("/")
    if content != A256GCM or wrapped_by not in MECHANISMS:
        raise ForeignWrap(f"AZURE_KEY_VAULT does not encrypt with {mechanism!r}: was this made by a later release?")
    length = int.from_bytes(blob[:_LENGTH_BYTES], "big")
    sealed, rest = blob[_LENGTH_BYTES : _LENGTH_BYTES + length], blob[_LENGTH_BYTES + length :]
    if len(sealed) != length or len(rest) < NONCE_BYTES + TAG_BYTES:
        raise Tampered(_REFUSED)
    content_key = await wraps.unseal(wrapped_by, key, sealed, bound, asked)
    plaintext = bytearray(len(rest) - NONCE_BYTES - TAG_BYTES)
    try:
        AESGCM(content_key).decrypt_into(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound, plaintext)
    except InvalidTag:
        wipe(plaintext)
        raise Tampered(_REFUSED) from None
    finally:
        wipe(content_key)
    return plaintext


def _bound(associated_data: bytes) -> bytes:
    return _LABEL + sha256(associated_data).digest()
