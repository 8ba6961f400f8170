"""pyca/cryptography: AESGCM under one bare key, in process. No key management: the floor of what Python costs."""

import os
from collections.abc import Sequence
from importlib.metadata import version

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Cryptography:
    name = "cryptography"
    version = version("cryptography")

    def __init__(self) -> None:
        self._aead = AESGCM(AESGCM.generate_key(256))

    def encrypt_many(self, values: Sequence[bytes], context: bytes) -> list[bytes]:
        encrypt, random = self._aead.encrypt, os.urandom
        return [(nonce := random(12)) + encrypt(nonce, value, context) for value in values]

    def decrypt_many(self, sealed: Sequence[bytes], context: bytes) -> list[bytes]:
        decrypt = self._aead.decrypt
        return [decrypt(ciphertext[:12], ciphertext[12:], context) for ciphertext in sealed]

    def close(self) -> None:
        """Nothing is held."""


def open_rival() -> Cryptography:
    return Cryptography()
