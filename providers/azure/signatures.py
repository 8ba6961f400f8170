"""Signatures of wraps: made by the service, verified here with the public keys of its signing key's versions."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from providers.azure.key_vault import KeyVault, binary, version_of
from providers.azure.names import VERSION_BYTES, KeyName
from providers.errors import InputRefused, NotFound, Tampered

ES256: Final = "ES256"
SIGNATURE_BYTES: Final = 64  # r and s, RFC 7518, 3.4
HEAD_BYTES: Final = VERSION_BYTES + SIGNATURE_BYTES

_LABEL: Final = b"keyside azure v1 RSA-OAEP-256+ES256\x00"
_COORDINATE_BYTES: Final = 32
_KEPT: Final = 256  # public keys; a signing key has a version a year or so

UNSIGNED: Final = (
    "the wrap's signature is not good: its bytes were changed, it belongs to another data key, keyring, partition or "
    "purpose, or somebody without the signing key made it; restore that keystore row from a backup"
)


class Signatures:
    """Of one signing key. Verifying asks the service once a version, for its public key."""

    def __init__(self, vault: KeyVault, key: KeyName) -> None:
        self._vault = vault
        self._key = key
        self._current: KeyName | None = None
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}

    async def open(self) -> KeyName:
        """Find the version that signs from now on. Raises NotFound, InputRefused for another kind of key."""
        self._current = await self._load(self._key)
        return self._current

    async def sign(self, kek: KeyName, context: bytes, sealed: bytes) -> bytes:
        """The head of a wrap: the signing key's version (16 bytes) and the signature (64 bytes)."""
        assert self._current is not None
        assert self._current.version is not None
        digest = _digest(kek, context, sealed)
        answer = await self._vault.operate(self._current, "sign", ES256, digest)
        head = bytes.fromhex(self._current.version) + binary(answer, "value")
        await self.check(kek, context, head, sealed)  # a wrap that could not be opened must not be stored
        return head

    async def check(self, kek: KeyName, context: bytes, head: bytes, sealed: bytes) -> None:
        """Return when the head is that of `sealed`. Raises Tampered, or what fetching a public key raises."""
        version, signature = head[:VERSION_BYTES].hex(), head[VERSION_BYTES:]
        public = self._public.get(version) or await self._named(version)
        if len(signature) != SIGNATURE_BYTES:
            raise Tampered(UNSIGNED)
        r, s = (int.from_bytes(part, "big") for part in (signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]))
        try:
            public.verify(
                utils.encode_dss_signature(r, s), _digest(kek, context, sealed), ec.ECDSA(utils.Prehashed(SHA256()))
            )
        except InvalidSignature:
            raise Tampered(UNSIGNED) from None

    async def _named(self, version: str) -> ec.EllipticCurvePublicKey:
        try:
            await self._load(self._key.at(version))
        except NotFound:
            await self._load(self._key.at(None))  # raises NotFound where the key itself is gone
            raise Tampered(UNSIGNED) from None
        return self._public[version]

    async def _load(self, key: KeyName) -> KeyName:
        bundle = await self._vault.ask("GET", key.path, "get")
        found = version_of(bundle, key)
        jwk = bundle["key"]
        if jwk.get("crv") != "P-256" or str(jwk.get("kty")) not in ("EC", "EC-HSM"):
            raise InputRefused(f"the signing key {found} is not a P-256 key: make one, or name it in hsm.signingKey")
        x, y = (int.from_bytes(binary(jwk, name), "big") for name in ("x", "y"))
        while len(self._public) >= _KEPT:
            del self._public[next(iter(self._public))]
        assert found.version is not None
        try:
            self._public[found.version] = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except ValueError as error:
            raise InputRefused(f"the public key of {found} is no point of P-256: see the vault") from error
        return found


def _digest(kek: KeyName, context: bytes, sealed: bytes) -> bytes:
    name = str(kek).encode()
    parts = (name, context, sealed)
    return sha256(_LABEL + b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
