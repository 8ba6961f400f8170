"""The operations beside wrapping, health, the steps of a check, and the pool."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

from providers import (
    Capability,
    Denied,
    ForeignWrap,
    InputRefused,
    KeySpecification,
    NotFound,
    ProviderError,
    Signature,
    Tampered,
    Timeout,
    WrapContext,
)
from providers.azure import AzureKeyVaultProvider
from providers.azure.administration import transfer_blob
from tests.providers.azure.rig import AzureRig
from tests.providers.azure.test_wraps import OAEP, private, symmetric
from tests.servers.azure import CLIENT_ID

ROOT = Path(__file__).parents[3]
CONTEXT = WrapContext(7, "users", "42", "field")
KEY = bytes(range(32))


async def opened(rig: AzureRig, **performance: object) -> AzureKeyVaultProvider:
    provider = rig.make(**performance)
    await provider.initialize()
    return provider


def forget(rig: AzureRig, *names: str) -> None:
    for name in names:
        rig.served.do("forget", name=name)


def bundle(rig: AzureRig, kid: str) -> dict[str, Any]:
    name, version = kid.rsplit("/", 2)[1:]
    found: dict[str, Any] = rig.served.do("update", name=name, version=version, body={})
    return found


# making, bringing in, deleting


@pytest.mark.parametrize(
    ("algorithm", "use", "kty", "operations"),
    [
        ("AES-256", "wrap", "oct-HSM", ["encrypt", "decrypt"]),
        ("EC-P256", "sign", "EC-HSM", ["sign", "verify"]),
        ("EC-P384", "sign", "EC-HSM", ["sign", "verify"]),
        ("RSA-2048", "wrap", "RSA-HSM", ["wrapKey", "unwrapKey"]),
        ("RSA-2048", "sign", "RSA-HSM", ["sign", "verify"]),
    ],
)
async def test_made_keys_stay_inside_and_do_no_more_than_they_must(
    on_hsm: AzureRig, algorithm: str, use: Any, kty: str, operations: list[str]
) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    made = await provider.generate_key(KeySpecification("made", use, algorithm, tags={"owner": "us"}))
    found = bundle(on_hsm, made.key)
    assert (found["key"]["kty"], found["key"]["key_ops"], found["tags"]) == (kty, operations, {"owner": "us"})
    assert found["attributes"]["exportable"] is False
    assert made.created_at is not None
    policy = on_hsm.served.do("policy", name="made")["lifetimeActions"]
    rotates = [{"trigger": {"timeAfterCreate": "P1Y"}, "action": {"type": "Rotate"}}] if use == "wrap" else []
    assert policy == rotates
    await provider.close()


async def test_a_made_key_serves(on_hsm: AzureRig) -> None:
    forget(on_hsm, "made")
    maker = await opened(on_hsm)
    made = await maker.generate_key(KeySpecification("made", "wrap", "AES-256"))
    await maker.close()
    on_hsm.settings["kek"] = "made"
    provider = await opened(on_hsm)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    assert wrapped.kek == made.key
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()


@pytest.mark.parametrize(
    "specification",
    [
        KeySpecification("keyside", "wrap", "AES-256"),
        KeySpecification("made", "sign", "AES-256"),
        KeySpecification("made", "wrap", "EC-P256"),
        KeySpecification("made", "wrap", "AES-128"),
        KeySpecification("made", "wrap", "DES"),
        KeySpecification("no such label!", "wrap", "AES-256"),
        KeySpecification("made", "wrap", "AES-256", multi_region=True),
        KeySpecification("made", "wrap", "AES-256", administrators=("me",)),
    ],
)
async def test_keys_that_cannot_be_made_are_refused(on_hsm: AzureRig, specification: KeySpecification) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    with pytest.raises(InputRefused):
        await provider.generate_key(specification)
    material = bytearray(KEY)
    with pytest.raises(InputRefused):
        await provider.import_key(specification, material)
    assert material == bytes(32)
    await provider.close()


async def test_a_symmetric_key_on_a_vault_is_refused_by_the_service(on_vault: AzureRig) -> None:
    provider = await opened(on_vault)
    with pytest.raises(InputRefused):
        await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))
    await provider.close()


def pkcs8(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def test_an_imported_key_is_the_one_that_was_made_elsewhere(on_hsm: AzureRig) -> None:
    forget(on_hsm, "brought")
    provider = await opened(on_hsm)
    secret = os.urandom(32)
    material = bytearray(secret)
    brought = await provider.import_key(KeySpecification("brought", "wrap", "AES-256"), material)
    assert material == bytes(32), "wiped"
    assert symmetric(on_hsm.served, brought.key) == secret
    ciphertext = await provider.encrypt(b"value", b"associated", key=brought.key)
    bound = b"KSV\x01" + hashlib.sha256(b"associated").digest()
    assert AESGCM(secret).decrypt(ciphertext.blob[:12], ciphertext.blob[12:], bound) == b"\x01value"
    await provider.close()


@pytest.mark.parametrize("step", ["GET /keys/brought$", "POST /keys/keyside-import-.*/create$", "PUT /keys/brought$"])
async def test_an_import_that_was_tried_again_brings_the_same_key(on_hsm: AzureRig, step: str) -> None:
    forget(on_hsm, "brought")
    provider = await opened(on_hsm)
    on_hsm.served.do("fault", path=f"^vault {step}", status=429, body="{}")
    secret = os.urandom(32)
    material = bytearray(secret)
    on_hsm.served.do("seen")
    brought = await provider.import_key(KeySpecification("brought", "wrap", "AES-256"), material)
    asked = [request.removeprefix("vault ") for request in on_hsm.served.do("seen")]
    assert sum(bool(re.match(step, request)) for request in asked) == 2, "once refused, once not"
    assert symmetric(on_hsm.served, brought.key) == secret
    assert material == bytes(32), "wiped when all was over"
    await provider.close()


async def test_a_key_of_zeros_is_not_imported(on_hsm: AzureRig) -> None:
    forget(on_hsm, "brought")
    provider = await opened(on_hsm)
    on_hsm.served.do("seen")
    with pytest.raises(InputRefused, match="zeros"):
        await provider.import_key(KeySpecification("brought", "wrap", "AES-256"), bytearray(32))
    assert on_hsm.served.do("seen") == []
    await provider.close()


@pytest.mark.parametrize("use", ["wrap", "sign"])
async def test_imported_key_pairs(on_vault: AzureRig, use: Any) -> None:
    forget(on_vault, "brought")
    provider = await opened(on_vault)
    pair = rsa.generate_private_key(65537, 2048) if use == "wrap" else ec.generate_private_key(ec.SECP256R1())
    algorithm = "RSA-2048" if use == "wrap" else "EC-P256"
    brought = await provider.import_key(KeySpecification("brought", use, algorithm), bytearray(pkcs8(pair)))
    assert pkcs8(private(on_vault.served, brought.key)) == pkcs8(pair)
    await provider.close()


async def test_the_key_that_carried_it_is_deleted_even_when_the_import_fails(on_hsm: AzureRig) -> None:
    forget(on_hsm, "brought")
    provider = await opened(on_hsm)
    on_hsm.served.do("seen")
    with pytest.raises(ProviderError):
        await provider.import_key(KeySpecification("brought", "wrap", "RSA-2048"), bytearray(b"no PKCS#8"))
    await provider.close()
    assert any("vault DELETE /keys/keyside-import-" in request for request in on_hsm.served.do("seen"))


def test_the_transfer_blob_is_what_the_service_documents() -> None:
    exchange = rsa.generate_private_key(65537, 2048)
    blob = json.loads(transfer_blob("https://acme.vault.azure.net/keys/x/1", exchange.public_key(), b"K" * 33))
    assert blob["schema_version"] == "1.0.0"
    assert blob["header"] == {
        "kid": "https://acme.vault.azure.net/keys/x/1",
        "alg": "dir",
        "enc": "CKM_RSA_AES_KEY_WRAP",
    }
    sealed = base64.urlsafe_b64decode(blob["ciphertext"] + "==")
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert aes_key_unwrap_with_padding(exchange.decrypt(sealed[:256], oaep), sealed[256:]) == b"K" * 33


async def test_deleting_is_soft_and_says_until_when(on_hsm: AzureRig, caplog: pytest.LogCaptureFixture) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    made = await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))
    with caplog.at_level(logging.WARNING):
        await provider.delete_key("made")
    assert "recoverable until" in caplog.text
    for name in ("made", made.key.rpartition("/")[0], "no such key", "nobody"):
        with pytest.raises(NotFound):
            await provider.delete_key(name)
    with pytest.raises(InputRefused, match="recover or purge"):
        await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))
    await provider.close()


async def test_one_version_alone_is_not_deleted(on_hsm: AzureRig) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    made = await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))
    on_hsm.served.do("seen")
    for name in (made.key, made.key.partition("/keys/")[2]):
        with pytest.raises(InputRefused, match="all versions"):
            await provider.delete_key(name)
    assert on_hsm.served.do("seen") == []
    await provider.close()


@pytest.mark.parametrize("name", ["keyside", "KEYSIDE", "keyside-signing", "old"])
async def test_keys_that_serve_are_not_deleted(on_vault: AzureRig, name: str) -> None:
    on_vault.settings["retiredKeks"] = ["old"]
    provider = await opened(on_vault)
    on_vault.served.do("seen")
    for named in (name, f"{on_vault.served.urls['vault']}/keys/{name}"):
        with pytest.raises(InputRefused, match=r"hsm\.kek"):
            await provider.delete_key(named)
    assert on_vault.served.do("seen") == []
    await provider.close()


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize("fault", [{"status": 503}, {"body": "<html>"}], ids=str)
async def test_a_key_whose_making_was_not_answered_is_named(
    on_hsm: AzureRig, imported: bool, fault: dict[str, Any]
) -> None:
    """Trying again would only find that it exists."""
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    path = "PUT /keys/made$" if imported else "POST /keys/made/create$"
    on_hsm.served.do("fault", path=f"^vault {path}", **fault)
    specification = KeySpecification("made", "wrap", "AES-256")
    on_hsm.served.do("seen")
    with pytest.raises(ProviderError, match=r"/keys/made was made is not known") as failed:
        await (provider.import_key(specification, bytearray(KEY)) if imported else provider.generate_key(specification))
    assert not failed.value.retryable
    assert sum(bool(re.search(path, request)) for request in on_hsm.served.do("seen")) == 1
    await provider.close()


@pytest.mark.parametrize("imported", [False, True])
async def test_a_key_whose_making_took_too_long_is_named(on_hsm: AzureRig, imported: bool) -> None:
    forget(on_hsm, "made")
    provider = on_hsm.make(requestTimeout=1000)
    await provider.initialize()
    path = "PUT /keys/made$" if imported else "POST /keys/made/create$"
    on_hsm.served.do("fault", path=f"^vault {path}", how="hang")
    specification = KeySpecification("made", "wrap", "AES-256")
    with pytest.raises(Timeout, match=r"1000 ms.* whether https://\S+/keys/made was made is not known"):
        await (provider.import_key(specification, bytearray(KEY)) if imported else provider.generate_key(specification))
    await provider.close()


async def test_a_key_that_is_throttled_is_made_at_the_next_attempt(on_hsm: AzureRig) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    on_hsm.served.do("fault", path="/keys/made/create$", status=429, body="{}")
    assert (await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))).key
    await provider.close()


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_a_made_key_without_its_rotation_policy_is_named(on_hsm: AzureRig, status: int) -> None:
    forget(on_hsm, "made")
    provider = await opened(on_hsm)
    on_hsm.served.do("fault", path="PUT /keys/made/rotationpolicy$", status=status, body="{}")
    with pytest.raises(ProviderError, match=r"/keys/made/[0-9a-f]{32} was made, .*rotation policy") as failed:
        await provider.generate_key(KeySpecification("made", "wrap", "AES-256"))
    assert not failed.value.retryable
    await provider.close()


# signing, and values


@pytest.mark.parametrize(
    ("algorithm", "name"), [("EC-P256", "ES256"), ("EC-P384", "ES384"), ("EC-P521", "ES512"), ("RSA-2048", "PS256")]
)
async def test_signatures_are_good_to_others(on_vault: AzureRig, algorithm: str, name: str) -> None:
    forget(on_vault, "signer")
    provider = await opened(on_vault)
    key = (await provider.generate_key(KeySpecification("signer", "sign", algorithm))).key
    signature = await provider.sign(b"data", key="signer")
    assert (signature.key, signature.algorithm) == (key, name)
    await provider.verify(b"data", signature)
    public = private(on_vault.served, key).public_key()
    if name == "PS256":
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        public.verify(signature.blob, b"data", pss, hashes.SHA256())
    else:
        half = len(signature.blob) // 2
        r, s = (int.from_bytes(part, "big") for part in (signature.blob[:half], signature.blob[half:]))
        hashed = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}[name]
        public.verify(utils.encode_dss_signature(r, s), b"data", ec.ECDSA(hashed))
    flipped = bytes([signature.blob[0] ^ 1]) + signature.blob[1:]
    for data, forged in ((b"date", signature.blob), (b"data", flipped)):
        with pytest.raises(Tampered):
            await provider.verify(data, dataclasses.replace(signature, blob=forged))
    with pytest.raises(NotFound):
        await provider.sign(b"data", key="nobody")
    await provider.close()


async def test_signatures_of_elsewhere_and_keys_that_do_not_sign(on_hsm: AzureRig) -> None:
    provider = await opened(on_hsm)
    kid = provider.describe().kek
    assert kid is not None
    with pytest.raises(ForeignWrap):
        await provider.verify(b"data", Signature(kid, "none", b""))
    with pytest.raises(NotFound):
        await provider.verify(b"data", Signature("https://elsewhere/keys/a/" + "0" * 32, "ES256", b""))
    with pytest.raises(InputRefused):
        await provider.sign(b"data", key="keyside")
    await provider.close()


async def test_a_value_on_a_vault_by_the_specification(on_vault: AzureRig) -> None:
    on_vault.settings["mechanism"] = "RSA-OAEP-256"
    provider = await opened(on_vault)
    ciphertext = await provider.encrypt(b"value", b"associated")
    length = int.from_bytes(ciphertext.blob[:2], "big")
    sealed, rest = ciphertext.blob[2 : 2 + length], ciphertext.blob[2 + length :]
    bound = b"KSV\x01" + hashlib.sha256(b"associated").digest()
    content_key = private(on_vault.served, ciphertext.kek).decrypt(sealed, OAEP)
    assert content_key[:32] == hashlib.sha256(bound).digest()
    assert AESGCM(content_key[32:]).decrypt(rest[:12], rest[12:], bound) == b"value"
    assert ciphertext.mechanism == "RSA-OAEP-256/A256GCM"
    await provider.close()


async def test_a_value_is_never_taken_for_a_wrap(on_hsm: AzureRig) -> None:
    """Whoever may have values encrypted must not get a wrap of a data key that he chose."""
    provider = await opened(on_hsm)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    value = await provider.encrypt(bytes(31), CONTEXT.authenticated())
    with pytest.raises(Tampered):
        await provider.unwrap_key(dataclasses.replace(wrapped, blob=value.blob), CONTEXT)
    await provider.close()


# claims, logs, steps


async def test_what_may_be_claimed_of_an_hsm_key(on_vault: AzureRig) -> None:
    provider = await opened(on_vault)
    info = await provider.get_compliance_info()
    assert (info.validated_to, info.extractable) == ("FIPS 140-3 level 3", False)
    assert any("Recoverable" in note for note in info.notes)
    assert "rotation: by hand" in info.notes
    await provider.close()


async def test_what_may_be_claimed_of_a_software_key_without_signatures(on_vault: AzureRig) -> None:
    forget(on_vault, "keyside")
    on_vault.served.do("create", name="keyside", body={"kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"]})
    on_vault.settings["mechanism"] = "RSA-OAEP-256"
    allowed = ["get", "wrapKey", "unwrapKey"]
    on_vault.served.do("permit", client_id=CLIENT_ID, permissions=allowed)
    provider = await opened(on_vault)
    info = await provider.get_compliance_info()
    assert (info.validated_to, info.extractable) == (None, True)
    assert any("not signed" in note for note in info.notes)
    assert any("may not be read" in note for note in info.notes)
    await provider.close()


async def test_the_log_is_our_own(on_hsm: AzureRig) -> None:
    provider = await opened(on_hsm)
    start = datetime.datetime.now(datetime.UTC)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    with pytest.raises(Tampered):
        await provider.unwrap_key(dataclasses.replace(wrapped, blob=b""), CONTEXT)
    records = await provider.get_audit_logs(start, datetime.datetime.now(datetime.UTC))
    assert [(record.operation, record.succeeded) for record in records] == [("wrap_key", True), ("unwrap_key", False)]
    assert {record.source for record in records} == {"sidecar"}
    await provider.close()


async def test_a_capability_that_is_lacking_has_its_reason(on_hsm: AzureRig) -> None:
    provider = on_hsm.make()
    assert set(provider.lacks) == {Capability.SESSIONS}
    assert Capability.SESSIONS not in provider.capabilities


async def walked(rig: AzureRig) -> list[str]:
    provider = rig.make()
    found = []
    for probe in provider.probes():
        try:
            found.append(f"{probe.title}: {await probe.call()}")
        except ProviderError as error:
            found.append(f"{probe.title} FAILED: {error}")
    await provider.close()
    return found


async def test_the_steps_of_a_check(on_vault: AzureRig) -> None:
    steps = await walked(on_vault)
    assert [step.partition(":")[0] for step in steps] == [
        "credentials", "key-encryption key", "permission to wrap", "permission to unwrap",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("permissions", "failing"),
    [
        (["get", "unwrapKey", "sign"], ["permission to wrap", "permission to unwrap"]),
        (["get", "wrapKey", "unwrapKey"], ["permission to wrap", "permission to unwrap"]),
        (["get", "wrapKey", "sign"], ["permission to unwrap"]),
        ([], ["key-encryption key", "permission to wrap", "permission to unwrap"]),
    ],
    ids=str,
)
async def test_a_check_names_the_step_that_fails(
    on_vault: AzureRig, permissions: list[str], failing: list[str]
) -> None:
    on_vault.served.do("permit", client_id=CLIENT_ID, permissions=permissions)
    steps = await walked(on_vault)
    assert [step.partition(" FAILED")[0] for step in steps if "FAILED" in step] == failing
    assert all("Crypto User" in step for step in steps if "FAILED" in step)


async def test_a_vault_that_hangs_up_signing_does_not_store_a_wrap(on_vault: AzureRig) -> None:
    provider = await opened(on_vault)
    on_vault.served.do("permit", client_id=CLIENT_ID, permissions=["get", "wrapKey", "unwrapKey"])
    with pytest.raises(Denied):
        await provider.wrap_key(KEY, CONTEXT)
    await provider.close()


# connections


async def test_the_pool_counts_connections_and_no_more_are_opened(on_hsm: AzureRig) -> None:
    before = on_hsm.served.do("accepted")
    provider = on_hsm.make(connectionPoolSize=3)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.served.do("latency", seconds=0.3)
    calls = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(8)]
    await asyncio.sleep(0.15)
    usage = provider.pool_usage()
    assert usage is not None
    assert (usage.size, usage.active, usage.idle, usage.waiting) == (3, 3, 0, 5)
    assert on_hsm.served.do("accepted") == before + 3 + 1, "and one for the challenge, closed by now"
    await asyncio.gather(*calls)
    usage = provider.pool_usage()
    assert usage is not None
    assert (usage.active, usage.idle, usage.waiting) == (0, 3, 0)
    await provider.close()


async def test_connections_are_reused_and_replaced_by_age(on_hsm: AzureRig) -> None:
    provider = on_hsm.make(connectionPoolSize=1, connectionMaxAge=1)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    before = on_hsm.served.do("accepted")
    for _ in range(5):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert on_hsm.served.do("accepted") == before
    await asyncio.sleep(1.1)
    await provider.unwrap_key(wrapped, CONTEXT)
    assert on_hsm.served.do("accepted") == before + 1
    await provider.close()


def test_only_this_sdk_is_loaded(on_hsm: AzureRig) -> None:
    code = (
        "import asyncio, json, sys\nfrom pathlib import Path\nfrom providers import create\n"
        "hsm = json.loads(sys.stdin.read())\n"
        "provider = create(hsm, Path('.'))\n"
        "assert not any(name.startswith('azure') for name in sys.modules), 'only when it opens'\n"
        "async def main():\n    await provider.initialize()\n    await provider.close()\n"
        "asyncio.run(main())\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(on_hsm.hsm()),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    loaded = set(json.loads(done.stdout))
    assert "azure.keyvault.keys.aio" in loaded
    assert not loaded & {"boto3", "botocore", "aiobotocore", "google.cloud", "grpc", "pkcs11", "hvac"}
