"""The suite's own promises: nothing is left out unsaid, and a leak is seen in any spelling."""

from __future__ import annotations

import base64

import pytest

from tests.providers.conformance import Conformance
from tests.providers.rig import seen
from tests.providers.test_local import TestLocal as LocalRows

SECRET = bytes(range(0xE0, 0x100))


def test_a_row_that_does_not_exist_cannot_be_left_out() -> None:
    with pytest.raises(AssertionError, match="there is no row test_nothing"):
        type("Broken", (Conformance,), {"not_applicable": {"test_nothing": "because"}})


def test_a_row_cannot_be_left_out_without_a_reason() -> None:
    with pytest.raises(AssertionError, match="why does test_round_trip not apply"):
        type("Silent", (Conformance,), {"not_applicable": {"test_round_trip": ""}})


def test_local_leaves_out_what_it_names_and_nothing_else() -> None:
    left_out = {row for row in dir(Conformance) if row.startswith("test_") and getattr(LocalRows, row) is None}
    assert left_out == set(LocalRows.not_applicable)


SPELLINGS = {
    "hex": SECRET.hex(),
    "capitals": SECRET.hex().upper(),
    "base64": base64.b64encode(SECRET).decode(),
    "base64url": base64.urlsafe_b64encode(SECRET).decode(),
    "repr": repr(SECRET),
    "bytearray": repr(bytearray(SECRET)),
    "latin-1": SECRET.decode("latin-1"),
}


@pytest.mark.parametrize("form", SPELLINGS)
def test_a_leak_is_seen_in_any_spelling(form: str) -> None:
    assert seen(SECRET, f"before {SPELLINGS[form]} after")
    assert not seen(SECRET, f"before {SPELLINGS[form][:-8]} after")
