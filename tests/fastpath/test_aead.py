"""AES-256-GCM and blind indexes against NIST's vectors, `cryptography` and the standard library."""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import aead, memory

pytestmark = pytest.mark.usefixtures("arena")

KEY = bytes(range(32))
NONCE = bytes(range(100, 112))
PER_GROUP = 15  # NIST's files hold 15 messages for each combination of lengths
LENGTHS = 25  # and 25 combinations of plaintext and associated data for each of nonce and tag

Vector = dict[str, bytes | None]


def nist(name: str) -> Iterator[Vector]:
    """Vectors with 96-bit nonces and 128-bit tags of a NIST CAVP file (CAVS 14.0, GCM, 256-bit keys); FAIL: no PT."""
    group: dict[str, str] = {}
    vector: Vector = {}
    with cryptography_vectors.open_vector_file(f"ciphers/AES/GCM/{name}", "r") as file:
        for line in [*file, ""]:
            field, _, value = line.strip().strip("[]").partition("=")
            field, value = field.strip(), value.strip()
            if line.startswith("["):
                group[field] = value
            elif field == "FAIL":
                vector["PT"] = None
            elif field and not field.startswith("#") and field != "Count":
                vector[field] = bytes.fromhex(value)
            elif not field and vector:
                if group["IVlen"] == "96" and group["Taglen"] == "128":
                    yield vector
                vector = {}


def field(vector: Vector, name: str) -> bytes:
    value = vector[name]
    assert value is not None
    return value


def test_seal_gives_nists_answers() -> None:
    count = 0
    for vector in nist("gcmEncryptExtIV256.rsp"):
        sealed = aead.AesGcm256(field(vector, "Key")).seal(*(field(vector, name) for name in ("IV", "AAD", "PT")))
        assert sealed == field(vector, "CT") + field(vector, "Tag")
        count += 1
    assert count == PER_GROUP * LENGTHS


def test_open_gives_nists_answers_and_refusals() -> None:
    refused = 0
    count = 0
    for vector in nist("gcmDecrypt256.rsp"):
        cipher = aead.AesGcm256(field(vector, "Key"))
        sealed = field(vector, "CT") + field(vector, "Tag")
        if vector["PT"] is None:
            with pytest.raises(aead.TagMismatch):
                cipher.open(field(vector, "IV"), field(vector, "AAD"), sealed)
            refused += 1
        else:
            assert cipher.open(field(vector, "IV"), field(vector, "AAD"), sealed) == vector["PT"]
        count += 1
    assert count == PER_GROUP * LENGTHS
    assert refused > 100


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["seal", "open", "open forged"]),
        st.binary(min_size=12, max_size=12),
        st.binary(max_size=300),
        st.binary(max_size=5000),
    ),
    max_size=12,
)


@given(st.binary(min_size=32, max_size=32), MESSAGES)
@settings(max_examples=200, deadline=None)
def test_one_context_agrees_with_cryptography_in_any_order_of_calls(
    key: bytes, messages: list[tuple[str, bytes, bytes, bytes]]
) -> None:
    # a context goes other ways when it repeats a direction than when it turns round
    ours, theirs = aead.AesGcm256(key), AESGCM(key)
    for call, nonce, aad, plain in messages:
        sealed = theirs.encrypt(nonce, plain, aad)
        if call == "seal":
            assert ours.seal(nonce, aad, plain) == sealed
        elif call == "open":
            assert ours.open(nonce, aad, sealed) == plain
        else:
            with pytest.raises(aead.TagMismatch):
                ours.open(nonce, aad, sealed[:-1] + bytes([sealed[-1] ^ 1]))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 64, 4095, 4096, 65_537, 3_000_001])
@pytest.mark.parametrize("aad", [b"", b"a", b"c" * 1000])
def test_every_length_agrees_with_cryptography(n: int, aad: bytes) -> None:
    plain = os.urandom(n)
    sealed = aead.AesGcm256(KEY).seal(NONCE, aad, plain)
    assert sealed == AESGCM(KEY).encrypt(NONCE, plain, aad)
    assert aead.AesGcm256(KEY).open(NONCE, aad, sealed) == plain


