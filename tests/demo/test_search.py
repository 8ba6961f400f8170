"""The search that the demo's proof rests on: it must find what is there, wherever it is."""

from __future__ import annotations

import os

import pytest

from demo.search import SHORTEST, found, needles


@pytest.mark.parametrize("at", [0, 1, 7, 4090, 4096 - 9])
def test_finds_a_value_at_any_place(at: int) -> None:
    content = bytearray(4096)
    content[at : at + 9] = b"Cleveland"
    assert found(frozenset({b"Cleveland", b"Clevedon"}), {"a": b"", "b": bytes(content)}) == {b"Cleveland": "b"}


def test_finds_values_that_overlap_or_share_their_start() -> None:
    sought = frozenset({b"San Francisco", b"San Fran", b"Francisco"})
    assert found(sought, {"f": b"..San Francisco.."}).keys() == sought


def test_a_start_alone_is_no_find() -> None:
    assert found(frozenset({b"Cleveland"}), {"f": b"Clevelan"}) == {}


def test_random_bytes_hold_no_values() -> None:
    assert found(frozenset({b"Cleveland", b"1884-05-17"}), {"f": os.urandom(200_000)}) == {}


def test_values_are_sorted_by_what_a_search_can_decide() -> None:
    sorted_ = needles(["Mobile", "Panama", "180", "Aaron", None, "", "Mobile", "Ångström"], ["Panama", "R", None])
    assert sorted_.sought == {b"Mobile", "Ångström".encode()}
    assert sorted_.short == {b"180", b"Aaron"}
    assert sorted_.in_the_open == {b"Panama"}
    assert all(len(value) >= SHORTEST for value in sorted_.sought)
