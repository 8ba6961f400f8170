"""Keys made, brought in, destroyed; signatures; what is claimed, logged and found healthy."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from providers import (
    Denied,
    ForeignWrap,
    HealthStatus,
    InputRefused,
    KeyDisabled,
    KeySpecification,
    NotFound,
    Signature,
    Tampered,
    Unavailable,
    WrapContext,
)
from providers.gcp import GcpProvider
from providers.gcp.lifecycle import wrap_material
from tests.providers.gcp.rig import GcpRig

CONTEXT = WrapContext(7, "users", "42", "field")
WRAP = "cloudkms.cryptoKeyVersions.useToEncrypt"
UNWRAP = "cloudkms.cryptoKeyVersions.useToDecrypt"


def label() -> str:
    return f"made-{os.urandom(6).hex()}"


@pytest_asyncio.fixture
async def provider(rig: GcpRig) -> Any:
    provider = rig.make(requestTimeout=20000)
    await provider.initialize()
    yield provider
    await provider.close()


async def test_a_new_key_is_in_an_hsm_rotates_and_wraps(rig: GcpRig, provider: GcpProvider) -> None:
    made = await provider.generate_key(KeySpecification(label(), "wrap", "AES-256", tags={"team": "fields"}))
    assert made.key.endswith("/cryptoKeyVersions/1")
    name = made.key.partition("/cryptoKeyVersions/")[0]
    found = rig.google.order("key", key=name)
    assert found["protection"] == "HSM"
    assert found["labels"] == {"team": "fields"}
    assert found["rotation_seconds"] == 90 * 86400
    assert found["destroy_seconds"] == 30 * 86400
    other = rig.made_of(rig.hsm() | {"kek": made.key})
    key = os.urandom(32)
    assert await other.unwrap_key(await other.wrap_key(key, CONTEXT), CONTEXT) == key
    await other.close()


async def test_people_get_their_role_on_the_new_key_alone(rig: GcpRig, provider: GcpProvider) -> None:
    specification = KeySpecification(
        label(), "wrap", "AES-256", administrators=("group:keys@example.com",), users=("serviceAccount:x@example.com",)
    )
    made = await provider.generate_key(specification)
    name = made.key.partition("/cryptoKeyVersions/")[0]
    policy = await provider._open_service().call("get_iam_policy", {"resource": name}, name)
    assert {binding.role: list(binding.members) for binding in policy.bindings} == {
        "roles/cloudkms.admin": ["group:keys@example.com"],
        "roles/cloudkms.cryptoKeyEncrypterDecrypter": ["serviceAccount:x@example.com"],
    }


@pytest.mark.parametrize(
    "specification",
    [
        KeySpecification("a b", "wrap", "AES-256"),
        KeySpecification("x" * 64, "wrap", "AES-256"),
        KeySpecification("good", "wrap", "AES-128"),
        KeySpecification("good", "sign", "AES-256"),
        KeySpecification("good", "wrap", "AES-256", multi_region=True),
    ],
)
async def test_what_cannot_be_made_is_refused_before_asking(
    rig: GcpRig, provider: GcpProvider, specification: KeySpecification
) -> None:
    with pytest.raises(InputRefused):
        await provider.generate_key(specification)
    assert "CreateCryptoKey" not in rig.google.order("seen")["calls"]


async def test_a_name_is_given_once(provider: GcpProvider) -> None:
    specification = KeySpecification(label(), "wrap", "AES-256")
    await provider.generate_key(specification)
    with pytest.raises(InputRefused, match="there already"):
        await provider.generate_key(specification)


async def test_a_key_brought_in_wraps_and_its_material_is_wiped(rig: GcpRig, provider: GcpProvider) -> None:
    material = bytearray(os.urandom(32))
    made = await provider.import_key(KeySpecification(label(), "wrap", "AES-256"), material)
    assert material == bytes(32)
    name = made.key.partition("/cryptoKeyVersions/")[0]
    assert rig.google.order("key", key=name)["import_only"]
    other = rig.made_of(rig.hsm() | {"kek": name})
    key = os.urandom(32)
    assert await other.unwrap_key(await other.wrap_key(key, CONTEXT), CONTEXT) == key
    info = await other.get_compliance_info()
    assert any("imported" in note for note in info.notes)
    await other.close()


async def test_a_signing_key_brought_in_is_the_one_that_signs(provider: GcpProvider) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = await provider.import_key(KeySpecification(label(), "sign", "EC-P256"), bytearray(der))
    signature = await provider.sign(b"data", key=made.key)
    private.public_key().verify(signature.blob, b"data", ec.ECDSA(hashes.SHA256()))


async def test_material_that_does_not_fit_is_refused_and_wiped(provider: GcpProvider) -> None:
    for use, algorithm, material in (
        ("wrap", "AES-256", bytearray(b"x" * 31)),
        ("sign", "EC-P256", bytearray(b"no PKCS #8 key")),
    ):
        with pytest.raises(InputRefused):
            await provider.import_key(KeySpecification(label(), use, algorithm), material)  # type: ignore[arg-type]  # a Literal in a tuple
        assert not any(material)


def test_material_is_wrapped_as_the_service_documents() -> None:
    private = rsa.generate_private_key(65537, 3072)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    material = os.urandom(32)
    wrapped = wrap_material(pem, bytearray(material))
    assert len(wrapped) == 384 + 40
    kek = private.decrypt(wrapped[:384], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    assert keywrap.aes_key_unwrap_with_padding(kek, wrapped[384:]) == material
    short = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(Unavailable):
        wrap_material(
            short.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            bytearray(material),
        )


async def test_deleting_schedules_one_version_or_all(rig: GcpRig, provider: GcpProvider) -> None:
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    for _ in range(3):
        rig.rotate()
    with pytest.raises(InputRefused, match="is configured"):
        await provider.delete_key(wrapped.kek)
    await provider.wrap_key(os.urandom(32), CONTEXT)  # under the newest version, which is now the one in use
    await provider.delete_key(wrapped.kek)
    assert rig.google.order("key", key=rig.key)["states"] == ["DESTROY_SCHEDULED", *["ENABLED"] * 3]
    with pytest.raises(KeyDisabled, match="scheduled"):
        await provider.unwrap_key(wrapped, CONTEXT)
    for name in (rig.key, rig.key.rpartition("/")[2]):
        with pytest.raises(InputRefused, match="is configured"):
            await provider.delete_key(name)
    made = await provider.generate_key(KeySpecification("short-lived", "wrap", "AES-256"))
    name = made.key.partition("/cryptoKeyVersions/")[0]
    await provider.delete_key(name)
    assert set(rig.google.order("key", key=name)["states"]) == {"DESTROY_SCHEDULED"}
    with pytest.raises(NotFound, match="no version left"):
        await provider.delete_key("short-lived")
    with pytest.raises(NotFound):
        await provider.delete_key("nobody-made-it")


async def test_signatures_are_verified_here(rig: GcpRig, provider: GcpProvider) -> None:
    made = await provider.generate_key(KeySpecification(label(), "sign", "EC-P256"))
    signature = await provider.sign(b"data", key=made.key)
    for _ in range(3):
        await provider.verify(b"data", signature)
    assert rig.google.order("seen")["calls"]["GetPublicKey"] == 1
    for data, altered in (
        (b"Data", signature),
        (b"data", Signature(signature.key, signature.algorithm, signature.blob[:-1])),
        (b"data", Signature(signature.key, signature.algorithm, b"")),
    ):
        with pytest.raises(Tampered):
            await provider.verify(data, altered)
    with pytest.raises(ForeignWrap):
        await provider.verify(b"data", Signature(signature.key, "RSA", signature.blob))
    with pytest.raises(InputRefused):
        await provider.sign(b"data", key=rig.key)


@pytest.mark.parametrize("kind", ["crc", "no crc", "flip", "unverified"])
async def test_a_damaged_signature_is_made_again(rig: GcpRig, provider: GcpProvider, kind: str) -> None:
    made = await provider.generate_key(KeySpecification(label(), "sign", "EC-P256"))
    rig.google.order("fault", method="AsymmetricSign", kind=kind)
    await provider.verify(b"data", await provider.sign(b"data", key=made.key))
    assert rig.google.order("seen")["calls"]["AsymmetricSign"] == 2


async def test_a_damaged_public_key_verifies_nothing(rig: GcpRig, provider: GcpProvider) -> None:
    made = await provider.generate_key(KeySpecification(label(), "sign", "EC-P256"))
    signature = await provider.sign(b"data", key=made.key)
    rig.google.order("fault", method="GetPublicKey", kind="crc")
    await provider.verify(b"data", signature)
    assert rig.google.order("seen")["calls"]["GetPublicKey"] == 2


async def test_the_claims_are_the_services(rig: GcpRig, provider: GcpProvider) -> None:
    info = await provider.get_compliance_info()
    assert info.validated_to == "FIPS 140-2 level 3"
    assert not info.extractable
    notes = " ".join(info.notes)
    for said in ("protection level HSM", "GOOGLE_SYMMETRIC_ENCRYPTION", "CAVIUM", "generated", "does not rotate"):
        assert said in notes
    soft = rig.google.order("new_key", name=label(), protection="SOFTWARE")["name"]
    other = rig.made_of(rig.hsm() | {"kek": soft})
    info = await other.get_compliance_info()
    assert info.validated_to == "FIPS 140-2 level 1"
    assert "no attestation" in " ".join(info.notes)
    await other.close()


async def test_claims_need_a_permission_that_serving_does_not(rig: GcpRig, provider: GcpProvider) -> None:
    rig.google.order("restrict", permissions=[WRAP, UNWRAP])
    with pytest.raises(Denied):
        await provider.get_compliance_info()


async def test_serving_and_health_need_two_permissions(rig: GcpRig) -> None:
    rig.google.order("restrict", permissions=[WRAP, UNWRAP])
    provider = rig.make()
    key = os.urandom(32)
    assert await provider.unwrap_key(await provider.wrap_key(key, CONTEXT), CONTEXT) == key
    assert (await provider.health_check()).status is HealthStatus.OK
    assert [await probe.call() for probe in provider.probes()][-2:] == [WRAP, UNWRAP]
    await provider.close()


async def test_health_is_free_and_notices_a_permission_that_went(rig: GcpRig, provider: GcpProvider) -> None:
    before = rig.google.order("seen")["calls"]
    assert (await provider.health_check()).status is HealthStatus.OK
    after = rig.google.order("seen")["calls"]
    assert {name for name in after if after[name] != before.get(name)} == {"TestIamPermissions", "GetCryptoKey"}
    rig.google.order("restrict", permissions=[WRAP])
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "cryptoKeyEncrypterDecrypter" in health.detail
    with pytest.raises(Denied, match="useToDecrypt"):
        await provider.probes()[-1].call()
    rig.google.order("restrict", permissions=[UNWRAP])
    health = await provider.health_check()
    assert health.status is HealthStatus.DEGRADED
    assert WRAP in health.detail


async def test_who_may_only_unwrap_opens_all_the_same(rig: GcpRig, provider: GcpProvider) -> None:
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    rig.google.order("restrict", permissions=[UNWRAP])
    other = rig.make()
    assert await other.unwrap_key(wrapped, CONTEXT)
    with pytest.raises(Denied):
        await other.wrap_key(os.urandom(32), CONTEXT)
    await other.close()
    rig.google.order("restrict", permissions=[])
    other = rig.make()
    with pytest.raises(Denied):
        await other.initialize()
    await other.close()


async def test_what_was_done_is_recorded(provider: GcpProvider) -> None:
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    await provider.unwrap_key(wrapped, CONTEXT)
    now = datetime.now(UTC)
    records = await provider.get_audit_logs(now - timedelta(minutes=1), now)
    assert [record.operation for record in records] == ["initialize", "wrap_key", "unwrap_key"]
    assert {record.source for record in records} == {"sidecar"}
