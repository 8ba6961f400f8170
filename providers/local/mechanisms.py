"""The two ways of wrapping a data key, and what they are made of.

AES-256-GCM (NIST SP 800-38D) takes the context as associated data. AES-KWP (RFC 5649, NIST SP 800-38F) has no such
input, so the SHA-256 of the context lies in front of the data key inside the wrapped payload and is compared after
unwrapping.
Byte for byte: docs/spec/wrap.md.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from providers.errors import Tampered
from providers.wiping import wipe

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
CONTEXT_DIGEST_BYTES: Final = 32

_REFUSED: Final = (
    "the wrap does not authenticate: its bytes were changed, or it belongs to another data key, keyring, partition or "
    "purpose; restore that keystore row from a backup"
)


def gcm_seal(key: bytearray, plaintext: bytes | bytearray, associated_data: bytes) -> bytes:
    """Encrypt under a fresh random nonce: nonce (12 bytes), ciphertext, tag (16 bytes)."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)


def gcm_open(key: bytearray, blob: bytes, associated_data: bytes) -> bytearray:
    """Decrypt what `gcm_seal` made. Raises Tampered."""
    if len(blob) < NONCE_BYTES + TAG_BYTES:
        raise Tampered(_REFUSED)
    plaintext = bytearray(len(blob) - NONCE_BYTES - TAG_BYTES)
    try:
        AESGCM(key).decrypt_into(blob[:NONCE_BYTES], blob[NONCE_BYTES:], associated_data, plaintext)
    except InvalidTag as error:
        wipe(plaintext)
        raise Tampered(_REFUSED) from error
    return plaintext


def kwp_seal(key: bytearray, secret: bytes | bytearray, context: bytes) -> bytes:
    """Wrap SHA-256(context) and `secret` together: for a data key of 32 bytes, 72 bytes. Deterministic."""
    payload = bytearray(sha256(context).digest()) + secret
    try:
        return aes_key_wrap_with_padding(key, payload)
    finally:
        wipe(payload)


def kwp_open(key: bytearray, blob: bytes, context: bytes) -> bytearray:
    """Unwrap what `kwp_seal` made and check its context in constant time. Raises Tampered."""
    try:
        payload = aes_key_unwrap_with_padding(key, blob)
    except InvalidUnwrap as error:
        raise Tampered(_REFUSED) from error
    try:
        if not hmac.compare_digest(payload[:CONTEXT_DIGEST_BYTES], sha256(context).digest()):
            raise Tampered(_REFUSED)
        secret = bytearray(len(payload) - CONTEXT_DIGEST_BYTES)
        with memoryview(payload) as view:
            secret[:] = view[CONTEXT_DIGEST_BYTES:]
        return secret
    finally:
        wipe(payload)
