"""Signatures: made by the service over a SHA-256 digest, verified here with the public key that it gives."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from providers.capabilities import Signature
from providers.errors import ForeignWrap, InputRefused, Tampered, Unavailable
from providers.gcp import integrity
from providers.gcp.service import CloudKms

ALGORITHM: Final = "EC_SIGN_P256_SHA256"
KEPT_KEYS: Final = 64  # public keys; a version's never changes


class Signing:
    """Signs and verifies with versions of keys whose algorithm is EC_SIGN_P256_SHA256."""

    def __init__(self, service: CloudKms) -> None:
        self._service = service
        self._keys: OrderedDict[str, ec.EllipticCurvePublicKey] = OrderedDict()

    async def sign(self, data: bytes, version: str) -> Signature:
        """An ECDSA signature, ASN.1 DER. Raises NotFound, KeyDisabled."""
        digest = hashlib.sha256(data).digest()
        request = {"name": version, "digest": {"sha256": digest}, "digest_crc32c": integrity.checksum(digest)}
        answer = await self._service.call("asymmetric_sign", request, version)
        integrity.require_verified(answer.verified_digest_crc32c, "digest")
        integrity.require_same(answer.signature, answer.signature_crc32c, "signature")
        if answer.name != version:
            raise Unavailable("Cloud KMS signed with another key than it was told: see what hsm.connection.endpoint is")
        return Signature(version, ALGORITHM, answer.signature)

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Return when `signature` is good. Raises Tampered, ForeignWrap, NotFound."""
        if signature.algorithm != ALGORITHM:
            raise ForeignWrap(f"GCP_KMS signs with {ALGORITHM} alone: this came from elsewhere")
        key = await self._public_key(signature.key)
        try:
            key.verify(signature.blob, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Tampered("the signature does not fit: the data was changed, or another key signed it") from None

    async def _public_key(self, version: str) -> ec.EllipticCurvePublicKey:
        if (known := self._keys.get(version)) is not None:
            self._keys.move_to_end(version)
            return known
        answer = await self._service.call("get_public_key", {"name": version}, version)
        pem = answer.pem.encode()
        integrity.require_same(pem, answer.pem_crc32c, "public key")
        key = serialization.load_pem_public_key(pem)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InputRefused(f"{version} is no key that signs with {ALGORITHM}")
        self._keys[version] = key
        if len(self._keys) > KEPT_KEYS:
            self._keys.popitem(last=False)
        return key
