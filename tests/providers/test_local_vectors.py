"""LOCAL against wrap.json, and its mechanisms against NIST's vectors and a key wrap written out from RFC 5649."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from providers import (
    CredentialsInvalid,
    ForeignWrap,
    NotFound,
    ProviderError,
    Tampered,
    WrapContext,
    WrappedKey,
    create,
)
from providers.local.kek import Kek
from providers.local.mechanisms import gcm_open, gcm_seal, kwp_open, kwp_seal
from providers.local.passphrase import derive_root_key
from providers.local.root_key import parse_root_key
from tests.twin import wrap

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "wrap.json").read_text())
ROOT = bytearray.fromhex(DOCUMENT["root"])
REFUSALS: dict[str, type[ProviderError]] = {"TAMPERED": Tampered, "NOT_FOUND": NotFound, "FOREIGN_WRAP": ForeignWrap}
FILE = Path("root.key")

AUTHENTICATED = st.binary(min_size=15, max_size=207)
KEYS = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("case", DOCUMENT["unwrap"], ids=lambda case: f"{case['mechanism']}: {case['comment']}")
async def test_unwrap_vectors(case: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "root.key").write_text(DOCUMENT["root_key_files"][0]["file"])
    (tmp_path / "root.key").chmod(0o600)
    provider = create({"provider": "LOCAL", "keyFile": "root.key"}, tmp_path)
    context = WrapContext(int(case["data_key_id"], 16), case["keyring"], case["partition"], case["purpose"])
    wrapped = WrappedKey("LOCAL", case["kek"], case["mechanism"], bytes.fromhex(case["blob"]))
    if case["expect"] == "ok":
        assert (await provider.unwrap_key(wrapped, context)).hex() == case["key"]
    else:
        with pytest.raises(REFUSALS[case["expect"]]):
            await provider.unwrap_key(wrapped, context)
    await provider.close()


@pytest.mark.parametrize("case", DOCUMENT["root_key_files"], ids=lambda case: case["comment"])
def test_root_key_file_vectors(case: dict[str, Any]) -> None:
    content = bytearray(case["file"].encode("latin-1"))
    if case["expect"] == "ok":
        root = parse_root_key(content, FILE)
        assert root.hex() == case["root"]
        assert Kek(root).id == case["kek"]
    else:
        with pytest.raises(CredentialsInvalid, match=r"root\.key"):
            parse_root_key(content, FILE)


@pytest.mark.parametrize("case", DOCUMENT["passphrase_key_files"], ids=lambda case: case["comment"])
def test_passphrase_key_file_vectors(case: dict[str, Any]) -> None:
    content, passphrase = bytearray(case["file"].encode()), bytearray(case["passphrase"].encode())
    if case["expect"] == "ok":
        assert derive_root_key(content, passphrase, FILE).hex() == case["root"]
    else:
        with pytest.raises(CredentialsInvalid, match=r"root\.key"):
            derive_root_key(content, passphrase, FILE)


@given(KEYS, KEYS, AUTHENTICATED)
def test_the_twin_unwraps_what_local_wraps(root: bytes, key: bytes, bound: bytes) -> None:
    kek = Kek(bytearray(root))
    assert kek.id == wrap.kek(root)
    assert wrap.gcm_unwrap(root, kek.wrap("AES-256-GCM", key, bound), bound) == key
    assert wrap.kwp_wrap(root, key, bound) == kek.wrap("AES-KWP", key, bound)


@given(KEYS, st.binary(max_size=100), st.binary(max_size=40))
def test_values_are_encrypted_under_a_key_of_their_own(root: bytes, value: bytes, associated: bytes) -> None:
    blob = Kek(bytearray(root)).encrypt(value, associated)
    own = wrap.hkdf_expand(root, "keyside local v1 encrypt AES-256-GCM")
    assert AESGCM(own).decrypt(blob[:12], blob[12:], associated) == value


def _nist(folder: str, name: str) -> Iterator[dict[str, str]]:
    """The records of a CAVP response file: `NAME = hex` lines, a blank line between records, FAIL on its own."""
    record: dict[str, str] = {}
    for line in (Path(cryptography_vectors.__file__).parent / folder / name).read_text().splitlines():
        if line.strip():
            key, _, value = line.strip().partition("=")
            record[key.strip()] = value.strip()
        elif record:
            yield record
            record = {}
    if record:
        yield record


@pytest.mark.parametrize("name", ["KWP_AE_256.txt", "KWP_AD_256.txt"])
def test_kwp_twin_passes_nist_vectors(name: str) -> None:
    """The twin passes NIST's vectors, and LOCAL agrees with the twin: so LOCAL is held to them too."""
    cases = [record for record in _nist("keywrap/kwtestvectors", name) if "K" in record and len(record["C"]) > 32]
    refused = 0
    for record in cases:
        key, blob = bytes.fromhex(record["K"]), bytes.fromhex(record["C"])
        if "FAIL" in record:
            refused += 1
            with pytest.raises(wrap.RefusedError):
                wrap.kwp_open(key, blob)
        else:
            payload = bytes.fromhex(record["P"])
            assert wrap.kwp_open(key, blob) == payload
            assert wrap.kwp_seal(key, payload) == blob
    assert len(cases) >= 300
    assert (refused > 0) is (name == "KWP_AD_256.txt")


@pytest.mark.parametrize("name", ["KWP_AD_256.txt", "KWP_AD_256_inv.txt"])
def test_kwp_refuses_what_nist_says_must_fail(name: str) -> None:
    failing = [record for record in _nist("keywrap/kwtestvectors", name) if "FAIL" in record]
    for record in failing:
        with pytest.raises(Tampered):
            kwp_open(bytearray.fromhex(record["K"]), bytes.fromhex(record["C"]), b"any context")
    assert len(failing) > 50


@given(KEYS, KEYS, AUTHENTICATED)
def test_kwp_agrees_with_rfc_5649_written_out(key: bytes, secret: bytes, bound: bytes) -> None:
    blob = kwp_seal(bytearray(key), secret, bound)
    assert wrap.kwp_open(key, blob)[32:] == secret
    assert kwp_open(bytearray(key), blob, bound) == secret


def test_kwp_refuses_a_payload_shorter_than_a_digest() -> None:
    key = os.urandom(32)
    with pytest.raises(Tampered):
        kwp_open(bytearray(key), wrap.kwp_seal(key, b"short secret"), b"context")


def test_gcm_open_passes_nist_vectors() -> None:
    passed = refused = 0
    for record in _nist("ciphers/AES/GCM", "gcmDecrypt256.rsp"):
        if len(record.get("IV", "")) != 24 or len(record.get("Tag", "")) != 32:
            continue
        key, blob = bytearray.fromhex(record["Key"]), bytes.fromhex(record["IV"] + record["CT"] + record["Tag"])
        if "FAIL" in record:
            refused += 1
            with pytest.raises(Tampered):
                gcm_open(key, blob, bytes.fromhex(record["AAD"]))
        else:
            passed += 1
            assert gcm_open(key, blob, bytes.fromhex(record["AAD"])).hex() == record["PT"]
    assert passed > 100
    assert refused > 100


def test_gcm_nonces_are_fresh() -> None:
    key = bytearray(os.urandom(32))
    assert len({gcm_seal(key, b"", b"")[:12] for _ in range(1000)}) == 1000


def test_the_mechanisms_do_not_share_a_key() -> None:
    kek = Kek(ROOT)  # held on to: it wipes its keys when it is dropped
    held = vars(kek)
    keys = [*held["_wrapping"].values(), held["_values"], ROOT]
    assert len({bytes(key) for key in keys}) == 4
