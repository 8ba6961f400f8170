"""Making keys, bringing them in, deleting them, and what may be claimed of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from providers.aws.names import addressed, is_key_arn, recorded
from providers.aws.refusals import malformed
from providers.capabilities import ComplianceInfo, KeyReference, KeySpecification, Signature
from providers.errors import Denied, InputRefused, ProviderError, RetryableError, Tampered
from providers.wiping import wipe

if TYPE_CHECKING:
    from providers.aws.client import KmsClient

SIGNING: Final = "ECDSA_SHA_256"

_KINDS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("wrap", "AES-256"): ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
    ("wrap", "SYMMETRIC_DEFAULT"): ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
    ("sign", "EC-P256"): ("ECC_NIST_P256", "SIGN_VERIFY"),
    ("sign", "ECC_NIST_P256"): ("ECC_NIST_P256", "SIGN_VERIFY"),
}
_LABEL: Final = re.compile(r"(?!aws/)[a-zA-Z0-9/_-]{1,200}")
_AES_BYTES: Final = 32

_ADMINISTRATION: Final = (
    "kms:CancelKeyDeletion",
    "kms:DeleteAlias",
    "kms:CreateAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetParametersForImport",
    "kms:ImportKeyMaterial",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
    "kms:UpdatePrimaryRegion",
)
_USE: Final = {
    "ENCRYPT_DECRYPT": ("kms:Decrypt", "kms:DescribeKey", "kms:Encrypt"),
    "SIGN_VERIFY": ("kms:DescribeKey", "kms:GetPublicKey", "kms:Sign", "kms:Verify"),
}
_SESSION: Final = re.compile(r"arn:(?P<partition>[^:]+):sts::(?P<account>[0-9]+):assumed-role/(?P<role>[^/]+)/.+")


async def generate(kms: KmsClient, specification: KeySpecification) -> KeyReference:
    """Make a key that never leaves, its policy naming administrators and users and nobody else."""
    return await _named(kms, specification, await _create(kms, specification, "AWS_KMS"))


async def bring_in(kms: KmsClient, specification: KeySpecification, material: bytearray) -> KeyReference:
    """Make a key of origin EXTERNAL and import `material`, encrypted to a public key that AWS KMS made for this alone.

    https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-conceptual.html
    """
    symmetric = _kind(specification)[0] == "SYMMETRIC_DEFAULT"
    if symmetric and len(material) != _AES_BYTES:
        raise InputRefused(f"a key for {specification.algorithm} has {_AES_BYTES} bytes")
    created = await _create(kms, specification, "EXTERNAL")
    try:
        await _import(kms, created["Arn"], material, symmetric=symmetric)
    except RetryableError as error:
        # tried again as a whole, each attempt would leave one more key behind
        raise ProviderError(
            f"key {created['Arn']} was made, but its material could not be imported: {error}; have it deleted, and try "
            "again"
        ) from error
    return await _named(kms, specification, created)


async def _import(kms: KmsClient, key: str, material: bytearray, *, symmetric: bool) -> None:
    algorithm = "RSAES_OAEP_SHA_256" if symmetric else "RSA_AES_KEY_WRAP_SHA_256"
    parameters = await kms.call(
        "get_parameters_for_import", key, KeyId=key, WrappingAlgorithm=algorithm, WrappingKeySpec="RSA_4096"
    )
    await kms.call(
        "import_key_material",
        key,
        KeyId=key,
        ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=_sealed_to(parameters["PublicKey"], material, symmetric=symmetric),
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
    )


async def schedule_deletion(kms: KmsClient, key: str, window: int, in_use: frozenset[str]) -> None:
    """Have the key deleted after `window` days. Raises InputRefused for one that is `in_use`."""
    facts = await kms.describe(key)  # an alias is not accepted for this
    if facts.kek in in_use:
        raise InputRefused(f"{facts.kek} is configured: data keys under it would be lost; take it out of hsm first")
    await kms.call("schedule_key_deletion", key, KeyId=addressed(facts.kek, kms.region), PendingWindowInDays=window)


async def sign(kms: KmsClient, key: str, digest: bytes) -> Signature:
    """Sign a SHA-256 digest with a P-256 key."""
    answer = await kms.call(
        "sign", key, KeyId=addressed(key, kms.region), Message=digest, MessageType="DIGEST", SigningAlgorithm=SIGNING
    )
    signature, found = answer.get("Signature"), answer.get("KeyId")
    if not isinstance(signature, bytes) or not 8 <= len(signature) <= 72 or not is_key_arn(found):
        raise malformed("Sign", "no signature")
    return Signature(recorded(str(found)), SIGNING, signature)


async def verify(kms: KmsClient, signature: Signature, digest: bytes) -> None:
    """Have a signature verified where its key is."""
    answer = await kms.call(
        "verify",
        signature.key,
        KeyId=addressed(signature.key, kms.region),
        Message=digest,
        MessageType="DIGEST",
        Signature=signature.blob,
        SigningAlgorithm=SIGNING,
    )
    if answer.get("SignatureValid") is not True:
        raise Tampered(f"the signature is not one that {signature.key} made of this data")


async def claims(kms: KmsClient, kek: str) -> ComplianceInfo:
    """What DescribeKey and GetKeyRotationStatus report; the validation is published, not reported."""
    facts = await kms.describe(kek)
    standard = facts.origin in ("AWS_KMS", "EXTERNAL") and not kms.region.startswith("cn-")
    notes = [f"origin {facts.origin}, {facts.spec}, {facts.state}", await _rotation(kms, kek)]
    if facts.multi_region:
        notes.append("multi-Region: the same key material is in every region that it was replicated to")
    if facts.origin == "EXTERNAL":
        notes.append("imported: whoever made the key material may have kept a copy")
    notes.append(
        "the validation level is what AWS publishes of the HSMs of its standard key store; the API does not report one"
        if standard
        else "no validation is claimed: it depends on the key store and the region"
    )
    return ComplianceInfo(
        key_storage=f"AWS KMS, {kms.region}",
        validated_to="FIPS 140-3 level 3" if standard else None,
        extractable=facts.origin == "EXTERNAL",
        mechanisms=("SYMMETRIC_DEFAULT", SIGNING),
        notes=tuple(notes),
    )


async def _rotation(kms: KmsClient, kek: str) -> str:
    try:
        answer = await kms.call("get_key_rotation_status", kek, KeyId=addressed(kek, kms.region))
    except (Denied, InputRefused) as error:
        return f"rotation is not known ({type(error).__name__}): it needs kms:GetKeyRotationStatus"
    if answer.get("KeyRotationEnabled") is not True:
        return "automatic rotation is off"
    return f"rotated every {answer.get('RotationPeriodInDays', 365)} days"


def key_policy(account: str, usage: str, administrators: Sequence[str], users: Sequence[str]) -> dict[str, Any]:
    """Who may manage the key and who may use it: nobody else, the rest of account `account` included."""
    return {
        "Version": "2012-10-17",
        "Id": f"keyside-{account}",
        "Statement": [
            _statement("Administration", administrators, _ADMINISTRATION),
            _statement("Use", users, _USE[usage]),
        ],
    }


def tagged(specification: KeySpecification) -> str:
    """What a key is found by when nobody can say its id."""
    return f"a key with the tag keyside:label={specification.label}"


def principal(arn: str) -> str:
    """Who a policy must name for the caller `arn`: for a role's session, the role (one without a path)."""
    session = _SESSION.fullmatch(arn)
    return arn if session is None else f"arn:{session['partition']}:iam::{session['account']}:role/{session['role']}"


