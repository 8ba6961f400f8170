"""docs/spec/wrap.md in plain Python: hmac, hashlib and single AES blocks, nothing of the product."""

import base64
import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB, GCM

GCM_NAME = "AES-256-GCM"
KWP_NAME = "AES-KWP"
_KWP_PREFIX = bytes.fromhex("a65959a6")


class RefusedError(Exception):
    """Does not authenticate."""


def context(data_key_id: int, keyring: str, partition: str | None, purpose: str) -> bytes:
    """The canonical encoding."""
    name = keyring.encode()
    head = struct.pack(">3sBBQB", b"KSW", 1, ["field", "index"].index(purpose), data_key_id, len(name)) + name
    if partition is None:
        return head + b"\x00"
    return head + b"\x01" + struct.pack("B", len(partition.encode())) + partition.encode()


def hkdf_expand(root: bytes, label: str) -> bytes:
    """RFC 5869, 2.3, for one block."""
    return hmac.new(root, label.encode() + b"\x01", hashlib.sha256).digest()


def wrapping_key(root: bytes, mechanism: str) -> bytes:
    """The key of one mechanism."""
    return hkdf_expand(root, f"keyside local v1 wrap {mechanism}")


def kek(root: bytes) -> str:
    """The root key's name."""
    return "local:" + hmac.new(root, b"keyside local v1 kek id", hashlib.sha256).hexdigest()[:16]


def root_key_file(root: bytes) -> str:
    """The three lines."""
    return f"keyside-root-key-v1\n{base64.b64encode(root).decode()}\n{kek(root)}\n"


def gcm_wrap(root: bytes, nonce: bytes, key: bytes, authenticated: bytes) -> bytes:
    """A blob of AES-256-GCM."""
    sealing = Cipher(AES(wrapping_key(root, GCM_NAME)), GCM(nonce)).encryptor()
    sealing.authenticate_additional_data(authenticated)
    return nonce + sealing.update(key) + sealing.finalize() + sealing.tag


def gcm_unwrap(root: bytes, blob: bytes, authenticated: bytes) -> bytes:
    """The data key in a blob of AES-256-GCM."""
    opening = Cipher(AES(wrapping_key(root, GCM_NAME)), GCM(blob[:12], blob[-16:])).decryptor()
    opening.authenticate_additional_data(authenticated)
    try:
        return opening.update(blob[12:-16]) + opening.finalize()
    except InvalidTag as error:
        raise RefusedError from error


def kwp_wrap(root: bytes, key: bytes, authenticated: bytes) -> bytes:
    """A blob of AES-KWP."""
    return kwp_seal(wrapping_key(root, KWP_NAME), hashlib.sha256(authenticated).digest() + key)


def kwp_unwrap(root: bytes, blob: bytes, authenticated: bytes) -> bytes:
    """The data key in a blob of AES-KWP."""
    payload = kwp_open(wrapping_key(root, KWP_NAME), blob)
    if payload[:32] != hashlib.sha256(authenticated).digest():
        raise RefusedError
    return payload[32:]


def kwp_seal(key: bytes, payload: bytes) -> bytes:
    """RFC 5649, 4.1, for payloads of more than 8 bytes."""
    block = Cipher(AES(key), ECB()).encryptor()
    register = _KWP_PREFIX + struct.pack(">I", len(payload))
    parts = _eights(payload + bytes(-len(payload) % 8))
    for step in range(6 * len(parts)):
        index = step % len(parts)
        output = block.update(register + parts[index])
        register, parts[index] = _mixed(output[:8], step + 1), output[8:]
    return register + b"".join(parts)


def kwp_open(key: bytes, blob: bytes) -> bytes:
    """RFC 5649, 4.2, for payloads of more than 8 bytes."""
    block = Cipher(AES(key), ECB()).decryptor()
    register, *parts = _eights(blob)
    for step in reversed(range(6 * len(parts))):
        index = step % len(parts)
        output = block.update(_mixed(register, step + 1) + parts[index])
        register, parts[index] = output[:8], output[8:]
    (length,) = struct.unpack(">I", register[4:])
    payload = b"".join(parts)
    if register[:4] != _KWP_PREFIX or not 0 <= len(payload) - length < 8 or any(payload[length:]):
        raise RefusedError
    return payload[:length]


def _eights(value: bytes) -> list[bytes]:
    return [value[i : i + 8] for i in range(0, len(value), 8)]


def _mixed(register: bytes, count: int) -> bytes:
    return (int.from_bytes(register, "big") ^ count).to_bytes(8, "big")
