"""The native frame parser against the hand-written vectors and against the plain-Python twin."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keyside.testing import frames

from fastpath import frame
from tests.vectors import wire_vectors
from tests.vectors.generate import FOLDER, understood, unfolded
from tests.vectors.wire_vectors import unfold

# generating frames is Python's work, which the sanitizers slow down without looking at it
EXAMPLES = 60 if "KEYSIDE_SANITIZED" in os.environ else 600
REFUSED, REFUSED_CLOSE = 1, 2
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "wire.json").read_text())["requests"]


def native(body: bytes) -> frames.Request | frames.Refusal:
    """What the native parser makes of a body, in the twin's words."""
    outcome = frame.parse(body)
    if len(outcome) == 2:
        refusal, request_id = outcome
        assert refusal in (REFUSED, REFUSED_CLOSE)
        return frames.Refusal(frames.Code.BAD_REQUEST, refusal == REFUSED_CLOSE, request_id)
    request_id, op, keyring, context, items = outcome
    return frames.Request(request_id, frames.Op(op), keyring.decode(), context, items)


def has_body(case: dict[str, Any]) -> bool:
    wire = unfold(case["frame"])
    return int.from_bytes(wire[:4], "big") == len(wire) - 4


@pytest.mark.parametrize("case", [case for case in VECTORS if has_body(case)], ids=lambda case: case["comment"])
def test_vector(case: dict[str, Any]) -> None:
    parsed = native(unfold(case["frame"])[4:])
    if case["expect"] == "ok":
        assert isinstance(parsed, frames.Request)
        assert understood(parsed) == {field: unfolded(value) for field, value in case["request"].items()}
    else:
        assert parsed == frames.Refusal(frames.Code.BAD_REQUEST, case["closes"], case["id"])


def test_the_vectors_are_those_of_the_source() -> None:
    assert wire_vectors.document()["requests"] == VECTORS


# Generated frames: mostly well-formed pieces, in any encoding, with a wrong one now and then


def head(code: int, size: int, n: int) -> bytes:
    return bytes([code]) + (n % (1 << 8 * size)).to_bytes(size, "big")


unsigned = st.one_of(
    st.integers(0, 127).map(lambda n: bytes([n])),
    st.tuples(st.sampled_from([(0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)]), st.integers(0, 2**64 - 1)).map(
        lambda t: head(*t[0], t[1])
    ),
)


@st.composite
def array(draw: st.DrawFn, element: st.SearchStrategy[bytes]) -> bytes:
    elements = draw(st.lists(element, max_size=20))
    lie = draw(st.sampled_from([0] * 12 + [-1, 1, 2**31]))
    code, size = draw(st.sampled_from([(0x90, 0), (0xDC, 2), (0xDD, 4)]))
    n = max(0, len(elements) + lie)
    return (head(code, size, n) if size else bytes([0x90 | n & 15])) + b"".join(elements)


@st.composite
def blob(draw: st.DrawFn, codes: tuple[tuple[int, int], ...], content: st.SearchStrategy[bytes]) -> bytes:
    data = draw(content)
    code, size = draw(st.sampled_from(codes))
    lie = draw(st.sampled_from([0] * 20 + [-1, 1, 2**32 - 1]))
    if size == 0:
        return bytes([code | len(data) & 31]) + data
    return head(code, size, len(data) + lie) + data


STR = ((0xA0, 0), (0xD9, 1), (0xDA, 2), (0xDB, 4))
BIN = ((0xC4, 1), (0xC5, 2), (0xC6, 4))
wrong = st.one_of(
    st.binary(min_size=1, max_size=4), st.sampled_from([b"\xc1", b"\xc2", b"\x80", b"\xff", b"\xd4\x01a"])
)
name = st.one_of(
    st.from_regex(rb"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}(/[ -~]{1,20})?", fullmatch=True),
    st.text(max_size=12).map(lambda text: b"a/" + text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=12).map(lambda data: b"a/" + data),
    st.sampled_from([b"", b"a" * 64, b"a" * 65, b"a/" + b"b" * 128, b"a/" + b"b" * 129, b"/", b"a/", b"-a"]),
)
value = st.one_of(st.just(b"\xc0"), blob(STR, st.binary(max_size=40)), blob(BIN, st.binary(max_size=300)))
ops = st.one_of(st.sampled_from([bytes([op]) for op in range(5)]), unsigned)
requests = st.tuples(
    st.sampled_from([b"\x95"] * 10 + [b"\xdc\x00\x05", b"\xdd\x00\x00\x00\x05", b"\x94", b"\x96"]),
    st.one_of(unsigned, st.just(b"\x07")),
    ops,
    blob(STR, name),
    st.one_of(value, array(value)),
    array(st.one_of(value, value, value, value, wrong)),
    st.sampled_from([b""] * 10 + [b"\x00", b"\xc0"]),
).map(b"".join)


@settings(max_examples=EXAMPLES, deadline=None)
@given(requests)
@example(bytes.fromhex("950700d9c2") + b"x" * 194 + bytes.fromhex("c090"))  # HELLO: no value is looked at
@example(bytes.fromhex("950700a092c0c091c0"))  # two contexts for one item
@example(bytes.fromhex("950700a0c600010000") + b"c" * 65536 + b"\x90")
@example(bytes.fromhex("950700a0c0dd00020001") + b"\xc0" * 131073)
def test_native_and_twin_agree_on_generated_frames(body: bytes) -> None:
    assert native(body) == frames.parse_request(body)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(requests, st.data())
def test_native_and_twin_agree_on_mutated_frames(body: bytes, data: st.DataObject) -> None:
    broken = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken)))
        kind = data.draw(st.sampled_from(["flip", "cut", "put", "drop"]))
        if kind == "flip" and at < len(broken):
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del broken[at:]
        elif kind == "put":
            broken[at:at] = data.draw(st.binary(min_size=1, max_size=5))
        else:
            del broken[at : at + 1]
    assert native(bytes(broken)) == frames.parse_request(bytes(broken))


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(st.binary(max_size=64))
def test_native_and_twin_agree_on_noise(body: bytes) -> None:
    assert native(body) == frames.parse_request(body)


def test_every_truncation_and_every_single_byte_agrees_with_the_twin() -> None:
    body = unfold("95 07 01 a8 636f6e7461637473 93 c0 c40161 a162 93 c40168 c0 d90178")
    for end in range(len(body)):
        assert native(body[:end]) == frames.parse_request(body[:end])
    for at in range(len(body)):
        for byte in range(256):
            broken = body[:at] + bytes([byte]) + body[at + 1 :]
            assert native(broken) == frames.parse_request(broken)


def test_every_partition_of_two_bytes_after_a_prefix_agrees_with_the_twin() -> None:
    """UTF-8's edges: pairs after a lead byte of each kind."""
    for lead in (b"", b"\xe0", b"\xed", b"\xef", b"\xf0\x90", b"\xf4\x8f", b"\xc2"):
        for pair in range(0, 65536, 600 // EXAMPLES):
            keyring = b"a/" + lead + pair.to_bytes(2, "big")
            if frames.good_keyring(keyring) != (len(frame.parse(packed(keyring))) == 5):
                raise AssertionError(keyring)


def packed(keyring: bytes) -> bytes:
    return b"\x95\x07\x01" + frames.pack_str(keyring) + b"\xc0\x90"


def test_hello_with_a_wrong_shape_is_refused() -> None:
    assert native(bytes.fromhex("950700a0c091c3")) == frames.Refusal(frames.Code.BAD_REQUEST, True, 7)