def _statement(sid: str, principals: Sequence[str], actions: Sequence[str]) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": sorted(principals)},
        "Action": list(actions),
        "Resource": "*",
    }


async def _create(kms: KmsClient, specification: KeySpecification, origin: str) -> dict[str, Any]:
    spec, usage = _kind(specification)
    if not _LABEL.fullmatch(specification.label):
        raise InputRefused("a label becomes an alias: 1 to 200 of a-z A-Z 0-9 / _ -, not starting with aws/")
    caller = principal(await kms.identity())
    policy = key_policy(
        caller.split(":")[4], usage, specification.administrators or (caller,), specification.users or (caller,)
    )
    tags = {"keyside:label": specification.label, **specification.tags}
    try:
        answer = await kms.call(
            "create_key",
            specification.label,
            Policy=json.dumps(policy),
            Description=f"Keyside: {specification.label}",
            KeySpec=spec,
            KeyUsage=usage,
            Origin=origin,
            MultiRegion=specification.multi_region,
            Tags=[{"TagKey": name, "TagValue": value} for name, value in tags.items()],
        )
    except RetryableError as error:
        # a second attempt could leave a second key, which costs money and confuses
        raise ProviderError(
            f"whether the key was made is not known ({error}): look for the tag keyside:label={specification.label}"
        ) from None
    created = answer.get("KeyMetadata")
    if not isinstance(created, dict) or not is_key_arn(created.get("Arn")):
        raise ProviderError(
            f"AWS KMS did not say which key it made: look for the tag keyside:label={specification.label}"
        )
    return created


async def _named(kms: KmsClient, specification: KeySpecification, created: Mapping[str, Any]) -> KeyReference:
    key = created["Arn"]
    try:
        await kms.call("create_alias", key, AliasName=f"alias/{specification.label}", TargetKeyId=key)
    except ProviderError as error:
        raise ProviderError(f"{key} was made, but has no alias ({error}): give it one, or delete it") from None
    return KeyReference(recorded(key), _kind(specification)[0], created.get("CreationDate"))


def _kind(specification: KeySpecification) -> tuple[str, str]:
    kind = _KINDS.get((specification.use, specification.algorithm))
    if kind is None:
        known = ", ".join(f"{algorithm} to {use}" for use, algorithm in _KINDS)
        raise InputRefused(
            f"AWS_KMS makes keys for {known}: {specification.algorithm!r} to {specification.use} is none"
        )
    return kind


def _sealed_to(public: object, material: bytearray, *, symmetric: bool) -> bytes:
    key = load_der_public_key(public) if isinstance(public, bytes) else None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 3072:
        raise malformed("GetParametersForImport", "no RSA key of a fit size")
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    if symmetric:
        return _encrypted(key, material, oaep)
    ephemeral = bytearray(os.urandom(_AES_BYTES))
    try:
        return _encrypted(key, ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, material)
    finally:
        wipe(ephemeral)


def _encrypted(key: rsa.RSAPublicKey, secret: bytearray, oaep: padding.OAEP) -> bytes:
    copy = bytes(secret)
    try:
        return key.encrypt(copy, oaep)
    finally:
        wipe(copy)
