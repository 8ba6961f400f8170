"""Making, importing and deleting transit keys, and signing with them."""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from providers.capabilities import KeyReference, KeySpecification, KeyUse, Signature
from providers.errors import Denied, ForeignWrap, InputRefused
from providers.vault.answers import Unexplained, data, document, not_vault
from providers.vault.engine import Engine
from providers.vault.options import is_key_name
from providers.vault.transit import KeyVersion, TransitKey
from providers.wiping import wipe

MAX_SIGNED_BYTES: Final = 524_288
AES_256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of key that transit has and that this back end makes."""

    use: KeyUse
    type: str  # the engine's name
    signature: str = ""
    hash_algorithm: str = ""  # of the signature


_KINDS: Final = {
    "AES-256": _Kind("wrap", "aes256-gcm96"),
    "EC-P256": _Kind("sign", "ecdsa-p256", "ECDSA-SHA-256", "sha2-256"),
    "EC-P384": _Kind("sign", "ecdsa-p384", "ECDSA-SHA-384", "sha2-384"),
    "ED25519": _Kind("sign", "ed25519", "ED25519", "sha2-512"),
}
_ALGORITHMS: Final = {kind.type: algorithm for algorithm, kind in _KINDS.items()}
_SIGNING: Final = {kind.type: kind for kind in _KINDS.values() if kind.use == "sign"}


class Keys:
    """The life of keys beside the key-encryption key."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kinds: dict[str, _Kind] = {}  # by name: a key never changes its type

    async def generate(self, specification: KeySpecification) -> KeyReference:
        """Make a key that is neither exportable nor open to plaintext backup."""
        kind = await self._admitted(specification)
        name = specification.label
        answer = await self._engine.ask(
            "POST", f"keys/{name}", {"type": kind.type, "exportable": False, "allow_plaintext_backup": False}
        )
        document(answer, f"making {self._engine.mount}/keys/{name}")
        return self._reference(await self._engine.read_key(name))

    async def bring_in(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Import by the engine's own protocol: AES-KWP (RFC 5649) under a key that RSA-OAEP carries (RFC 8017)."""
        kind = await self._admitted(specification)
        if kind.use == "wrap" and len(material) != AES_256_BYTES:
            raise InputRefused(f"an AES-256 key has {AES_256_BYTES} bytes; keys for signing come as PKCS#8 DER")
        name = specification.label
        request = {
            "ciphertext": b64encode(await self._sealed(material)).decode(),
            "type": kind.type,
            "hash_function": "SHA256",
            "exportable": False,
            "allow_plaintext_backup": False,
        }
        document(
            await self._engine.ask("POST", f"keys/{name}/import", request),
            f"importing {self._engine.mount}/keys/{name}",
        )
        return self._reference(await self._engine.read_key(name))

    async def delete(self, name: str) -> None:
        """Soft-delete where the server can (OpenBao: refused to all until restored), otherwise delete for good."""
        await self._engine.read_key(name)  # deleting what is not there is no error to the server
        path = f"{self._engine.mount}/keys/{name}"
        self._kinds.pop(name, None)
        answer = await self._engine.ask("DELETE", f"keys/{name}/soft-delete")
        if answer.status not in (404, 405):
            document(answer, f"soft-deleting {path}")
            return
        try:
            document(await self._engine.ask("DELETE", f"keys/{name}"), f"deleting {path}")
        except Unexplained as error:
            raise Denied(
                f"{path} may not be deleted: whoever manages keys must allow it first (vault write {path}/config "
                "deletion_allowed=true)"
            ) from error

    async def sign(self, name: str, message: bytes) -> Signature:
        """Sign `message` whole; ECDSA signatures are DER."""
        kind = await self._signing_kind(name)
        key, blob = await self._engine.sign(name, _signing_request(kind, message))
        return Signature(str(key), kind.signature, blob)

    async def verify(self, key: KeyVersion, message: bytes, signature: Signature) -> None:
        """Raises Tampered, ForeignWrap."""
        kind = await self._signing_kind(key.key)
        if signature.algorithm != kind.signature:
            raise ForeignWrap(f"{key} makes signatures of {kind.signature}: this one came from elsewhere")
        prefixed = f"vault:v{key.version}:{b64encode(signature.blob).decode()}"
        await self._engine.verify(key, _signing_request(kind, message) | {"signature": prefixed})

    async def _admitted(self, specification: KeySpecification) -> _Kind:
        kind = _KINDS.get(specification.algorithm)
        if kind is None or kind.use != specification.use:
            known = ", ".join(f"{name} to {kind.use}" for name, kind in _KINDS.items())
            raise InputRefused(f"transit keys here are: {known}")
        if not is_key_name(specification.label):
            raise InputRefused("a transit key's name has letters, digits, _, - and . and begins with a letter or digit")
        if specification.tags or specification.multi_region or specification.administrators or specification.users:
            raise InputRefused(
                "transit keys have no tags, regions or users: who may use one is said by policies on its paths"
            )
        if await self._exists(specification.label):
            raise InputRefused(f"{self._engine.mount}/keys/{specification.label} exists: choose another name")
        return kind

    async def _exists(self, name: str) -> bool:
        answer = await self._engine.ask("GET", f"keys/{name}")
        if answer.status == 404:
            return False
        data(answer, f"reading {self._engine.mount}/keys/{name}")
        return True

    async def _sealed(self, material: bytearray) -> bytes:
        about = f"reading {self._engine.mount}/wrapping_key"
        found = data(await self._engine.ask("GET", "wrapping_key"), about).get("public_key")
        try:
            public = load_pem_public_key(str(found).encode())
        except ValueError:
            raise not_vault(about) from None
        if not isinstance(public, RSAPublicKey):
            raise not_vault(about)
        ephemeral = os.urandom(AES_256_BYTES)
        try:
            carried = public.encrypt(ephemeral, OAEP(MGF1(SHA256()), SHA256(), None))
            return carried + aes_key_wrap_with_padding(ephemeral, material)
        finally:
            wipe(ephemeral)

    async def _signing_kind(self, name: str) -> _Kind:
        if (kind := self._kinds.get(name)) is None:
            key = await self._engine.read_key(name)
            if key.type not in _SIGNING:
                raise InputRefused(f"{self._engine.mount}/{name} is of type {key.type}, which does not sign here")
            kind = self._kinds[name] = _SIGNING[key.type]
        return kind

    def _reference(self, key: TransitKey) -> KeyReference:
        version = KeyVersion(self._engine.mount, key.name, key.latest)
        return KeyReference(str(version), _ALGORITHMS.get(key.type, key.type), key.created_at)


def _signing_request(kind: _Kind, message: bytes) -> dict[str, str]:
    if len(message) > MAX_SIGNED_BYTES:
        raise InputRefused(f"at most {MAX_SIGNED_BYTES} bytes are signed: sign a digest of longer data")
    request = {"input": b64encode(message).decode()}
    if kind.type != "ed25519":
        request |= {"hash_algorithm": kind.hash_algorithm, "marshaling_algorithm": "asn1"}
    return request
