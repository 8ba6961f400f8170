"""Frames and JSON, judged by the plain twin of docs/spec/wire.md and the vectors of docs/spec/envelope.md."""

import base64
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyside.testing import frames as twin

from proxy.frames import (
    Answer,
    FrameError,
    NotAnEnvelope,
    Op,
    Status,
    decode_answer,
    encode_request,
    envelope_from_text,
    envelope_to_text,
)
from proxy.http_json import Refused, parse_request, render_answer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "envelope.json").read_text())

items = st.lists(st.none() | st.binary(max_size=300), max_size=20)
contexts = st.none() | st.binary(max_size=300)


@given(st.integers(0, 2**32 - 1), st.sampled_from([Op.ENCRYPT, Op.DECRYPT]), contexts, items)
def test_the_twin_reads_our_requests(number: int, op: Op, context: bytes | None, values: list[bytes | None]) -> None:
    frame = encode_request(number, op, "users/42", context, values)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    read = twin.parse_request(frame[4:])
    assert read == twin.Request(number, twin.Op(op), "users/42", context, values)


@given(st.integers(0, 2**32 - 1), st.lists(st.none() | st.binary(max_size=300) | st.integers(16, 26), max_size=20))
def test_we_read_the_twins_responses(number: int, values: list[bytes | int | None]) -> None:
    status = int(any(isinstance(value, int) for value in values))
    read = decode_answer(twin.build_response(number, status, values)[4:])
    assert (read.id, read.status, read.items) == (number, status, values)


@given(st.binary(max_size=100))
def test_noise_is_a_frame_error_or_an_answer(body: bytes) -> None:
    with suppress(FrameError):
        assert isinstance(decode_answer(body), Answer)


@pytest.mark.parametrize("vector", VECTORS["text"], ids=lambda vector: vector["comment"])
def test_text_forms(vector: dict[str, str]) -> None:
    if vector["expect"] == "ok":
        assert envelope_from_text(vector["text"]) == bytes.fromhex(vector["bytes"])
        assert envelope_to_text(bytes.fromhex(vector["bytes"])) == vector["text"]
        return
    with pytest.raises(NotAnEnvelope):
        envelope_from_text(vector["text"])


@given(st.binary(max_size=50), contexts)
def test_encrypt_takes_base64_and_decrypt_gives_it(value: bytes, context: bytes | None) -> None:
    written = base64.b64encode(value).decode()
    sent = None if context is None else base64.b64encode(context).decode()
    body = json.dumps({"keyring": "k", "context": sent, "items": [written, None]}).encode()
    request = parse_request(Op.ENCRYPT, body)
    assert (request.keyring, request.context, request.items) == ("k", context, [value, None])
    answer = Answer(1, Status.SOME_FAILED, [value, None, Status.UNKNOWN_KEY], "")
    failed = {"error": {"code": 19, "name": "UNKNOWN_KEY"}}
    assert render_answer(Op.DECRYPT, answer) == {"items": [written, None, failed]}
    assert render_answer(Op.ENCRYPT, answer) == {"items": [envelope_to_text(value), None, failed]}


def test_what_is_no_envelope_fails_alone() -> None:
    request = parse_request(Op.DECRYPT, b'{"keyring": "k", "items": ["ks1.AA==", "", null, "ks1.wQE"]}')
    assert request.items == [b"", b"", None, b"\xc1\x01"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"items": []}',
        b'{"keyring": "k"}',
        b'{"keyring": 1, "items": []}',
        b'{"keyring": "k", "items": {}}',
        b'{"keyring": "k", "items": [1]}',
        b'{"keyring": "k", "items": ["YQ"]}',
        b'{"keyring": "k", "items": ["YQ=="], "context": 1}',
        b'{"keyring": "k", "items": ["YQ=="], "context": ["\\u00e4"]}',
        b'{"keyring": "k", "items": [], "extra": 1}',
        b'{"keyring": "\\ud800", "items": []}',
        b'{"keyring": "k", "items": [' + b"1" * 5000 + b"]}",
        b"[" * 100_000,
    ],
)
def test_bad_bodies_are_refused_without_quoting_them(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_request(Op.ENCRYPT, body)
    assert refused.value.status is Status.BAD_REQUEST
    assert "extra" not in refused.value.message


def test_a_request_does_not_show_its_plaintexts() -> None:
    assert "YQ" not in repr(parse_request(Op.ENCRYPT, b'{"keyring": "k", "items": ["YQ=="]}'))
