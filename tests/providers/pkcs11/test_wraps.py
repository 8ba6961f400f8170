"""What lies in a wrap, told by `cryptography` with the token's key in hand, and what tokens of other makers do."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pkcs11
import pkcs11.exceptions as ck
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_unwrap_with_padding
from pkcs11 import Attribute, KeyType, PKCS11Error

from providers import Encrypts, InputRefused, NotFound, Tampered, Unavailable, WrapContext
from providers.pkcs11.device import Device, Held
from providers.pkcs11.mechanisms import Gcm, KeyWrap, ckm, sealing
from providers.pkcs11.provider import Pkcs11Provider
from providers.pkcs11.vendors import PREFERENCE, VENDORS
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import ServedSoftHsm

CONTEXT = WrapContext(7, "users", "42", "index")
LUNA, THALES = VENDORS["LUNA_HSM"], VENDORS["THALES_HSM"]


def by_gcm(key: bytes, _: bytes, blob: bytes, associated: bytes) -> bytes:
    assert blob[0] == 12
    return AESGCM(key).decrypt(blob[1:13], blob[13:], associated)


def unwrapped(payload: bytes, associated: bytes) -> bytes:
    assert payload[:32] == sha256(associated).digest()
    return payload[32 : -payload[-1]]


def by_kw(key: bytes, _: bytes, blob: bytes, associated: bytes) -> bytes:
    return unwrapped(aes_key_unwrap(key, blob), associated)


def by_kwp(key: bytes, _: bytes, blob: bytes, associated: bytes) -> bytes:
    return unwrapped(aes_key_unwrap_with_padding(key, blob), associated)


def by_cbc_and_hmac(key: bytes, mac_key: bytes, blob: bytes, associated: bytes) -> bytes:
    sealed, tag = blob[:-32], blob[-32:]
    assert hmac.digest(mac_key, sha256(associated).digest() + sealed, "sha256") == tag
    padded = Cipher(AES(key), CBC(sealed[:16])).decryptor().update(sealed[16:])
    return padded[: -padded[-1]]


ORACLES: dict[str, tuple[Callable[[bytes, bytes, bytes, bytes], bytes], int]] = {
    "AES-256-GCM": (by_gcm, 61),
    "AES-KEY-WRAP-PAD": (by_kwp, 80),
    "AES-KW": (by_kw, 80),
    "AES-256-CBC-HMAC-SHA256": (by_cbc_and_hmac, 96),
}


async def key_bytes(provider: Pkcs11Provider, name: str, key_type: KeyType) -> bytes:
    def read(_: Device, held: Held) -> bytes:
        return bytes(held.key(name, key_type)[Attribute.VALUE])

    return await provider.on_session(read)


@pytest.mark.parametrize("mechanism", ORACLES)
async def test_a_wrap_is_what_the_specification_says(token: ServedSoftHsm, mechanism: str) -> None:
    oracle, length = ORACLES[mechanism]
    label = f"open {mechanism}"
    token.order("generate", label, "0a", "--mac", "--extractable")
    provider = TokenRig(token, kek=label, mechanism=mechanism).make()
    assert isinstance(provider, Pkcs11Provider)
    key = os.urandom(32)
    wrapped = await provider.wrap_key(key, CONTEXT)
    assert (wrapped.kek, wrapped.mechanism, len(wrapped.blob)) == (f"{label}#0a", mechanism, length)
    kek = await key_bytes(provider, wrapped.kek, KeyType.AES)
    mac_key = await key_bytes(provider, wrapped.kek, KeyType.GENERIC_SECRET)
    assert oracle(kek, mac_key, wrapped.blob, CONTEXT.authenticated()) == key

    value = await provider.encrypt(b"a small value", b"of a caller")
    assert oracle(kek, mac_key, value.blob, b"KSV\x01of a caller") == b"a small value"
    await provider.close()


async def test_a_value_is_never_taken_for_a_wrap(token: ServedSoftHsm) -> None:
    provider = TokenRig(token).make()
    encrypting = provider.capability(Encrypts)
    assert encrypting is not None
    forged = await encrypting.encrypt(os.urandom(32), CONTEXT.authenticated())
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    with pytest.raises(Tampered):
        await provider.unwrap_key(type(wrapped)(wrapped.provider, forged.kek, forged.mechanism, forged.blob), CONTEXT)
    await provider.close()


async def test_the_mechanism_of_the_row_unwraps_whatever_is_configured(token: ServedSoftHsm) -> None:
    old = TokenRig(token, mechanism="AES-KW").make()
    key = os.urandom(32)
    wrapped = await old.wrap_key(key, CONTEXT)
    await old.close()
    new = TokenRig(token).make()
    assert await new.unwrap_key(wrapped, CONTEXT) == key
    await new.close()


@pytest.mark.parametrize(
    "refusal",
    [
        ck.DataInvalid,
        ck.DataLenRange,
        ck.EncryptedDataInvalid,
        ck.EncryptedDataLenRange,
        ck.WrappedKeyInvalid,
        ck.GeneralError,
    ],
)
async def test_a_refusal_is_the_rows_fault_when_the_token_is_well_and_the_tokens_when_not(
    token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch, refusal: type[PKCS11Error]
) -> None:
    provider = TokenRig(token).make(retryPolicy={"maxRetries": 0})
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    ill = False
    good = Gcm.open

    def refusing(sealing: Gcm, session: Any, find: Any, blob: bytes, associated: bytes) -> bytearray:
        if ill or blob == wrapped.blob:
            raise refusal
        return good(sealing, session, find, blob, associated)

    monkeypatch.setattr(Gcm, "open", refusing)
    with pytest.raises(Tampered):
        await provider.unwrap_key(wrapped, CONTEXT)
    ill = True
    with pytest.raises(Unavailable, match=refusal.__name__):
        await provider.unwrap_key(wrapped, CONTEXT)
    monkeypatch.setattr(Gcm, "open", good)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32), "the token was opened anew"
    await provider.close()


async def test_another_key_of_the_token_chooses_no_data_keys(
    token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for identity in ("0a", "0b"):
        token.order("generate", "of others", identity)
    others = TokenRig(token, kek="of others").make()
    key = os.urandom(32)
    wrapped = await others.wrap_key(key, CONTEXT)
    await others.close()

    asked: list[str] = []
    good = Device.open

    def counting(device: Device, held: Held, name: str, *rest: Any) -> bytearray:
        asked.append(name)
        return good(device, held, name, *rest)

    monkeypatch.setattr(Device, "open", counting)
    for retired in ((), ("of", "of others too"), ("of others#0a",)):
        ours = TokenRig(token, retiredKeks=list(retired)).make()
        with pytest.raises(NotFound, match="retiredKeks"):
            await ours.unwrap_key(wrapped, CONTEXT)
        await ours.close()
    assert asked == []
    for entry in ("of others", "of others#0B"):
        ours = TokenRig(token, retiredKeks=[entry]).make()
        assert isinstance(ours, Pkcs11Provider)
        assert await ours.unwrap_key(wrapped, CONTEXT) == key
        with pytest.raises(InputRefused, match="data is lost"):
            await ours.delete_key("of others#0B")
        await ours.close()
    assert asked == ["of others#0b"] * 2


async def test_a_pinned_key_still_unwraps_for_its_label(token: ServedSoftHsm) -> None:
    token.order("generate", "pinned", "0a")
    token.order("generate", "pinned", "0b")
    old = TokenRig(token, kek="pinned#0A").make()
    key = os.urandom(32)
    wrapped = await old.wrap_key(key, CONTEXT)
    await old.close()
    new = TokenRig(token, kek="pinned#0b").make()
    assert await new.unwrap_key(wrapped, CONTEXT) == key
    await new.close()


class LunaKey:
    """An AES key of a Luna partition in FIPS mode: ignores the caller's IV and returns its own behind the tag."""

    def __init__(self, iv_bytes: int) -> None:
        self.aes = AESGCM(bytes(32))
        self.iv = os.urandom(iv_bytes)
        self.associated = b"associated"

    def encrypt(self, data: bytes, **_: Any) -> bytes:
        return self.aes.encrypt(self.iv, data, self.associated) + self.iv

    def decrypt(self, data: bytes, mechanism_param: bytes, **_: Any) -> bytes:
        pointer, length = int.from_bytes(mechanism_param[:8], "little"), int.from_bytes(mechanism_param[8:16], "little")
        assert pointer
        assert length == len(self.iv)
        return self.aes.decrypt(self.iv, data, self.associated)


