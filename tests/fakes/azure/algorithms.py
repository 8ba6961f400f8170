"""The service's algorithms on a key's material (about-keys-details; RFC 7518 names), done by `cryptography`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
)

from tests.fakes.azure.refusals import Refused, bad_parameter

Material = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | bytes
Json = dict[str, Any]

CURVES: Final[dict[str, ec.EllipticCurve]] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512(),
}  # fmt: skip
OAEP: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {"RSA-OAEP": hashes.SHA1, "RSA-OAEP-256": hashes.SHA256}
GCM_BYTES: Final = {"A128GCM": 16, "A192GCM": 24, "A256GCM": 32}
KW_BYTES: Final = {"A128KW": 16, "A192KW": 24, "A256KW": 32}
NONCE_BYTES: Final = 12
DIFFERENT_RSA_KEYS: Final = 4
_MADE: dict[int, list[rsa.RSAPrivateKey]] = {}
TAG_BYTES: Final = 16


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64(value: object) -> bytes:
    if not isinstance(value, str):
        raise bad_parameter("A value is missing.")
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError as error:
        raise bad_parameter("The value is not valid base64url.") from error


def make(kty: str, parameters: Json) -> Material:
    """A new key of a type, in software or HSM."""
    match kty.removesuffix("-HSM"):
        case "RSA":
            return _rsa(_size(parameters, (2048, 3072, 4096), 2048))
        case "EC":
            if (curve := CURVES.get(parameters.get("crv", "P-256"))) is None:
                raise bad_parameter("Unknown curve.")
            return ec.generate_private_key(curve)
        case "oct":
            return os.urandom(_size(parameters, (128, 192, 256), 256) // 8)
    raise bad_parameter(f"kty {kty} is not supported.")


def _rsa(size: int) -> rsa.RSAPrivateKey:
    """Making one takes a tenth of a second and more: after some, the first comes again."""
    made = _MADE.setdefault(size, [])
    if len(made) < DIFFERENT_RSA_KEYS:
        made.append(rsa.generate_private_key(65537, size))
    else:
        made.append(made.pop(0))
    return made[-1]


def _size(parameters: Json, allowed: tuple[int, ...], default: int) -> int:
    size = parameters.get("key_size", default)
    if size not in allowed:
        raise bad_parameter("Invalid key_size.")
    return int(size)


def public(material: Material) -> Json:
    """The public members of a key's JWK (RFC 7518, 6)."""
    if isinstance(material, bytes):
        return {}  # a symmetric key has none
    if isinstance(material, rsa.RSAPrivateKey):
        numbers = material.public_key().public_numbers()
        return {"n": b64(numbers.n.to_bytes(material.key_size // 8, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
    point = material.public_key().public_numbers()
    size = (material.curve.key_size + 7) // 8
    curve = next(name for name, curve in CURVES.items() if curve.name == material.curve.name)
    return {"crv": curve, "x": b64(point.x.to_bytes(size, "big")), "y": b64(point.y.to_bytes(size, "big"))}


def encrypt(material: Material, body: Json, wrapping: bool) -> Json:
    """encrypt and wrapKey: the members of the answer beside `kid`."""
    algorithm, value = body.get("alg"), unb64(body.get("value"))
    if isinstance(material, rsa.RSAPrivateKey) and algorithm in OAEP:
        try:
            return {"value": b64(material.public_key().encrypt(value, _oaep(str(algorithm))))}
        except ValueError as error:
            raise bad_parameter("The value is too long.") from error
    if isinstance(material, bytes):
        if wrapping and KW_BYTES.get(str(algorithm)) == len(material):
            if len(value) < 16 or len(value) % 8:
                raise bad_parameter("A key to wrap is a multiple of 8 bytes.")
            return {"value": b64(aes_key_wrap(material, value))}
        if not wrapping and GCM_BYTES.get(str(algorithm)) == len(material):
            nonce, aad = os.urandom(NONCE_BYTES), body.get("aad")
            sealed = AESGCM(material).encrypt(nonce, value, unb64(aad) if aad else None)
            parts = {"value": sealed[:-TAG_BYTES], "iv": nonce, "tag": sealed[-TAG_BYTES:]}
            return {name: b64(part) for name, part in parts.items()} | ({"aad": aad} if aad else {})
    raise _no_such(algorithm)


def decrypt(material: Material, body: Json, wrapping: bool) -> Json:
    """decrypt and unwrapKey."""
    algorithm, value = body.get("alg"), unb64(body.get("value"))
    try:
        if isinstance(material, rsa.RSAPrivateKey) and algorithm in OAEP:
            return {"value": b64(material.decrypt(value, _oaep(str(algorithm))))}
        if isinstance(material, bytes):
            if wrapping and KW_BYTES.get(str(algorithm)) == len(material):
                return {"value": b64(aes_key_unwrap(material, value))}
            if not wrapping and GCM_BYTES.get(str(algorithm)) == len(material):
                aad = unb64(body["aad"]) if body.get("aad") else None
                tag = unb64(body.get("tag"))
                if len(tag) != TAG_BYTES:
                    raise bad_parameter("Invalid tag.")
                return {"value": b64(AESGCM(material).decrypt(unb64(body.get("iv")), value + tag, aad))}
    except (ValueError, InvalidTag, InvalidUnwrap) as error:
        raise bad_parameter() from error
    raise _no_such(algorithm)


def sign(material: Material, body: Json) -> Json:
    """Sign a digest."""
    algorithm, digest = str(body.get("alg")), unb64(body.get("value"))
    chosen = _digest(algorithm, digest)
    if isinstance(material, ec.EllipticCurvePrivateKey) and algorithm == _es(material):
        size = (material.curve.key_size + 7) // 8
        r, s = utils.decode_dss_signature(material.sign(digest, ec.ECDSA(utils.Prehashed(chosen))))
        return {"value": b64(r.to_bytes(size, "big") + s.to_bytes(size, "big"))}
    if isinstance(material, rsa.RSAPrivateKey) and algorithm.startswith(("PS", "RS")):
        return {"value": b64(material.sign(digest, _padding(algorithm, chosen), utils.Prehashed(chosen)))}
    raise _no_such(algorithm)


def verify(material: Material, body: Json) -> Json:
    """Verify a signature of a digest: `value` is the verdict."""
    algorithm, digest, signature = str(body.get("alg")), unb64(body.get("digest")), unb64(body.get("value"))
    chosen = _digest(algorithm, digest)
    try:
        if isinstance(material, ec.EllipticCurvePrivateKey) and algorithm == _es(material):
            half = len(signature) // 2
            der = utils.encode_dss_signature(*(int.from_bytes(n, "big") for n in (signature[:half], signature[half:])))
            material.public_key().verify(der, digest, ec.ECDSA(utils.Prehashed(chosen)))
            return {"value": True}
        if isinstance(material, rsa.RSAPrivateKey) and algorithm.startswith(("PS", "RS")):
            material.public_key().verify(signature, digest, _padding(algorithm, chosen), utils.Prehashed(chosen))
            return {"value": True}
    except InvalidSignature:
        return {"value": False}
    raise _no_such(algorithm)


def brought(jwk: Json, exchange: Callable[[str], rsa.RSAPrivateKey]) -> Material:
    """The key in a BYOK transfer blob (byok-specification): OAEP with SHA-1 around an AES key, AES-KWP around it."""
    blob = json.loads(unb64(jwk.get("key_hsm")))
    header, sealed = blob["header"], unb64(blob["ciphertext"])
    if (blob["schema_version"], header["alg"], header["enc"]) != ("1.0.0", "dir", "CKM_RSA_AES_KEY_WRAP"):
        raise bad_parameter("Unknown transfer blob.")
    exchanging = exchange(header["kid"])
    size = exchanging.key_size // 8
    try:
        wrapping = exchanging.decrypt(sealed[:size], _oaep("RSA-OAEP"))
        plain = aes_key_unwrap_with_padding(wrapping, sealed[size:])
        if jwk["kty"].startswith("oct"):
            return plain
        key = serialization.load_der_private_key(plain, None)
    except (ValueError, InvalidUnwrap) as error:
        raise bad_parameter("The transfer blob cannot be opened.") from error
    wanted = rsa.RSAPrivateKey if jwk["kty"].startswith("RSA") else ec.EllipticCurvePrivateKey
    if not isinstance(key, wanted):
        raise bad_parameter("kty does not fit.")
    return key


def _oaep(algorithm: str) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(OAEP[algorithm]()), OAEP[algorithm](), None)


def _padding(algorithm: str, chosen: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    return padding.PSS(padding.MGF1(chosen), chosen.digest_size) if algorithm.startswith("PS") else padding.PKCS1v15()


def _es(material: ec.EllipticCurvePrivateKey) -> str:
    return {256: "ES256", 384: "ES384", 521: "ES512"}[material.curve.key_size]


def _digest(algorithm: str, digest: bytes) -> hashes.HashAlgorithm:
    chosen = HASHES.get(algorithm[2:])
    if chosen is None or algorithm[:2] not in ("ES", "PS", "RS") or len(digest) != chosen.digest_size:
        raise bad_parameter("Invalid algorithm or digest.")
    return chosen


def _no_such(algorithm: object) -> Refused:
    return bad_parameter(f"Key and algorithm do not fit: {algorithm}")
