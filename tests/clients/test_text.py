"""The text form, by the vectors of the specification and by construction."""

import json
import secrets
from pathlib import Path
from typing import Any

import keyside
import pytest
from keyside import from_text, to_text
from keyside.testing import envelope

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "envelope.json").read_text())


@pytest.mark.parametrize("case", VECTORS["text"], ids=lambda case: case["comment"])
def test_reading(case: dict[str, str]) -> None:
    if case["expect"] == "ok":
        assert from_text(case["text"]) == bytes.fromhex(case["bytes"])
    else:
        with pytest.raises(keyside.InvalidText):
            from_text(case["text"])


@pytest.mark.parametrize("case", VECTORS["seal"], ids=lambda case: case["comment"])
def test_writing(case: dict[str, str]) -> None:
    assert to_text(bytes.fromhex(case["envelope"])) == case["text"]
    assert from_text(case["text"]) == bytes.fromhex(case["envelope"])


def test_any_bytes_have_the_twins_text() -> None:
    for size in range(200):
        data = secrets.token_bytes(size)
        assert to_text(data) == envelope.to_text(data)
        assert from_text(to_text(data)) == data
