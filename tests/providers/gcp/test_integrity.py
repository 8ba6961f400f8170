"""Damage on the way, in both directions, and answers of a liar: nothing of it is ever used."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest

from providers import ProviderError, Tampered, Unavailable, WrapContext
from providers.gcp import integrity
from tests.providers.gcp.rig import GcpRig

CONTEXT = WrapContext(7, "users", "42", "field")


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4, and the check value of the catalogue of CRCs
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_the_checksum_is_castagnolis(data: bytes, expected: int) -> None:
    assert integrity.checksum(data) == expected


@pytest.mark.parametrize("kind", ["crc", "no crc", "truncate", "flip", "unverified", "other key"])
async def test_a_damaged_wrap_is_made_again(rig: GcpRig, kind: str) -> None:
    provider = rig.make()
    await provider.initialize()
    rig.google.order("fault", method="Encrypt", kind=kind)
    key = os.urandom(32)
    wrapped = await provider.wrap_key(key, CONTEXT)
    assert await provider.unwrap_key(wrapped, CONTEXT) == key
    assert rig.google.order("seen")["calls"]["Encrypt"] == 3, "opening, the damaged one, the good one"
    await provider.close()


@pytest.mark.parametrize("kind", ["crc", "no crc", "truncate", "flip"])
async def test_a_damaged_unwrap_is_made_again(rig: GcpRig, kind: str) -> None:
    provider = rig.make()
    key = os.urandom(32)
    wrapped = await provider.wrap_key(key, CONTEXT)
    rig.google.order("fault", method="Decrypt", kind=kind)
    assert await provider.unwrap_key(wrapped, CONTEXT) == key
    assert rig.google.order("seen")["calls"]["Decrypt"] == 2
    await provider.close()


@pytest.mark.parametrize("method", ["Encrypt", "Decrypt"])
async def test_damage_that_lasts_is_an_error(rig: GcpRig, method: str) -> None:
    provider = rig.make(retryPolicy={"maxRetries": 2, "backoffMultiplier": 1})
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    rig.google.order("fault", method=method, kind="crc", count=99)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "Encrypt": lambda: provider.wrap_key(os.urandom(32), CONTEXT),
        "Decrypt": lambda: provider.unwrap_key(wrapped, CONTEXT),
    }
    with pytest.raises(Unavailable, match="checksum"):
        await calls[method]()
    await provider.close()


async def test_what_is_damaged_on_its_way_there_is_sent_again(rig: GcpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = rig.make()
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    sums = iter([1, 2])  # of ciphertext and associated data of the first attempt: not theirs
    good = integrity.checksum
    monkeypatch.setattr(integrity, "checksum", lambda data: next(sums, None) or good(data))
    assert await provider.unwrap_key(wrapped, CONTEXT)
    assert rig.google.order("seen")["calls"]["Decrypt"] == 2
    await provider.close()


@pytest.mark.parametrize(("kind", "expected"), [("short", Tampered), ("oversized", ProviderError)])
async def test_a_liar_is_not_believed(rig: GcpRig, kind: str, expected: type[ProviderError]) -> None:
    provider = rig.make(retryPolicy={"maxRetries": 1, "backoffMultiplier": 1})
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    rig.google.order("fault", method="Decrypt", kind=kind, count=9)
    with pytest.raises(expected):
        await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_a_wrap_under_a_key_that_is_not_ours_is_not_even_sent(rig: GcpRig) -> None:
    """Who can write the keystore must not bring in a data key of their own, wrapped under a key of their own."""
    theirs = rig.google.order("new_key", name=f"theirs-{os.urandom(4).hex()}")["name"]
    attacker = rig.made_of(rig.hsm() | {"kek": theirs})
    planted = await attacker.wrap_key(bytes(32), CONTEXT)
    await attacker.close()
    victim = rig.make()
    await victim.initialize()
    with pytest.raises(ProviderError, match="retiredKeks"):
        await victim.unwrap_key(planted, CONTEXT)
    assert "Decrypt" not in rig.google.order("seen")["calls"]
    await victim.close()


async def test_a_retired_key_still_unwraps(rig: GcpRig) -> None:
    old = rig.make()
    key = os.urandom(32)
    wrapped = await old.wrap_key(key, CONTEXT)
    await old.close()
    new = rig.google.order("new_key", name=f"new-{os.urandom(4).hex()}")["name"]
    provider = rig.made_of(rig.hsm() | {"kek": new, "retiredKeks": [rig.key.rpartition("/")[2]]})
    assert await provider.unwrap_key(wrapped, CONTEXT) == key
    assert (await provider.wrap_key(key, CONTEXT)).kek.startswith(new)
    await provider.close()


async def test_values_and_wraps_are_kept_apart(rig: GcpRig) -> None:
    """A wrap is no value: presented as one, with the very context it is bound to, it does not decrypt."""
    provider = rig.make()
    wrapped = await provider.wrap_key(os.urandom(32), CONTEXT)
    value = await provider.encrypt(b"x", b"")
    with pytest.raises(Tampered):
        await provider.decrypt(type(value)(wrapped.kek, value.mechanism, wrapped.blob), CONTEXT.authenticated())
    await provider.close()
