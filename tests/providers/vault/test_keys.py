"""Keys made, imported, deleted and signed with; `cryptography` is the judge."""

from __future__ import annotations

import os
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm

from providers import (
    Ciphertext,
    Denied,
    ForeignWrap,
    InputRefused,
    KeyDisabled,
    KeySpecification,
    NotFound,
    Signature,
    Tampered,
    WrappedKey,
)
from providers.vault.keys import MAX_SIGNED_BYTES
from tests.providers.conformance import CONTEXT, new_key
from tests.providers.vault.rig import VaultRig

MESSAGE = b"what was agreed"


def for_wrapping(rig: VaultRig, **settings: Any) -> KeySpecification:
    return KeySpecification(f"{rig.key}-wrapping", "wrap", "AES-256", **settings)


def for_signing(rig: VaultRig, algorithm: str = "EC-P256") -> KeySpecification:
    return KeySpecification(f"{rig.key}-{algorithm}", "sign", algorithm)


def described(rig: VaultRig, name: str) -> dict[str, Any]:
    """What the operator sees."""
    return rig.bao.operate("GET", f"transit/keys/{name}")["data"]


def pkcs8(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytearray:
    return bytearray(
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def test_a_wrap_is_aes_gcm_bound_to_the_canonical_context(rig: VaultRig) -> None:
    """The key of this one test is exportable, so that an independent implementation can open the wrap."""
    rig.bao.new_key(f"{rig.key}-x", exportable=True)
    provider = rig.make_with({"kek": f"{rig.key}-x"})
    key = new_key()
    wrapped = await provider.wrap_key(key, CONTEXT)
    exported = rig.bao.operate("GET", f"transit/export/encryption-key/{rig.key}-x")["data"]["keys"]["1"]
    assert AESGCM(b64decode(exported)).decrypt(wrapped.blob[:12], wrapped.blob[12:], CONTEXT.authenticated()) == key
    await provider.close()


async def test_a_generated_key_stays_inside(rig: VaultRig) -> None:
    provider = rig.make()
    made = await provider.generate_key(for_wrapping(rig))
    assert (made.key, made.algorithm) == (f"transit/{rig.key}-wrapping:v1", "AES-256")
    assert made.created_at is not None
    assert abs(made.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    found = described(rig, f"{rig.key}-wrapping")
    assert (found["exportable"], found["allow_plaintext_backup"], found["type"]) == (False, False, "aes256-gcm96")
    for name in (made.key, f"{rig.key}-wrapping"):
        ciphertext = await provider.encrypt(b"value", b"context", key=name)
        assert ciphertext.kek == made.key
        assert await provider.decrypt(ciphertext, b"context") == b"value"
    await provider.close()


async def test_a_value_is_never_taken_for_a_wrap_nor_a_wrap_for_a_value(rig: VaultRig) -> None:
    provider, chosen = rig.make(), bytes(32)
    value = await provider.encrypt(chosen, CONTEXT.authenticated())
    with pytest.raises(Tampered):
        await provider.unwrap_key(WrappedKey(provider.name, value.kek, value.mechanism, value.blob), CONTEXT)
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    with pytest.raises(Tampered):
        await provider.decrypt(Ciphertext(wrapped.kek, wrapped.mechanism, wrapped.blob), CONTEXT.authenticated())
    await provider.close()


async def test_what_a_transit_key_cannot_have_is_refused(rig: VaultRig) -> None:
    provider = rig.make()
    await provider.generate_key(for_wrapping(rig))
    for wrong in (
        for_wrapping(rig),  # exists: the server would say nothing and keep the old one
        KeySpecification(f"{rig.key}-a", "sign", "AES-256"),
        KeySpecification(f"{rig.key}-a", "wrap", "EC-P256"),
        KeySpecification(f"{rig.key}-a", "wrap", "ROT13"),
        KeySpecification("../keys/x", "wrap", "AES-256"),
        KeySpecification(f"{rig.key}-a", "wrap", "AES-256", tags={"team": "a"}),
        KeySpecification(f"{rig.key}-a", "wrap", "AES-256", multi_region=True),
        KeySpecification(f"{rig.key}-a", "wrap", "AES-256", users=("somebody",)),
        KeySpecification(f"{rig.key}-a", "wrap", "AES-256", administrators=("somebody",)),
    ):
        with pytest.raises(InputRefused):
            await provider.generate_key(wrong)
    await provider.close()


async def test_an_imported_key_is_the_one_that_was_given(rig: VaultRig) -> None:
    provider = rig.make()
    secret = os.urandom(32)
    material = bytearray(secret)
    imported = await provider.import_key(for_wrapping(rig), material)
    assert material == bytes(32), "wiped"
    found = described(rig, f"{rig.key}-wrapping")
    assert (found["imported_key"], found["exportable"]) == (True, False)
    ciphertext = await provider.encrypt(b"value", b"context", key=imported.key)
    assert AESGCM(secret).decrypt(ciphertext.blob[:12], ciphertext.blob[12:], b"KSV\x01context") == b"value"
    await provider.close()


async def test_material_is_wiped_when_it_is_refused(rig: VaultRig) -> None:
    provider = rig.make()
    for length in (0, 16, 31, 33):
        material = bytearray(b"\1" * length)
        with pytest.raises(InputRefused):
            await provider.import_key(for_wrapping(rig), material)
        assert material == bytes(length)
    await provider.close()


@pytest.mark.parametrize(
    ("curve", "algorithm", "digest"), [(ec.SECP256R1(), "EC-P256", SHA256()), (ec.SECP384R1(), "EC-P384", SHA384())]
)
async def test_signatures_verify_elsewhere(
    rig: VaultRig, curve: ec.EllipticCurve, algorithm: str, digest: HashAlgorithm
) -> None:
    provider, private = rig.make(), ec.generate_private_key(curve)
    imported = await provider.import_key(for_signing(rig, algorithm), pkcs8(private))
    signature = await provider.sign(MESSAGE, key=imported.key)
    private.public_key().verify(signature.blob, MESSAGE, ec.ECDSA(digest))
    await provider.verify(MESSAGE, signature)
    foreign = Signature(imported.key, signature.algorithm, private.sign(MESSAGE, ec.ECDSA(digest)))
    await provider.verify(MESSAGE, foreign)
    await provider.close()


async def test_ed25519_signatures_verify_elsewhere(rig: VaultRig) -> None:
    provider, private = rig.make(), ed25519.Ed25519PrivateKey.generate()
    imported = await provider.import_key(for_signing(rig, "ED25519"), pkcs8(private))
    signature = await provider.sign(MESSAGE, key=imported.key)
    assert signature.algorithm == "ED25519"
    private.public_key().verify(signature.blob, MESSAGE)
    with pytest.raises(InvalidSignature):
        private.public_key().verify(signature.blob, MESSAGE + b"!")
    await provider.verify(MESSAGE, signature)
    await provider.close()


@pytest.mark.parametrize("algorithm", ["EC-P256", "ED25519"])
async def test_a_wrong_signature_is_refused(rig: VaultRig, algorithm: str) -> None:
    provider = rig.make()
    made = await provider.generate_key(for_signing(rig, algorithm))
    good = await provider.sign(MESSAGE, key=made.key)
    await provider.verify(MESSAGE, good)
    with pytest.raises(Tampered):
        await provider.verify(MESSAGE + b"!", good)
    for offset in range(0, len(good.blob), 7):
        blob = bytearray(good.blob)
        blob[offset] ^= 1
        with pytest.raises(Tampered):
            await provider.verify(MESSAGE, Signature(good.key, good.algorithm, bytes(blob)))
    for other in (b"", b"x", good.blob[:-1], good.blob + b"\0"):
        with pytest.raises(Tampered):
            await provider.verify(MESSAGE, Signature(good.key, good.algorithm, other))
    with pytest.raises(ForeignWrap):
        await provider.verify(MESSAGE, Signature(good.key, "RSA-PSS", good.blob))
    with pytest.raises(NotFound):
        await provider.verify(MESSAGE, Signature(good.key.replace(":v1", ":v9"), good.algorithm, good.blob))
    for name in ("no-name", f"transit/{rig.key}-none:v1", "elsewhere/key:v1"):
        with pytest.raises((NotFound, Denied)):
            await provider.verify(MESSAGE, Signature(name, good.algorithm, good.blob))
    await provider.close()


async def test_what_cannot_be_signed(rig: VaultRig) -> None:
    provider = rig.make()
    with pytest.raises(NotFound):
        await provider.sign(MESSAGE, key=f"{rig.key}-none")
    with pytest.raises(InputRefused, match="does not sign"):
        await provider.sign(MESSAGE, key=rig.key)
    made = await provider.generate_key(for_signing(rig))
    assert await provider.sign(b"", key=made.key)
    assert await provider.sign(bytes(MAX_SIGNED_BYTES), key=made.key)
    with pytest.raises(InputRefused):
        await provider.sign(bytes(MAX_SIGNED_BYTES + 1), key=made.key)
    await provider.close()


async def test_a_deleted_key_is_refused_until_it_is_restored(rig: VaultRig) -> None:
    provider = rig.make()
    made = await provider.generate_key(for_wrapping(rig))
    ciphertext = await provider.encrypt(b"value", key=made.key)
    await provider.delete_key(made.key)
    with pytest.raises(KeyDisabled):
        await provider.decrypt(ciphertext)
    with pytest.raises(KeyDisabled):
        await provider.encrypt(b"value", key=made.key)
    rig.bao.operate("POST", f"transit/keys/{rig.key}-wrapping/soft-delete-restore")
    assert await provider.decrypt(ciphertext) == b"value"
    with pytest.raises(NotFound):
        await provider.delete_key(f"{rig.key}-none")
    await provider.close()


async def test_the_key_of_the_data_keys_is_not_deleted(rig: VaultRig) -> None:
    provider = rig.make_with({"retiredKeks": [f"{rig.key}-old"]})
    await provider.initialize()
    for name in (rig.key, provider.describe().kek, f"{rig.key}-old"):
        assert name is not None
        with pytest.raises(InputRefused, match="their data is lost"):
            await provider.delete_key(name)
    assert not described(rig, rig.key)["soft_deleted"]
    await provider.close()


async def test_versions_below_the_oldest_allowed_are_disabled(rig: VaultRig) -> None:
    provider = rig.make()
    old = await provider.wrap_key(new_key(), CONTEXT)
    rig.rotate()
    rig.configure(min_decryption_version=2)
    with pytest.raises(KeyDisabled, match="min_decryption_version"):
        await provider.unwrap_key(old, CONTEXT)
    rig.configure(min_decryption_version=1)
    assert await provider.unwrap_key(old, CONTEXT)
    await provider.close()


async def test_a_running_provider_sees_a_rotation(rig: VaultRig) -> None:
    provider = rig.make()
    old = await provider.wrap_key(new_key(), CONTEXT)
    rig.rotate()
    new = await provider.wrap_key(new_key(), CONTEXT)
    assert (old.kek, new.kek) == (f"transit/{rig.key}:v1", f"transit/{rig.key}:v2")
    assert provider.describe().kek == new.kek
    await provider.close()


async def test_a_key_deleted_for_good_is_not_found_and_not_made_again(rig: VaultRig) -> None:
    provider = rig.make()
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    rig.configure(deletion_allowed=True)
    rig.bao.operate("DELETE", f"transit/keys/{rig.key}")
    with pytest.raises(NotFound, match=rig.key):
        await provider.wrap_key(new_key(), CONTEXT)
    with pytest.raises(NotFound):
        await provider.unwrap_key(wrapped, CONTEXT)
    rig.bao.new_key(rig.key)
    with pytest.raises(Tampered):
        await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()
