"""Signing and verifying data with keys of the vault."""

from __future__ import annotations

from hashlib import sha256, sha384, sha512
from typing import Final

from providers.azure.bundles import Bundle
from providers.azure.key_vault import KeyVault, base64url, binary
from providers.azure.names import KeyName
from providers.capabilities import Signature
from providers.errors import ForeignWrap, InputRefused, Tampered

PS256: Final = "PS256"  # of RSA keys
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_HASHES: Final = {"256": sha256, "384": sha384, "512": sha512}
ALGORITHMS: Final = (PS256, *_CURVES.values())
_NOT_GOOD: Final = "the signature is not good: the data was changed, or another key signed it"


async def sign(vault: KeyVault, bundle: Bundle, data: bytes) -> Signature:
    """Sign with the algorithm of the key's type (RFC 7518). Raises InputRefused for keys that do not sign."""
    algorithm = PS256 if bundle.kty.startswith("RSA") else _CURVES.get(bundle.curve or "")
    if algorithm is None:
        raise InputRefused(f"{bundle.name} is a key of type {bundle.kty}, which does not sign")
    answer = await vault.operate(bundle.name, "sign", algorithm, _digest(algorithm, data))
    return Signature(str(bundle.name), algorithm, binary(answer, "value"))


async def verify(vault: KeyVault, key: KeyName, data: bytes, signature: Signature) -> None:
    """Return when the service says that the signature is good. Raises Tampered, ForeignWrap."""
    if signature.algorithm not in ALGORITHMS:
        raise ForeignWrap(f"AZURE_KEY_VAULT does not sign with {signature.algorithm!r}")
    members = {
        "alg": signature.algorithm,
        "digest": base64url(_digest(signature.algorithm, data)).decode(),
        "value": base64url(signature.blob).decode(),
    }
    try:
        answer = await vault.ask("POST", f"{key.path}/verify", "verify", members)
    except InputRefused as error:  # of another length than the key's, or of another algorithm
        raise Tampered(_NOT_GOOD) from error
    if answer.get("value") is not True:
        raise Tampered(_NOT_GOOD)


def _digest(algorithm: str, data: bytes) -> bytes:
    return _HASHES[algorithm[2:]](data).digest()