def test_any_flipped_bit_is_refused() -> None:
    cipher = aead.AesGcm256(KEY)
    good = [NONCE, b"column", cipher.seal(NONCE, b"column", b"0123456789abcdefXYZ")]
    for part, whole in enumerate(good):
        for bit in range(len(whole) * 8):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(aead.TagMismatch):
                cipher.open(*(bytes(changed) if i == part else other for i, other in enumerate(good)))
    assert cipher.open(*good) == b"0123456789abcdefXYZ"


def test_any_truncation_or_extension_is_refused() -> None:
    cipher = aead.AesGcm256(KEY)
    sealed = cipher.seal(NONCE, b"", b"thirty bytes of plain text ...")
    for changed in [*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(aead.TagMismatch):
            cipher.open(NONCE, b"", changed)


def test_another_key_is_refused() -> None:
    sealed = aead.AesGcm256(KEY).seal(NONCE, b"", b"text")
    with pytest.raises(aead.TagMismatch):
        aead.AesGcm256(bytes(32)).open(NONCE, b"", sealed)


@pytest.mark.parametrize("n", [0, 16, 31, 33, 64])
def test_only_256_bit_keys_are_taken(n: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        aead.AesGcm256(bytes(n))
    with pytest.raises(ValueError, match="32 bytes"):
        aead.BlindIndexKey(bytes(n))


@pytest.mark.parametrize("n", [0, 11, 13, 16])
def test_only_96_bit_nonces_are_taken(n: int) -> None:
    cipher = aead.AesGcm256(KEY)
    with pytest.raises(ValueError, match="12 bytes"):
        cipher.seal(bytes(n), b"", b"")
    with pytest.raises(ValueError, match="12 bytes"):
        cipher.open(bytes(n), b"", bytes(16))


def test_buffers_of_every_kind_are_taken_and_nothing_else() -> None:
    cipher = aead.AesGcm256(bytearray(KEY))
    sealed = cipher.seal(memoryview(NONCE), bytearray(b"a"), memoryview(b"xtextx")[1:5])
    assert cipher.open(bytearray(NONCE), memoryview(b"a"), bytearray(sealed)) == b"text"
    with pytest.raises(TypeError):
        cipher.seal(NONCE, b"", "text")  # type: ignore[arg-type]  # what a caller may get wrong
    with pytest.raises(TypeError):
        cipher.seal(NONCE, None, b"")  # type: ignore[arg-type]  # what a caller may get wrong


def test_a_context_seals_and_opens_by_turns_whatever_came_before(probe: ModuleType) -> None:
    ours, theirs = probe.Cipher(), AESGCM(KEY)
    assert ours.rekey(KEY) == 0
    nonce = os.urandom(12)
    sealed = theirs.encrypt(nonce, b"first message", b"aad")
    wrong = bytes(16)
    for _ in range(3):
        assert ours.seal(nonce, b"aad", b"first message") == (0, sealed[:-16], sealed[-16:])
        # the tag that the context holds from sealing must not vouch for this one
        assert ours.open(nonce, b"aad", sealed[:-16], wrong)[0] == -1
        assert ours.open(nonce, b"aad", sealed[:-16], sealed[-16:]) == (0, b"first message")
        assert ours.open(nonce, b"aaX", sealed[:-16], sealed[-16:])[0] == -1
        assert ours.seal(nonce, b"", b"")[1:] == (b"", theirs.encrypt(nonce, b"", b""))


def test_a_new_key_replaces_the_old_one_at_once(probe: ModuleType) -> None:
    ours = probe.Cipher()
    for key in (KEY, bytes(32), os.urandom(32), KEY):
        assert ours.rekey(key) == 0
        assert b"".join(ours.seal(NONCE, b"", b"text")[1:]) == AESGCM(key).encrypt(NONCE, b"text", b"")


def test_a_context_without_a_key_does_nothing(probe: ModuleType) -> None:
    assert probe.Cipher().seal(NONCE, b"", b"text")[0] == -1
    assert probe.Cipher().open(NONCE, b"", b"text", bytes(16))[0] == -1


@pytest.mark.parametrize("n", [0, 1, 64, 5000])
def test_what_was_not_authentic_is_wiped(probe: ModuleType, n: int) -> None:
    ours = probe.Cipher()
    ours.rekey(KEY)
    assert ours.open(NONCE, b"", bytes(n), bytes(16)) == (-1, bytes(n))


@pytest.mark.parametrize(
    ("aad", "n"), [(1 << 31, 0), (0, 1 << 31), ((1 << 64) - 1, 1), (1, (1 << 64) - 1), (1 << 32, 0)]
)
def test_lengths_that_openssl_cannot_hold_are_refused(probe: ModuleType, aad: int, n: int) -> None:
    ours = probe.Cipher()
    ours.rekey(KEY)
    assert ours.lengths(aad, n) == (-1, -1)


def test_nonces_never_repeat(probe: ModuleType) -> None:
    # several refills of a pool of 1,024, and several pools, as several workers have them
    drawn = [nonce for _ in range(3) for nonce in probe.nonces(5000)]
    assert {len(nonce) for nonce in drawn} == {12}
    assert len(set(drawn)) == len(drawn)
    ones = sum(int.from_bytes(nonce, "big").bit_count() for nonce in drawn)
    expected = len(drawn) * 96 / 2
    assert abs(ones - expected) < 6 * (len(drawn) * 96 / 4) ** 0.5


def test_random_bytes_fill_and_refuse_what_openssl_cannot_count(probe: ModuleType) -> None:
    into = bytearray(64)
    assert probe.random(64, into) == 0
    assert into.count(0) < 16
    assert probe.random(1 << 31, into) == -1


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=3000)), min_size=1, max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_blind_indexes_agree_with_the_standard_library(key: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    ours = aead.BlindIndexKey(key)
    for context, value in pairs:
        message = len(context).to_bytes(4, "big") + context + value
        assert ours.index(context, value) == hmac.digest(key, message, hashlib.sha256)


def test_blind_indexes_of_one_context_do_not_depend_on_order(probe: ModuleType) -> None:
    pairs = [(b"c" * i, b"v" * (100 - i)) for i in range(100)]
    forward = probe.indexes(KEY, pairs)
    assert forward == probe.indexes(KEY, pairs[::-1])[::-1]
    assert len(set(forward)) == 100


def test_threads_with_their_own_contexts_do_not_disturb_each_other() -> None:
    def work(seed: int) -> int:
        key = bytes([seed]) * 32
        ours, theirs = aead.AesGcm256(key), AESGCM(key)
        plain = bytes([seed]) * 200
        return sum(
            ours.seal(i.to_bytes(12, "big"), b"", plain) != theirs.encrypt(i.to_bytes(12, "big"), plain, b"")
            for i in range(300)
        )

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(12))) == 0


