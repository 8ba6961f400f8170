"""Frames as an attacker sends them, through a real socket: the answer, the connection afterwards, and everyone else."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from keyside.testing import envelope, frames

from tests.fastpath.harness import (
    BAD_REQUEST,
    DECRYPT,
    ENCRYPT,
    FIELD,
    INDEX,
    Peer,
    Serving,
    serving,
)
from tests.vectors.generate import FOLDER
from tests.vectors.wire_vectors import unfold

WIRE = json.loads((FOLDER / "wire.json").read_text())
KEY = bytes(range(32))
MAX_FRAME = 8 << 20


class EveryScope(dict[str, list[tuple[int, int, bytes]]]):
    """A field key and an index key for any scope at all, ids from the name."""

    def get(self, scope: str, _: Any = None) -> list[tuple[int, int, bytes]]:
        n = int.from_bytes(hashlib.sha256(scope.encode()).digest()[:7], "big")
        return [(n, FIELD, KEY), (n | 1 << 63, INDEX, KEY)]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path, EveryScope(), max_frame=MAX_FRAME) as running:
        yield running


@pytest.fixture
def peer(plane: Serving) -> Iterator[Peer]:
    with plane.connect() as connected:
        yield connected


@pytest.mark.parametrize("case", WIRE["requests"], ids=lambda case: case["comment"])
def test_wire_vector_through_the_socket(peer: Peer, case: dict[str, Any]) -> None:
    peer.raw(unfold(case["frame"]))
    answer = peer.receive()
    if case["expect"] == "ok":
        assert answer[0] == case["request"]["id"]
        assert answer[1] in (0, 1)
        if case["request"]["op"]:
            assert len(answer[2]) == len(case["request"]["items"])
        assert peer.alive()
    else:
        assert answer[:2] == [case["id"], BAD_REQUEST]
        assert isinstance(answer[2], str)
        assert peer.closed() if case["closes"] else peer.alive()


@pytest.mark.parametrize("case", WIRE["first_bytes"], ids=lambda case: case["byte"])
def test_first_byte(plane: Serving, peer: Peer, case: dict[str, str]) -> None:
    before = plane.holder.count("http")
    garbage = plane.plane.stats()["closed_garbage"]
    peer.raw(bytes.fromhex(case["byte"]))
    if case["protocol"] == "none":
        assert peer.closed()
        assert plane.plane.stats()["closed_garbage"] == garbage + 1
    elif case["protocol"] == "http":
        deadline = time.monotonic() + 5
        while plane.holder.count("http") == before and time.monotonic() < deadline:
            time.sleep(0.001)
        event = plane.holder.seen[-1]
        assert event.kind == "http"
        with socket.socket(fileno=event.fd) as handed:
            assert handed.recv(10) == bytes.fromhex(case["byte"])
            handed.send(b"HTTP/1.1 200 OK")
            assert peer.socket.recv(100) == b"HTTP/1.1 200 OK"
    else:
        peer.raw(b"\0\0\x06" if case["byte"] == "00" else b"\xff\xff\xff")
        if case["byte"] == "00":
            peer.raw(bytes.fromhex("950700a0c090"))
            assert peer.receive()[:2] == [7, 0]
        else:
            assert peer.receive()[:2] == [0, BAD_REQUEST]


def test_a_request_cut_at_every_byte(plane: Serving) -> None:
    request = frames.build_request(9, ENCRYPT, "contacts", b"context", [b"value", None, "text", b""])
    for cut in range(1, len(request)):
        with plane.connect() as peer:
            peer.raw(request[:cut])
            time.sleep(0.0005)
            peer.raw(request[cut:])
            assert peer.receive()[:2] == [9, 0]


def test_a_request_that_never_ends_leaves_nothing_behind(plane: Serving) -> None:
    request = frames.build_request(9, ENCRYPT, "contacts", b"context", [b"value", None, "text", b""])
    for cut in range(1, len(request)):
        with plane.connect() as peer:
            peer.raw(request[:cut])
    settled(plane, "connections", 0)
    settled(plane, "buffer_bytes", 0)


def settled(plane: Serving, gauge: str, value: int) -> None:
    deadline = time.monotonic() + 5
    while plane.plane.stats()[gauge] != value:
        assert time.monotonic() < deadline, plane.plane.stats()[gauge]
        time.sleep(0.002)


def test_dribbling_byte_by_byte(plane: Serving, peer: Peer) -> None:
    requests = b"".join(frames.build_request(i, ENCRYPT, "contacts", None, [b"v" * i]) for i in range(10))
    for i in range(len(requests)):
        peer.raw(requests[i : i + 1])
    # the first may wait for its data key while later ones are answered
    assert sorted(peer.receive()[:2] for _ in range(10)) == [[i, 0] for i in range(10)]


def test_pipelined_requests_are_all_answered(peer: Peer) -> None:
    requests = b"".join(frames.build_request(i, ENCRYPT, "contacts", None, [b"v"]) for i in range(1000))
    peer.raw(requests)
    assert sorted(peer.receive()[0] for _ in range(1000)) == list(range(1000))


def test_a_frame_of_max_frame_exactly_and_one_byte_over(plane: Serving, peer: Peer) -> None:
    head = len(frames.build_request(1, ENCRYPT, "contacts", None, [b"x" * 70000])) - 4 - 70000
    value = b"x" * (MAX_FRAME - head)
    exact = frames.build_request(1, ENCRYPT, "contacts", None, [value])
    assert len(exact) == MAX_FRAME + 4
    peer.raw(exact)
    answer = peer.receive()
    assert answer[:2] == [1, 0]
    assert len(answer[2][0]) == len(value) + 38
    peer.raw(struct.pack(">I", MAX_FRAME + 1))
    assert peer.receive()[:2] == [0, BAD_REQUEST]
    assert peer.closed()


def test_as_many_items_as_are_allowed(peer: Peer) -> None:
    status, sealed = peer.call(ENCRYPT, "contacts", [b""] * 131072)
    assert status == 0
    assert len({bytes(e) for e in sealed}) == 131072
    status, values = peer.call(DECRYPT, "contacts", sealed)
    assert (status, values) == (0, [b""] * 131072)


def test_answers_to_what_came_before_a_broken_frame_are_given(plane: Serving) -> None:
    """Even when they do not fit into the socket's buffer and the reader is slow; then the connection ends."""
    amplified = frames.build_request(1, ENCRYPT, "contacts", None, [""] * 60_000)
    with plane.connect() as peer:
        assert peer.call(ENCRYPT, "contacts", [])[0] == 0
        peer.raw(amplified + b"\0\0\0\x01\xc1")
        time.sleep(0.1)
        request_id, status, items = peer.receive()
        assert (request_id, status, len(items)) == (1, 0, 60_000)
        assert peer.receive()[:2] == [0, BAD_REQUEST]
        assert peer.closed()