@pytest.mark.parametrize("iv_bytes", [12, 16])
def test_an_iv_that_the_token_makes_is_kept(iv_bytes: int) -> None:
    gcm, key, session = Gcm("AES-256-GCM", 0x1087, LUNA), LunaKey(iv_bytes), object()
    blob = gcm.seal(session, lambda _: key, bytes(range(32)), b"associated")  # type: ignore[arg-type]  # GCM needs none
    assert blob[0] == iv_bytes
    assert blob[1 : 1 + iv_bytes] == key.iv
    assert len(blob) == 1 + iv_bytes + 32 + 16
    opened = gcm.open(session, lambda _: key, blob, b"associated")  # type: ignore[arg-type]  # as above
    assert opened == bytes(range(32))


def test_an_answer_of_another_length_is_no_ciphertext() -> None:
    for vendor, iv_bytes in ((LUNA, 8), (THALES, 16)):
        gcm, key = Gcm("AES-256-GCM", 0x1087, vendor), LunaKey(iv_bytes)
        with pytest.raises(PKCS11Error, match=f"{iv_bytes} bytes more"):
            gcm.seal(object(), lambda _, key=key: key, bytes(32), b"associated")  # type: ignore[arg-type,misc]  # as above


def test_makers_numbers_are_used_where_the_standard_ones_are_missing() -> None:
    by_luna = sealing("AES-KWP", {0x80000170, 0x80000171}, LUNA)
    assert isinstance(by_luna, KeyWrap)
    assert isinstance(by_luna.ckm, pkcs11.Mechanism)
    assert int(by_luna.ckm) == 0x80000171
    assert sealing("AES-KWP", {0x80000171}, THALES) is None
    standard = sealing("AES-KWP", {0x210B, 0x80000171}, LUNA)
    assert standard is not None
    assert standard.ckm is pkcs11.Mechanism.AES_KEY_WRAP_KWP
    assert ckm(0x80000170) == 0x80000170


def test_no_mechanism_without_authentication_is_ever_chosen() -> None:
    cbc_alone = {int(pkcs11.Mechanism.AES_CBC), int(pkcs11.Mechanism.AES_CBC_PAD), int(pkcs11.Mechanism.AES_ECB)}
    assert all(sealing(name, cbc_alone, vendor) is None for name in PREFERENCE for vendor in VENDORS.values())