def test_openssl_is_private_to_its_module() -> None:
    listed = subprocess.run(["nm", "-D", "--defined-only", aead.__file__], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert {name for name in symbols if not name.startswith("__")} == {"PyInit_aead"}
    needed = subprocess.run(["readelf", "-d", aead.__file__], capture_output=True, text=True, check=True)
    assert "libcrypto" not in needed.stdout


def test_pythons_own_ssl_works_beside_it() -> None:
    assert len(ssl.RAND_bytes(16)) == 16
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(received, sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    assert sent.read()[:2] == b"\x16\x03"
    # SHA-256 of nothing, FIPS 180-4
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hashlib.sha256(b"", usedforsecurity=True).hexdigest() == nothing


def test_a_full_arena_refuses_another_key_and_recovers(arena: memory.MemoryReport) -> None:
    held: list[aead.AesGcm256] = []
    with pytest.raises(MemoryError, match="secret arena"):
        held.extend(aead.AesGcm256(KEY) for _ in range(arena.heap_bytes // 256))
    sealed = held[0].seal(NONCE, b"", b"still at work") if held else b""
    held.clear()
    assert aead.AesGcm256(KEY).open(NONCE, b"", sealed) == b"still at work"


def test_a_full_arena_fails_what_allocates_and_nothing_else(probe: ModuleType, arena: memory.MemoryReport) -> None:
    cipher, index = aead.AesGcm256(KEY), aead.BlindIndexKey(KEY)
    expected = cipher.seal(NONCE, b"", b"x")
    held = []
    for n in (100_000, 9000, 2000, 500, 100, 10):
        while block := probe.malloc(n):
            held.append(block)
    try:
        # sealing allocates nothing; a thread that never drew a nonce must make its generator first
        assert cipher.seal(NONCE, b"", b"x") == expected
        with ThreadPoolExecutor(1) as pool, pytest.raises(MemoryError):
            pool.submit(probe.nonces, 1).result()
    finally:
        for block in held:
            probe.release(block)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(probe.nonces, 1).result()) == 1
    assert index.index(b"", b"x") == hmac.digest(KEY, bytes(4) + b"x", hashlib.sha256)