def test_a_request_that_waits_is_answered_after_a_broken_frame(plane: Serving, peer: Peer) -> None:
    plane.holder.answering.clear()
    peer.raw(frames.build_request(1, ENCRYPT, "contacts", None, [b"x"]) + b"\0\0\0\x01\xc1")
    assert peer.receive()[:2] == [0, BAD_REQUEST]
    plane.holder.answering.set()
    assert peer.receive()[:2] == [1, 0]
    assert peer.closed()


def test_requests_behind_a_broken_frame_are_not_served(plane: Serving, peer: Peer) -> None:
    before = plane.plane.stats()["requests"]["encrypt"]
    peer.raw(b"\0\0\0\x01\xc1" + frames.build_request(1, ENCRYPT, "contacts", None, [b"x"]) * 3)
    assert peer.receive()[:2] == [0, BAD_REQUEST]
    assert peer.closed()
    assert plane.plane.stats()["requests"]["encrypt"] == before


# Ciphertexts

KEYS = {
    "contacts": [(0xA1, FIELD, b"\x01" * 32), (0xA3, INDEX, b"\x03" * 32), (0xA2, FIELD, b"\x02" * 32)],
    "users/42": [(0xB1, FIELD, b"\x0b" * 32)],
    "users/43": [(0xC1, FIELD, b"\x0c" * 32)],
}
INVALID = 20


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path, KEYS) as running:
        yield running


