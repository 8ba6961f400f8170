"""The canonical encoding, against the vectors and the twin written from docs/spec/wrap.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import InputRefused, WrapContext
from tests.twin import wrap

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "wrap.json").read_text())[
    "contexts"
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
CONTEXTS = st.builds(
    WrapContext,
    data_key_id=st.integers(0, 2**64 - 1),
    keyring=st.text("abcAB09_.-", min_size=1, max_size=64),
    partition=st.none() | TEXT,
    purpose=st.sampled_from(["field", "index"]),
)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_vectors(case: dict[str, Any]) -> None:
    context = WrapContext(int(case["data_key_id"], 16), case["keyring"], case["partition"], case["purpose"])
    assert context.authenticated().hex() == case["authenticated"]
    assert context.as_strings() == case["strings"]


@given(CONTEXTS)
def test_the_twin_agrees(context: WrapContext) -> None:
    expected = wrap.context(context.data_key_id, context.keyring, context.partition, context.purpose)
    assert context.authenticated() == expected
    assert 15 <= len(expected) <= 207


@given(CONTEXTS, CONTEXTS)
def test_equal_encodings_mean_equal_contexts(one: WrapContext, other: WrapContext) -> None:
    assert (one.authenticated() == other.authenticated()) is (one == other)
    assert (one.as_strings() == other.as_strings()) is (one == other)


@pytest.mark.parametrize(
    "change",
    [
        {"data_key_id": -1},
        {"data_key_id": 2**64},
        {"keyring": ""},
        {"keyring": "k" * 65},
        {"keyring": "\ud800"},
        {"partition": ""},
        {"partition": "ö" * 65},
        {"partition": "\udfff"},
        {"purpose": "wrap"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputRefused):
        WrapContext(**{"data_key_id": 1, "keyring": "users", "partition": "42", "purpose": "field", **change})
