"""Signatures by EC keys of a token: ECDSA over SHA-2, the hash made here, the signature in DER (X9.62)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256, sha384
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from pkcs11 import Attribute, KeyType, ObjectClass, Session
from pkcs11 import Mechanism as Ckm
from pkcs11.util.ec import encode_named_curve_parameters

from providers.capabilities import Signature
from providers.errors import InputRefused, Tampered
from providers.pkcs11.keys import find_key
from providers.pkcs11.mechanisms import permitted

_FORGED: Final = "the signature does not fit the data and the key: one of the three was changed"


class _Scheme(NamedTuple):
    name: str
    curve: str
    digest: Callable[[bytes], Any]
    scalar_bytes: int


_SCHEMES: Final = (
    _Scheme("ECDSA-P256-SHA256", "secp256r1", sha256, 32),
    _Scheme("ECDSA-P384-SHA384", "secp384r1", sha384, 48),
)


def sign(session: Session, name: str, data: bytes) -> Signature:
    """Sign with the private key of that name. Raises NotFound, KeyDisabled, InputRefused."""
    key = find_key(session, name, KeyType.EC, ObjectClass.PRIVATE_KEY)
    scheme = _scheme(key)
    raw = permitted(key, "sign")(scheme.digest(data).digest(), mechanism=Ckm.ECDSA)
    r, s = raw[: scheme.scalar_bytes], raw[scheme.scalar_bytes :]
    return Signature(name, scheme.name, encode_dss_signature(int.from_bytes(r), int.from_bytes(s)))


def verify(session: Session, data: bytes, signature: Signature) -> None:
    """Return when the token finds the signature good. Raises Tampered, NotFound, InputRefused."""
    key = find_key(session, signature.key, KeyType.EC, ObjectClass.PUBLIC_KEY)
    scheme = _scheme(key)
    if signature.algorithm != scheme.name:
        raise Tampered(_FORGED)
    try:
        r, s = decode_dss_signature(signature.blob)
        raw = r.to_bytes(scheme.scalar_bytes) + s.to_bytes(scheme.scalar_bytes)
    except (ValueError, OverflowError) as error:
        raise Tampered(_FORGED) from error
    if not permitted(key, "verify")(scheme.digest(data).digest(), raw, mechanism=Ckm.ECDSA):
        raise Tampered(_FORGED)


def _scheme(key: Any) -> _Scheme:
    parameters = bytes(key[Attribute.EC_PARAMS])
    for scheme in _SCHEMES:
        if parameters == encode_named_curve_parameters(scheme.curve):
            return scheme
    raise InputRefused("keys on the curves P-256 and P-384 sign here: this one is on another curve")
