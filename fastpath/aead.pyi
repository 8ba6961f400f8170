"""AES-256-GCM and blind indexes through the same native functions as the workers, for tests and for the control plane.

Everything here raises RuntimeError before fastpath.memory.open() and in a forked child. Calls hold the GIL.

    Exception
        TagMismatch
"""

Bytes = bytes | bytearray | memoryview

class TagMismatch(Exception):
    """The tag does not match: wrong key, nonce or associated data, or bytes that were changed or cut."""

class AesGcm256:
    """AES-256-GCM with 96-bit nonces and 128-bit tags (NIST SP 800-38D); the key schedule lies in the secret arena.

    The caller still owns `key` and wipes it (fastpath.memory.wipe).
    """

    def __init__(self, key: Bytes) -> None:
        """`key`: 32 bytes. Raises ValueError for another length, MemoryError when the arena is full."""
    def seal(self, nonce: Bytes, aad: Bytes, plain: Bytes) -> bytes:
        """The ciphertext, as long as `plain`, and the 16-byte tag.

        `nonce`: 12 bytes, never used twice with one key. Raises ValueError for a wrong length.
        """
    def open(self, nonce: Bytes, aad: Bytes, sealed: Bytes) -> bytes:
        """The plaintext of what `seal` gave. Raises TagMismatch, ValueError for a nonce that is not 12 bytes long."""

class BlindIndexKey:
    """A key of blind indexes: HMAC-SHA-256 (RFC 2104, FIPS 180-4); docs/spec/envelope.md, "Blind index"."""

    def __init__(self, key: Bytes) -> None:
        """`key`: 32 bytes. Raises ValueError for another length, MemoryError when the arena is full."""
    def index(self, context: Bytes, value: Bytes) -> bytes:
        """HMAC-SHA-256(key, u32be(len(context)) || context || value).

        32 bytes: cutting them to the keyring's `index_bits` is the caller's part.
        """
