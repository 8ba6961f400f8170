"""A local key-encryption key: the keys derived from 32 root bytes, and its name."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from providers.errors import ForeignWrap
from providers.local.mechanisms import gcm_open, gcm_seal, kwp_open, kwp_seal
from providers.wiping import wipe

ROOT_KEY_BYTES: Final = 32
AES_256_GCM: Final = "AES-256-GCM"
AES_KWP: Final = "AES-KWP"
MECHANISMS: Final = (AES_256_GCM, AES_KWP)

_ID_PREFIX: Final = "local:"
_ID_BYTES: Final = 8
_ID_LABEL: Final = b"keyside local v1 kek id"
_WRAP_LABELS: Final = {mechanism: f"keyside local v1 wrap {mechanism}".encode() for mechanism in MECHANISMS}
_VALUES_LABEL: Final = b"keyside local v1 encrypt AES-256-GCM"

_SEAL: Final[dict[str, Callable[[bytearray, bytes | bytearray, bytes], bytes]]] = {
    AES_256_GCM: gcm_seal,
    AES_KWP: kwp_seal,
}
_OPEN: Final[dict[str, Callable[[bytearray, bytes, bytes], bytearray]]] = {
    AES_256_GCM: gcm_open,
    AES_KWP: kwp_open,
}


def kek_id(root: bytearray) -> str:
    """Name a root key: `local:` and 64 bits of HMAC-SHA-256 in hexadecimal. Says nothing about the key's bytes."""
    return _ID_PREFIX + hmac.digest(root, _ID_LABEL, "sha256")[:_ID_BYTES].hex()


class Kek:
    """Derived from a root key, one key for each use (HKDF-Expand, RFC 5869); the root key itself is not kept."""

    def __init__(self, root: bytearray) -> None:
        """Derive from 32 bytes; `root` stays the caller's to wipe."""
        assert len(root) == ROOT_KEY_BYTES
        self.id = kek_id(root)
        self._wrapping = {mechanism: _derive(root, label) for mechanism, label in _WRAP_LABELS.items()}
        self._values = _derive(root, _VALUES_LABEL)

    def wrap(self, mechanism: str, key: bytes | bytearray, context: bytes) -> bytes:
        """Wrap a data key, bound to `context`."""
        return _SEAL[mechanism](self._wrapping[mechanism], key, context)

    def unwrap(self, mechanism: str, blob: bytes, context: bytes) -> bytearray:
        """Undo `wrap`. Raises Tampered, ForeignWrap for a mechanism that is not known."""
        if mechanism not in _OPEN:
            raise ForeignWrap(f"LOCAL knows no mechanism {mechanism!r}: was this wrap made by a later release?")
        return _OPEN[mechanism](self._wrapping[mechanism], blob, context)

    def encrypt(self, plaintext: bytes | bytearray, associated_data: bytes) -> bytes:
        """Encrypt a small value under a key that never wraps data keys."""
        return gcm_seal(self._values, plaintext, associated_data)

    def decrypt(self, blob: bytes, associated_data: bytes) -> bytearray:
        """Undo `encrypt`. Raises Tampered."""
        return gcm_open(self._values, blob, associated_data)

    def wipe(self) -> None:
        """Overwrite every derived key; the object is of no use afterwards."""
        for key in (*self._wrapping.values(), self._values):
            wipe(key)

    def __del__(self) -> None:
        # a key that was loaded for a caller who had stopped waiting is dropped without anybody closing it
        self.wipe()

    def __repr__(self) -> str:
        return f"Kek({self.id})"


def _derive(root: bytearray, label: bytes) -> bytearray:
    derived = bytearray(ROOT_KEY_BYTES)
    HKDFExpand(SHA256(), ROOT_KEY_BYTES, label).derive_into(root, derived)
    return derived