def sealed(scope: str, number: int, plaintext: bytes, context: bytes = b"") -> bytes:
    key_id, _, key = KEYS[scope][number]
    return envelope.seal(key, key_id, bytes(range(12)), context, plaintext)


def test_a_bit_flipped_anywhere(holding: Serving) -> None:
    good = sealed("contacts", 0, b"some plaintext of 32 bytes......", b"c")
    broken = []
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        broken.append(bytes(changed))
    with holding.connect() as peer:
        for op in (DECRYPT, 4):
            # a flipped key id names a key that nobody has: UNKNOWN_KEY says no more than the id itself
            status, values = peer.call(op, "contacts", [*broken, good], b"c")
            assert status == 1
            for bit, value in enumerate(values[:-1]):
                assert value == (19 if 2 <= bit // 8 < 10 and names_no_key(broken[bit]) else INVALID), bit
            assert isinstance(values[-1], bytes)


def names_no_key(changed: bytes) -> bool:
    return int.from_bytes(changed[2:10], "big") not in {key_id for ring in KEYS.values() for key_id, _, _ in ring}


def test_truncation_at_every_length_and_bytes_added(holding: Serving) -> None:
    good = sealed("contacts", 0, b"plaintext", b"c")
    cuts = [good[:n] for n in range(len(good))] + [good + b"\0", b"\0" + good, good + good, good[:22] + good[23:]]
    with holding.connect() as peer:
        status, values = peer.call(DECRYPT, "contacts", [good, *cuts, None, good], b"c")
    assert status == 1
    assert values == [b"plaintext", *[INVALID] * len(cuts), None, b"plaintext"]


@pytest.mark.parametrize("cached", [True, False])
def test_another_scopes_ciphertext_is_no_ciphertext(holding: Serving, cached: bool) -> None:
    for key_id in (0xB1, 0xC1):
        holding.plane.evict(key_id)
    theirs, ours = sealed("users/43", 0, b"secret"), sealed("users/42", 0, b"mine")
    with holding.connect() as peer:
        if cached:
            assert peer.call(DECRYPT, "users/43", [theirs]) == [0, [b"secret"]]
            assert peer.call(DECRYPT, "users/42", [ours, theirs, ours]) == [1, [b"mine", INVALID, b"mine"]]
            assert peer.call(4, "users/42", [theirs]) == [1, [INVALID]]
        else:
            # the control plane is asked for the id in that scope, and refuses
            assert peer.call(DECRYPT, "users/42", [ours, theirs, ours]) == [1, [b"mine", INVALID, b"mine"]]


def test_the_index_key_never_opens_a_field(holding: Serving) -> None:
    forged = envelope.seal(b"\x03" * 32, 0xA3, bytes(12), b"", b"forged under the index key")
    with holding.connect() as peer:
        assert peer.call(3, "contacts", [b"value"])[0] == 0  # cached as an index key now
        assert peer.call(DECRYPT, "contacts", [forged]) == [1, [INVALID]]
        assert peer.call(4, "contacts", [forged]) == [1, [INVALID]]


def test_wrong_context(holding: Serving) -> None:
    good = sealed("contacts", 0, b"plaintext", b"context")
    none = sealed("contacts", 0, b"plaintext")
    with holding.connect() as peer:
        for wrong in (None, b"", b"contex", b"context2", b"Context", b"c" * 65535):
            assert peer.call(DECRYPT, "contacts", [good], wrong) == [1, [INVALID]]
        assert peer.call(DECRYPT, "contacts", [good] * 3, [b"x", b"context", None]) == [
            1,
            [INVALID, b"plaintext", INVALID],
        ]
        assert peer.call(DECRYPT, "contacts", [none] * 3, [b"", None, b"x"]) == [
            1,
            [b"plaintext", b"plaintext", INVALID],
        ]
        assert peer.call(DECRYPT, "contacts", [good], "context") == [0, [b"plaintext"]]


def test_a_forged_envelope_costs_its_batch_nothing(holding: Serving) -> None:
    good = [sealed("contacts", i % 3 // 2 * 2, b"row %d" % i) for i in range(300)]
    batch = [g if i % 7 else b"\xc1\x01" + g[2:-1] + b"\0" for i, g in enumerate(good)]
    with holding.connect() as peer:
        status, values = peer.call(DECRYPT, "contacts", batch)
    assert status == 1
    for i, value in enumerate(values):
        assert value == (b"row %d" % i if batch[i] == good[i] else INVALID)


def test_other_suites_and_plaintext_are_no_ciphertext(holding: Serving) -> None:
    good = sealed("contacts", 0, b"x" * 12)
    for junk in (b"\xc1\x02" + good[2:], b"\xc1\x00" + good[2:], b"\xc1\xff" + good[2:], b"plain text", b"", "ks1.wQE"):
        with holding.connect() as peer:
            assert peer.call(DECRYPT, "contacts", [junk]) == [1, [INVALID]]


@pytest.mark.parametrize("case", json.loads((FOLDER / "envelope.json").read_text())["open"], ids=lambda c: c["comment"])
def test_envelope_vector(vectors: Serving, case: dict[str, Any]) -> None:
    context = None if case["context"] is None else bytes.fromhex(case["context"])
    with vectors.connect() as peer:
        status, values = peer.call(DECRYPT, case["keyring"], [bytes.fromhex(case["envelope"])], context)
    if case["expect"] == "ok":
        assert (status, values) == (0, [bytes.fromhex(case["plaintext"])])
    else:
        assert (status, values) == (1, [frames.Code[case["expect"]]])


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[Serving]:
    """The keys of envelope.json, all cached from the beginning: an envelope under another scope's key then meets it."""
    document = json.loads((FOLDER / "envelope.json").read_text())
    keys: dict[str, list[tuple[int, int, bytes]]] = {}
    for key in document["keys"]:
        purpose = INDEX if key["purpose"] == "index" else FIELD
        keys.setdefault(key["keyring"], []).append((int(key["id"], 16), purpose, bytes.fromhex(key["key"])))
    with serving(tmp_path, keys) as running:
        for scope, held in keys.items():
            for entry in held:
                running.holder.install(scope, entry)
        yield running


def test_blind_index_vectors(tmp_path: Path) -> None:
    for case in json.loads((FOLDER / "envelope.json").read_text())["blind_index"]:
        with serving(tmp_path, {}) as running, running.connect() as peer:
            running.plane.install(
                5, "ring", INDEX, bytearray.fromhex(case["key"]), ttl=60_000, index_bits=case["index_bits"]
            )
            running.plane.activate(5, 0)
            context = None if case["context"] is None else bytes.fromhex(case["context"])
            assert peer.call(3, "ring", [bytes.fromhex(case["value"]), None], context) == [
                0,
                [bytes.fromhex(case["index"]), None],
            ], case["comment"]
        (tmp_path / "data.sock").unlink()


def test_sealed_here_opens_with_cryptography(holding: Serving) -> None:
    """The independent reader of docs/spec/envelope.md."""
    with holding.connect() as peer:
        for context in (None, b"", b"column", b"c" * 65535):
            for plaintext in (b"", b"x", b"y" * 255, b"z" * 70000):
                _, (made,) = peer.call(ENCRYPT, "contacts", [plaintext], context)
                assert made[:10] == b"\xc1\x01" + (0xA2).to_bytes(8, "big")
                opened = AESGCM(b"\x02" * 32).decrypt(made[10:22], made[22:], made[:10] + (context or b""))
                assert opened == plaintext
