"""Making, bringing in, using and destroying keys; the other operations of the interface."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.exceptions import DeviceError

from providers import (
    Capability,
    InputRefused,
    KeySpecification,
    NotFound,
    Signature,
    Tampered,
    Timeout,
    Unavailable,
    WrapContext,
)
from providers.pkcs11 import keys
from providers.pkcs11.device import Device, Held
from providers.pkcs11.keys import find_key
from providers.pkcs11.material import Material
from providers.pkcs11.provider import Pkcs11Provider
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import ServedSoftHsm

CONTEXT = WrapContext(7, "users", "42", "index")
SHUT = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
}


@pytest_asyncio.fixture
async def provider(token: ServedSoftHsm) -> AsyncIterator[Pkcs11Provider]:
    provider = TokenRig(token, performance={"requestTimeout": 30_000}).make()
    assert isinstance(provider, Pkcs11Provider)
    yield provider
    await provider.close()


async def attributes(
    provider: Pkcs11Provider, name: str, kind: ObjectClass, key_type: KeyType
) -> dict[Attribute, object]:
    wanted = [*SHUT, Attribute.LOCAL, Attribute.NEVER_EXTRACTABLE, Attribute.ENCRYPT, Attribute.WRAP]

    def read(_: Device, held: Held) -> dict[Attribute, object]:
        key = find_key(held.session, name, key_type, kind)
        possible = wanted if kind is ObjectClass.SECRET_KEY else wanted[:-2]
        return {attribute: key[attribute] for attribute in possible}

    return await provider.on_session(read)


async def test_a_key_made_in_the_token_stays_there_and_does_one_thing(
    provider: Pkcs11Provider, token: ServedSoftHsm
) -> None:
    made = await provider.generate_key(KeySpecification("generated", "wrap", "AES-256"))
    found = await attributes(provider, made.key, ObjectClass.SECRET_KEY, KeyType.AES)
    assert found == SHUT | {
        Attribute.LOCAL: True, Attribute.NEVER_EXTRACTABLE: True, Attribute.ENCRYPT: True, Attribute.WRAP: False,
    }  # fmt: skip
    user = TokenRig(token, kek="generated").make()
    key = os.urandom(32)
    wrapped = await user.wrap_key(key, CONTEXT)
    assert wrapped.kek == made.key
    assert await user.unwrap_key(wrapped, CONTEXT) == key
    await user.close()


async def test_the_first_key_is_made_on_a_token_without_one(token: ServedSoftHsm) -> None:
    provider = TokenRig(token, kek="the very first").make()
    assert isinstance(provider, Pkcs11Provider)
    with pytest.raises(NotFound):
        await provider.initialize()
    made = await provider.generate_key(KeySpecification("the very first", "wrap", "AES-256"))
    await provider.initialize()
    assert provider.describe().kek == made.key
    await provider.close()


async def test_the_newest_of_a_label_wraps_and_a_whole_name_picks_one(
    provider: Pkcs11Provider, token: ServedSoftHsm
) -> None:
    older = await provider.generate_key(KeySpecification("several", "wrap", "AES-256"))
    newer = await provider.generate_key(KeySpecification("several", "wrap", "AES-256"))
    for kek, expected in (("several", newer.key), (older.key, older.key)):
        user = TokenRig(token, kek=kek).make()
        assert (await user.wrap_key(os.urandom(32), CONTEXT)).kek == expected
        await user.close()


async def test_a_key_brought_in_is_that_key_and_shut(provider: Pkcs11Provider, token: ServedSoftHsm) -> None:
    original = os.urandom(32)
    material = bytearray(original)
    brought = await provider.import_key(KeySpecification("imported", "wrap", "AES-256"), material)
    assert material == bytes(32), "wiped"
    found = await attributes(provider, brought.key, ObjectClass.SECRET_KEY, KeyType.AES)
    assert found[Attribute.EXTRACTABLE] is False
    assert found[Attribute.SENSITIVE] is True
    assert (found[Attribute.LOCAL], found[Attribute.NEVER_EXTRACTABLE]) == (False, False), "it was outside once"

    user = TokenRig(token, kek="imported").make()
    key = os.urandom(32)
    wrapped = await user.wrap_key(key, CONTEXT)
    await user.close()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert AESGCM(original).decrypt(wrapped.blob[1:13], wrapped.blob[13:], CONTEXT.authenticated()) == key


async def test_a_caller_who_gives_up_never_brings_in_zeros(
    token: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TokenRig(token).make(requestTimeout=300)
    assert isinstance(provider, Pkcs11Provider)
    await provider.initialize()
    used: list[bytes] = []
    let_go, good = threading.Event(), keys.import_wrapping_key

    def slow(session: Any, label: str, mechanism: Any, material: bytearray) -> str:
        let_go.wait(10)
        used.append(bytes(material))
        return good(session, label, mechanism, material)

    monkeypatch.setattr(keys, "import_wrapping_key", slow)
    original = os.urandom(32)
    material = bytearray(original)
    with pytest.raises(Timeout):
        await provider.import_key(KeySpecification("given up", "wrap", "AES-256"), material)
    assert material == bytes(32)
    let_go.set()
    await provider.close()
    assert used == [original]


def test_material_is_wiped_by_whoever_is_last() -> None:
    material = Material(bytearray(b"key"))
    with material.in_use() as secret:
        assert secret == b"key"
    with material.in_use() as again:
        assert again is secret
        material.give_up()
        assert secret == b"key", "in use"
    assert secret == bytes(3)
    with pytest.raises(Unavailable), material.in_use():
        pass


@pytest.mark.parametrize(
    ("specification", "length"),
    [
        (KeySpecification("x", "wrap", "AES-256"), 31),
        (KeySpecification("x", "wrap", "AES-128"), 16),
        (KeySpecification("x", "sign", "EC-P256"), 32),
    ],
)
async def test_other_material_is_refused_and_wiped(
    provider: Pkcs11Provider, specification: KeySpecification, length: int
) -> None:
    material = bytearray(os.urandom(length))
    with pytest.raises(InputRefused):
        await provider.import_key(specification, material)
    assert material == bytes(length)


async def test_deleting(provider: Pkcs11Provider, token: ServedSoftHsm) -> None:
    made = await provider.generate_key(KeySpecification("doomed", "sign", "EC-P256"))
    await provider.delete_key(made.key)
    assert token.order("count", "doomed", made.key.partition("#")[2]) == "0", "both halves are gone"
    for name in (made.key, "no such key", "doomed#zz", "#00"):
        with pytest.raises(NotFound):
            await provider.delete_key(name)
    kek = provider.describe().kek
    assert kek is not None
    with pytest.raises(InputRefused, match="in use"):
        await provider.delete_key(kek)


async def test_no_spelling_of_its_name_destroys_the_key_in_use(token: ServedSoftHsm) -> None:
    token.order("generate", "guarded", "01a2")
    for kek in ("guarded", "guarded#01A2"):
        provider = TokenRig(token, kek=kek).make()
        assert isinstance(provider, Pkcs11Provider)
        await provider.initialize()
        assert provider.describe().kek == "guarded#01a2"
        for name in ("guarded#01a2", "guarded#01A2"):
            with pytest.raises(InputRefused, match="in use"):
                await provider.delete_key(name)
        for name in ("guarded#01 a2", "guarded# 01a2", "guarded#01a2 ", "guarded#01a2\n", "guarded#1a2"):
            with pytest.raises(NotFound, match="names no key"):
                await provider.delete_key(name)
        await provider.close()
    assert token.order("count", "guarded", "01a2") == "1"


async def test_the_key_that_takes_over_next_is_kept_too(token: ServedSoftHsm) -> None:
    token.order("generate", "taking over", "0a")
    provider = TokenRig(token, kek="taking over").make()
    assert isinstance(provider, Pkcs11Provider)
    await provider.initialize()
    token.order("generate", "taking over", "0b")
    for name in ("taking over#0a", "taking over#0b"):
        with pytest.raises(InputRefused, match="in use"):
            await provider.delete_key(name)
    successor = TokenRig(token, kek="taking over").make()
    assert isinstance(successor, Pkcs11Provider)
    await successor.delete_key("taking over#0A")
    await successor.close()
    await provider.close()


PAIRS: Final = "AES-256-CBC-HMAC-SHA256"


class Breaking:
    """A session of a token that fails at one step, before it did it or after."""

    def __init__(self, session: Any, step: str, *, late: bool) -> None:
        self._session, self._step, self._late = session, step, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def generate_key(self, key_type: KeyType, *arguments: Any, **named: Any) -> Any:
        return self._broken(key_type.name, self._session.generate_key, key_type, *arguments, **named)

    def generate_keypair(self, *arguments: Any, **named: Any) -> Any:
        return self._broken("RSA", self._session.generate_keypair, *arguments, **named)

    def _broken(self, step: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if step == self._step and not self._late:
            raise DeviceError
        answer = call(*arguments, **named)
        if step == self._step:
            raise DeviceError
        return answer


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("importing", "step"), [(False, "AES"), (False, "GENERIC_SECRET"), (True, "GENERIC_SECRET"), (True, "RSA")]
)
async def test_a_pair_is_made_whole_or_not_at_all(
    provider: Pkcs11Provider, importing: bool, step: str, late: bool
) -> None:
    label = f"broken {importing} {step} {late}"

    def attempt(session: Any) -> str:
        if importing:
            return keys.import_wrapping_key(session, label, PAIRS, bytearray(32))
        return keys.generate_wrapping_key(session, label, PAIRS)

    def left(device: Device, _: Held) -> int:
        with device.token.open(rw=True) as session:
            with pytest.raises(DeviceError):
                attempt(Breaking(session, step, late=late))
            return len(list(session.get_objects({Attribute.LABEL: label})))

    await provider.initialize()
    assert await provider.on_session(left) == 0


async def test_half_a_pair_does_not_become_the_current_key(token: ServedSoftHsm) -> None:
    token.order("generate", "half", "0a", "--mac")
    before = TokenRig(token, kek="half", mechanism=PAIRS).make()
    wrapped = await before.wrap_key(bytes(32), CONTEXT)
    await before.close()
    token.order("generate", "half", "0b")  # and no MAC key
    after = TokenRig(token, kek="half", mechanism=PAIRS).make()
    assert await after.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert (await after.wrap_key(bytes(32), CONTEXT)).kek == "half#0a"
    await after.close()
    others = TokenRig(token, kek="half").make()
    assert (await others.wrap_key(bytes(32), CONTEXT)).kek == "half#0b", "AES-GCM needs no second key"
    await others.close()


async def test_a_label_with_nothing_but_halves_says_so(token: ServedSoftHsm) -> None:
    token.order("generate", "halves", "0a")
    provider = TokenRig(token, kek="halves", mechanism=PAIRS).make()
    with pytest.raises(NotFound, match="make a pair"):
        await provider.initialize()
    await provider.close()


@pytest.mark.parametrize(
    ("algorithm", "curve", "digest", "name"),
    [
        ("EC-P256", SECP256R1(), SHA256(), "ECDSA-P256-SHA256"),
        ("EC-P384", SECP384R1(), SHA384(), "ECDSA-P384-SHA384"),
    ],
)
async def test_signatures_are_what_others_verify(
    provider: Pkcs11Provider, algorithm: str, curve: SECP256R1 | SECP384R1, digest: SHA256 | SHA384, name: str
) -> None:
    made = await provider.generate_key(KeySpecification(f"signer {algorithm}", "sign", algorithm))
    found = await attributes(provider, made.key, ObjectClass.PRIVATE_KEY, KeyType.EC)
    assert found == SHUT | {Attribute.LOCAL: True, Attribute.NEVER_EXTRACTABLE: True}
    signature = await provider.sign(b"data", key=made.key)
    assert (signature.key, signature.algorithm) == (made.key, name)
    await provider.verify(b"data", signature)

    def point(_: Device, held: Held) -> bytes:
        octets = bytes(find_key(held.session, made.key, KeyType.EC, ObjectClass.PUBLIC_KEY)[Attribute.EC_POINT])
        return octets[2:] if octets[1] < 0x80 else octets[3:]  # an OCTET STRING

    public = EllipticCurvePublicKey.from_encoded_point(curve, await provider.on_session(point))
    public.verify(signature.blob, b"data", ECDSA(digest))
    with pytest.raises(InvalidSignature):
        public.verify(signature.blob, b"date", ECDSA(digest))

    forgeries = [
        (b"date", signature),
        (b"data", Signature(made.key, "ECDSA-P521-SHA512", signature.blob)),
        (b"data", Signature(made.key, name, signature.blob[:-1])),
        (b"data", Signature(made.key, name, b"")),
        (b"data", Signature(made.key, name, signature.blob[:-1] + bytes([signature.blob[-1] ^ 1]))),
    ]
    for data, forged in forgeries:
        with pytest.raises(Tampered):
            await provider.verify(data, forged)


async def test_a_key_that_cannot_sign(provider: Pkcs11Provider) -> None:
    kek = provider.describe().kek or "keyside#00000001"
    with pytest.raises(NotFound):
        await provider.sign(b"data", key=kek)
    with pytest.raises(InputRefused):
        await provider.generate_key(KeySpecification("x", "sign", "EC-P521"))
    with pytest.raises(InputRefused):
        await provider.generate_key(KeySpecification("x", "wrap", "AES-128"))


async def test_sessions_beside_the_pool(provider: Pkcs11Provider) -> None:
    first, second = await provider.create_session(), await provider.create_session()
    assert first.handle != second.handle
    await provider.close_session(first)
    await provider.close_session(first)
    await provider.close_session(second)
    assert await provider.wrap_key(bytes(32), CONTEXT), "closing them logged nobody out"


async def test_what_this_process_did_is_its_audit_log(provider: Pkcs11Provider) -> None:
    began = datetime.now(UTC)
    await provider.wrap_key(bytes(32), CONTEXT)
    with pytest.raises(NotFound):
        await provider.delete_key("no such key#00")
    records = await provider.get_audit_logs(began, began + timedelta(minutes=1))
    assert [(record.operation, record.succeeded, record.source) for record in records] == [
        ("wrap_key", True, "sidecar"),
        ("delete_key", False, "sidecar"),
    ]


async def test_compliance_is_read_from_the_token(provider: Pkcs11Provider, token: ServedSoftHsm) -> None:
    info = await provider.get_compliance_info()
    assert "SoftHSM" in info.key_storage
    assert "software" in info.key_storage
    assert (info.validated_to, info.extractable) == (None, False)
    assert any("generated inside" in note for note in info.notes)
    token.order("generate", "leaky", "0b", "--extractable")
    leaky = TokenRig(token, kek="leaky").make()
    assert isinstance(leaky, Pkcs11Provider)
    info = await leaky.get_compliance_info()
    assert info.extractable
    assert "has never been extractable: no" in info.notes
    await leaky.close()


async def test_all_sixteen_operations_are_there(provider: Pkcs11Provider) -> None:
    assert all(flag in provider.capabilities for flag in Capability)
    assert not provider.lacks
