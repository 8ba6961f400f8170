"""The client's frames by the vectors of the specification, and its encoder against the twin's reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from keyside import wire
from keyside.errors import ProtocolError
from keyside.testing import frames

from tests.vectors.wire_vectors import unfold

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "wire.json").read_text())


@pytest.mark.parametrize("case", VECTORS["responses"], ids=lambda case: case["comment"])
def test_reading_responses(case: dict[str, Any]) -> None:
    body = unfold(case["frame"])[4:]
    if case["expect"] == "refused":
        with pytest.raises(ProtocolError):
            wire.read(body)
        return
    want = case["response"]
    answer = wire.read(body)
    assert (answer.number, answer.status) == (want["id"], want["status"])
    if "message" in want:
        assert answer.body == want["message"]
    else:
        assert answer.body == [unfold(item) if isinstance(item, str) else item for item in want["items"]]


def test_the_short_way_reads_exactly_what_the_long_way_reads() -> None:
    for size in (0, 1, 38, 102, 255, 256):
        frame = frames.build_response(5, 0, [bytes(size)])
        assert wire.short_value(frame, 5) == (bytes(size) if size < 256 else None)
        assert wire.short_value(frame, 6) is None
        for at in range(min(len(frame), 10)):
            spoiled = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
            assert wire.short_value(spoiled, 5) is None
        assert wire.short_value(frame + b"\x00", 5) is None
        assert wire.short_value(frame[:-1], 5) is None


@pytest.mark.parametrize("size", [0, 1, 31, 32, 200, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("context", [None, b"", b"c", b"c" * 300])
def test_requests_are_the_twins_in_the_shortest_form(size: int, context: bytes | None) -> None:
    want = frames.build_request(7, 1, "contacts", context, [bytes(size)])
    assert wire.single(7, wire.head_of(1, "contacts", context), bytes(size)) == want
    assert wire.batch(wire.new_packer(), 7, 1, "contacts", context, [bytes(size)]) == want


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_batches_of_every_size_of_head(count: int) -> None:
    packer = wire.new_packer()
    for number in (1, 127, 128, 255, 256, 65_536, wire.MAX_ID):
        items: list[bytes | str | None] = [None] * count
        assert wire.batch(packer, number, 2, "k" * 40, None, items) == frames.build_request(
            number, 2, "k" * 40, None, items
        )
