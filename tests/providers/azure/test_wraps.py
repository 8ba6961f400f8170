"""docs/spec/wrap.md, AZURE_KEY_VAULT, written out once more with `cryptography`; and what an attacker makes of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from providers import KeyDisabled, NotFound, ProviderError, Tampered, WrapContext, WrappedKey
from tests.providers.azure.rig import AzureRig
from tests.servers.azure import AzureServed

CONTEXT = WrapContext(7, "users", "42", "field")
KEY = bytes(range(0xA0, 0xC0))
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
LABEL = b"keyside azure v1 RSA-OAEP-256+ES256\x00"


def private(served: AzureServed, kid: str) -> Any:
    return serialization.load_pem_private_key(served.do("reveal", kid=kid).encode(), None)


def symmetric(served: AzureServed, kid: str) -> bytes:
    text = served.do("reveal", kid=kid)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def payload(key: bytes = KEY, context: WrapContext = CONTEXT) -> bytes:
    return hashlib.sha256(context.authenticated()).digest() + key


def signed(kek: str, sealed: bytes, context: WrapContext = CONTEXT) -> bytes:
    parts = (kek.encode(), context.authenticated(), sealed)
    return LABEL + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


async def wrapped_by(rig: AzureRig, **performance: object) -> WrappedKey:
    provider = rig.make(**performance)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    await provider.close()
    return wrapped


async def unwrapped_by(rig: AzureRig, wrapped: WrappedKey, context: WrapContext = CONTEXT) -> bytearray:
    provider = rig.make()
    try:
        return await provider.unwrap_key(wrapped, context)
    finally:
        await provider.close()


# what is stored, read by an independent reader


async def test_a_signed_wrap_is_what_the_specification_says(on_vault: AzureRig) -> None:
    wrapped = await wrapped_by(on_vault)
    version, signed_by, sealed = wrapped.blob[:16].hex(), wrapped.blob[16:80], wrapped.blob[80:]
    signing = private(on_vault.served, f"{on_vault.served.urls['vault']}/keys/keyside-signing/{version}")
    r, s = (int.from_bytes(part, "big") for part in (signed_by[:32], signed_by[32:]))
    message = signed(wrapped.kek, sealed)
    signing.public_key().verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    assert private(on_vault.served, wrapped.kek).decrypt(sealed, OAEP) == payload()
    assert wrapped.mechanism == "RSA-OAEP-256+ES256"


async def test_gcm_is_what_the_specification_says(on_hsm: AzureRig) -> None:
    wrapped = await wrapped_by(on_hsm)
    key = symmetric(on_hsm.served, wrapped.kek)
    assert AESGCM(key).decrypt(wrapped.blob[:12], wrapped.blob[12:], CONTEXT.authenticated()) == KEY
    assert (wrapped.mechanism, len(wrapped.blob)) == ("A256GCM", 60)


async def test_key_wrap_is_what_the_specification_says(on_hsm: AzureRig) -> None:
    on_hsm.settings["mechanism"] = "A256KW"
    wrapped = await wrapped_by(on_hsm)
    assert aes_key_unwrap(symmetric(on_hsm.served, wrapped.kek), wrapped.blob) == payload()


async def test_the_oracles_wraps_unwrap(on_vault: AzureRig) -> None:
    kek = (await wrapped_by(on_vault)).kek
    version = (await wrapped_by(on_vault)).blob[:16]
    signing = private(on_vault.served, f"{on_vault.served.urls['vault']}/keys/keyside-signing/{version.hex()}")
    sealed = private(on_vault.served, kek).public_key().encrypt(payload(), OAEP)
    blob = version + signature(signing, signed(kek, sealed)) + sealed
    assert await unwrapped_by(on_vault, WrappedKey("AZURE_KEY_VAULT", kek, "RSA-OAEP-256+ES256", blob)) == KEY


@pytest.mark.parametrize("size", [3072, 4096])
async def test_longer_rsa_keys(on_vault: AzureRig, size: int) -> None:
    on_vault.served.do("forget", name="keyside")
    body = {"kty": "RSA-HSM", "key_size": size, "key_ops": ["wrapKey", "unwrapKey"]}
    on_vault.served.do("create", name="keyside", body=body)
    wrapped = await wrapped_by(on_vault)
    assert len(wrapped.blob) == 80 + size // 8
    assert await unwrapped_by(on_vault, wrapped) == KEY


# every operation is the service's, with one version of the key


@pytest.mark.parametrize(
    ("mechanism", "calls"),
    [
        ("RSA-OAEP-256+ES256", ["wrapkey", "sign", "unwrapkey"]),
        ("RSA-OAEP-256", ["wrapkey", "unwrapkey"]),
        ("A256GCM", ["encrypt", "decrypt"]),
        ("A256KW", ["wrapkey", "unwrapkey"]),
    ],
)
async def test_nothing_is_wrapped_in_this_process(
    on_vault: AzureRig, on_hsm: AzureRig, mechanism: str, calls: list[str]
) -> None:
    rig = on_vault if mechanism.startswith("RSA") else on_hsm
    rig.settings["mechanism"] = mechanism
    provider = rig.make()
    await provider.initialize()
    rig.served.do("seen")
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    await provider.unwrap_key(wrapped, CONTEXT)
    seen = [request.split("/keys/", 1)[1] for request in rig.served.do("seen")]
    version = wrapped.kek.rpartition("/")[2]
    assert [request.rpartition("/")[2] for request in seen] == calls
    assert all(version in request for request in seen if not request.startswith("keyside-signing"))
    await provider.close()


async def test_a_rotation_is_followed_by_an_open_provider(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    old = await provider.wrap_key(KEY, CONTEXT)
    on_vault.rotate()
    assert (await provider.wrap_key(KEY, CONTEXT)).kek == old.kek, "nobody has told it yet"
    await provider.health_check()
    new = await provider.wrap_key(KEY, CONTEXT)
    assert new.kek == provider.describe().kek != old.kek
    assert await provider.unwrap_key(old, CONTEXT) == await provider.unwrap_key(new, CONTEXT) == KEY
    await provider.close()


async def test_a_version_that_is_disabled_after_a_rotation_is_left(on_hsm: AzureRig) -> None:
    provider = on_hsm.make()
    old = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.rotate()
    body = {"attributes": {"enabled": False}}
    on_hsm.served.do("update", name="keyside", version=old.kek.rpartition("/")[2], body=body)
    new = await provider.wrap_key(KEY, CONTEXT)
    assert new.kek != old.kek
    with pytest.raises(KeyDisabled):
        await provider.unwrap_key(old, CONTEXT)
    await provider.close()


async def test_a_pinned_version_is_not_left(on_hsm: AzureRig) -> None:
    pinned = (await wrapped_by(on_hsm)).kek
    on_hsm.rotate()
    for kek in (pinned, pinned.partition("/keys/")[2]):
        on_hsm.settings["kek"] = kek
        assert (await wrapped_by(on_hsm)).kek == pinned


async def test_a_rotated_signing_key_leaves_old_wraps_good(on_vault: AzureRig) -> None:
    old = await wrapped_by(on_vault)
    on_vault.served.do("rotate", name="keyside-signing")
    new = await wrapped_by(on_vault)
    assert new.blob[:16] != old.blob[:16]
    for wrapped in (old, new):
        assert await unwrapped_by(on_vault, wrapped) == KEY


async def test_an_open_provider_follows_the_signing_key(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    old = await provider.wrap_key(KEY, CONTEXT)
    on_vault.served.do("rotate", name="keyside-signing")
    await provider.health_check()
    new = await provider.wrap_key(KEY, CONTEXT)
    assert new.blob[:16] != old.blob[:16]
    on_vault.served.do("rotate", name="keyside-signing")
    body = {"attributes": {"enabled": False}}
    on_vault.served.do("update", name="keyside-signing", version=new.blob[:16].hex(), body=body)
    newest = await provider.wrap_key(KEY, CONTEXT)
    assert newest.blob[:16] not in (old.blob[:16], new.blob[:16]), "the disabled one was left at once"
    for wrapped in (old, new, newest):
        assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()
    with pytest.raises(KeyDisabled):
        await unwrapped_by(on_vault, new)


# somebody writes the keystore, and knows every public key


async def forgeries(rig: AzureRig) -> dict[str, WrappedKey]:
    good = await wrapped_by(rig)
    sealed = private(rig.served, good.kek).public_key().encrypt(payload(b"\x66" * 32), OAEP)
    own = ec.generate_private_key(ec.SECP256R1())
    version = good.blob[:16]
    forged = {
        "the signature of another wrap": good.blob[:80] + sealed,
        "a signature by a key of his own": version + signature(own, signed(good.kek, sealed)) + sealed,
        "a version that never was": os.urandom(16) + signature(own, signed(good.kek, sealed)) + sealed,
        "a signature of zeros": version + bytes(64) + sealed,
        "no head": sealed,
        "a head alone": good.blob[:80],
        "nothing": b"",
    }
    rows = {name: dataclasses.replace(good, blob=blob) for name, blob in forged.items()}
    rows["called unsigned"] = dataclasses.replace(good, mechanism="RSA-OAEP-256", blob=sealed)
    rows["a good one, called unsigned"] = dataclasses.replace(good, mechanism="RSA-OAEP-256", blob=good.blob[80:])
    return rows


async def test_a_data_key_of_his_choice_is_refused_before_the_service_sees_it(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    await provider.initialize()
    rows = await forgeries(on_vault)
    on_vault.served.do("seen")
    for name, row in rows.items():
        with pytest.raises(Tampered):
            await provider.unwrap_key(row, CONTEXT)
        assert not any("unwrapkey" in request for request in on_vault.served.do("seen")), name
    await provider.close()


async def test_a_good_wrap_of_another_key_version_is_refused(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    old = await provider.wrap_key(KEY, CONTEXT)
    on_vault.rotate()
    await provider.health_check()
    new = await provider.wrap_key(KEY, CONTEXT)
    with pytest.raises(Tampered):
        await provider.unwrap_key(dataclasses.replace(old, kek=new.kek), CONTEXT)
    await provider.close()


async def test_unsigned_wraps_are_read_where_the_configuration_says_so(on_vault: AzureRig) -> None:
    on_vault.settings["mechanism"] = "RSA-OAEP-256"
    unsigned = await wrapped_by(on_vault)
    del on_vault.settings["mechanism"]
    with pytest.raises(Tampered, match="acceptUnsigned"):
        await unwrapped_by(on_vault, unsigned)
    on_vault.settings["acceptUnsigned"] = True
    assert await unwrapped_by(on_vault, unsigned) == KEY
    assert (await wrapped_by(on_vault)).mechanism == "RSA-OAEP-256+ES256"


@pytest.mark.parametrize("mechanism", ["A256GCM", "A256KW"])
async def test_who_wraps_with_a_symmetric_key_refuses_unsigned_wraps_too(on_hsm: AzureRig, mechanism: str) -> None:
    """A retired RSA key has a public part: whoever writes the keystore would name it."""
    on_hsm.served.do("forget", name="old")
    body = {"kty": "RSA-HSM", "key_size": 2048, "key_ops": ["wrapKey", "unwrapKey"]}
    kek = on_hsm.served.do("create", name="old", body=body)["key"]["kid"]
    forged = private(on_hsm.served, kek).public_key().encrypt(payload(b"\x66" * 32), OAEP)
    row = WrappedKey("AZURE_KEY_VAULT", kek, "RSA-OAEP-256", forged)
    on_hsm.settings |= {"mechanism": mechanism, "retiredKeks": ["old"]}
    on_hsm.served.do("seen")
    with pytest.raises(Tampered, match="acceptUnsigned"):
        await unwrapped_by(on_hsm, row)
    assert not any("unwrapkey" in request for request in on_hsm.served.do("seen"))
    on_hsm.settings["acceptUnsigned"] = True
    assert await unwrapped_by(on_hsm, row) == b"\x66" * 32


@pytest.mark.parametrize(
    "kek",
    [
        "https://attacker.example/keys/keyside/" + "a" * 32,
        "https://127.0.0.1:1/keys/keyside/" + "a" * 32,
        "https://user@127.0.0.1/keys/keyside/" + "a" * 32,
        "http://127.0.0.1/keys/keyside/" + "a" * 32,
        "keyside/" + "a" * 32,
        "",
        "\0",
    ],
)
async def test_a_row_that_names_another_place_sends_no_request_there(on_hsm: AzureRig, kek: str) -> None:
    provider = on_hsm.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.served.do("seen")
    with pytest.raises(NotFound):
        await provider.unwrap_key(dataclasses.replace(wrapped, kek=kek), CONTEXT)
    assert on_hsm.served.do("seen") == []
    await provider.close()


async def test_path_tricks_in_a_key_name_are_refused(on_hsm: AzureRig) -> None:
    wrapped = await wrapped_by(on_hsm)
    for name in ("../secrets/x", "keyside%2f..", "keyside?x=", "keyside#", "k" * 128, "keysi\u0301de"):
        with pytest.raises(NotFound):
            await unwrapped_by(on_hsm, dataclasses.replace(wrapped, kek=wrapped.kek.replace("/keyside/", f"/{name}/")))


# keys and vaults that were replaced


async def test_a_retired_key_unwraps_when_it_is_named(on_hsm: AzureRig) -> None:
    old = await wrapped_by(on_hsm)
    on_hsm.served.do("forget", name="next")
    body = {"kty": "oct-HSM", "key_size": 256, "key_ops": ["encrypt", "decrypt"]}
    on_hsm.served.do("create", name="next", body=body)
    on_hsm.settings["kek"] = "next"
    with pytest.raises(NotFound, match="retiredKeks"):
        await unwrapped_by(on_hsm, old)
    on_hsm.settings["retiredKeks"] = ["keyside"]
    assert await unwrapped_by(on_hsm, old) == KEY
    assert "/next/" in (await wrapped_by(on_hsm)).kek


async def test_wraps_of_a_vault_that_was_restored_elsewhere(on_vault: AzureRig) -> None:
    """As if the rows came from lost.vault.azure.net; they were signed under that name."""
    here = await wrapped_by(on_vault)
    kek = here.kek.replace(on_vault.served.urls["vault"], "https://lost.vault.azure.net")
    signing = private(on_vault.served, f"{on_vault.served.urls['vault']}/keys/keyside-signing/{here.blob[:16].hex()}")
    sealed = here.blob[80:]
    there = dataclasses.replace(here, kek=kek, blob=here.blob[:16] + signature(signing, signed(kek, sealed)) + sealed)
    with pytest.raises(NotFound, match="formerEndpoints"):
        await unwrapped_by(on_vault, there)
    on_vault.settings["formerEndpoints"] = ["https://LOST.vault.azure.net/"]
    assert await unwrapped_by(on_vault, there) == KEY


# keys that do not fit


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("keyside", {"kty": "EC-HSM"}, "needs a key of type RSA"),
        ("keyside", {"kty": "RSA-HSM", "key_ops": ["unwrapKey", "sign"]}, "wrapKey"),
        ("keyside-signing", {"kty": "EC-HSM", "crv": "P-384"}, "not a P-256 key"),
        ("keyside-signing", {"kty": "RSA-HSM"}, "not a P-256 key"),
        ("keyside-signing", None, "signing key"),
        ("keyside", None, "was not found"),
    ],
)
async def test_what_is_wrong_with_a_key_is_said_at_the_start(
    on_vault: AzureRig, name: str, body: dict[str, object] | None, says: str
) -> None:
    on_vault.served.do("forget", name=name)
    if body is not None:
        on_vault.served.do("create", name=name, body=body)
    provider = on_vault.make()
    with pytest.raises(ProviderError, match=says):
        await provider.initialize()
    await provider.close()


def test_a_public_key_is_all_that_a_forger_needs() -> None:
    """The attack that signatures answer, in three lines: no secret is used."""
    vault = rsa.generate_private_key(65537, 2048)
    forged = vault.public_key().encrypt(payload(b"\x66" * 32), OAEP)
    assert vault.decrypt(forged, OAEP) == payload(b"\x66" * 32)
