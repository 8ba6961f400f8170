"""docs/spec/envelope.md in plain Python: seal, open, text form, blind index."""

import base64
import hmac
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = 0xC1
AES_256_GCM = 0x01
HEADER_BYTES = 10
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES
TEXT_PREFIX = "ks1."


class CiphertextError(Exception):
    """Not an envelope, or not one that opens with this key and context."""


class TextFormError(ValueError):
    """Not the text form of anything."""


def seal(key: bytes, key_id: int, nonce: bytes, context: bytes | None, plaintext: bytes) -> bytes:
    """The envelope of `plaintext` under a 32-byte key whose id is a 64-bit number."""
    assert len(nonce) == NONCE_BYTES
    header = bytes([MAGIC, AES_256_GCM]) + key_id.to_bytes(8, "big")
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + (context or b""))


def key_id_of(envelope: bytes) -> int:
    """The data key that an envelope names. Raises CiphertextError when it cannot be a suite 0x01 envelope."""
    if len(envelope) < OVERHEAD_BYTES or envelope[0] != MAGIC or envelope[1] != AES_256_GCM:
        raise CiphertextError
    return int.from_bytes(envelope[2:HEADER_BYTES], "big")


def open_envelope(key: bytes, envelope: bytes, context: bytes | None) -> bytes:
    """The plaintext. Raises CiphertextError."""
    key_id_of(envelope)
    header, nonce = envelope[:HEADER_BYTES], envelope[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
    try:
        return AESGCM(key).decrypt(nonce, envelope[HEADER_BYTES + NONCE_BYTES :], header + (context or b""))
    except InvalidTag:
        raise CiphertextError from None


def to_text(envelope: bytes) -> str:
    return TEXT_PREFIX + base64.urlsafe_b64encode(envelope).decode().rstrip("=")


def from_text(text: str) -> bytes:
    """The bytes of a text form. Raises TextFormError unless `text` is the one text that those bytes have."""
    if not re.fullmatch(r"ks1\.[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise TextFormError
    body = text[len(TEXT_PREFIX) :]
    envelope = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if to_text(envelope) != text:
        raise TextFormError
    return envelope


def blind_index(key: bytes, context: bytes | None, value: bytes, index_bits: int = 128) -> bytes:
    context = context or b""
    return hmac.digest(key, len(context).to_bytes(4, "big") + context + value, "sha256")[: index_bits // 8]
