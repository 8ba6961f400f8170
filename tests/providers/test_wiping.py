"""Overwriting in place, in the object that was given."""

from __future__ import annotations

import os

import pytest

from providers.wiping import wipe


@pytest.mark.parametrize("length", [0, 1, 2, 31, 32, 33, 4096])
def test_a_bytearray_is_zeroed_and_keeps_its_length(length: int) -> None:
    secret = bytearray(os.urandom(length))
    wipe(secret)
    assert secret == bytes(length)


@pytest.mark.parametrize("length", [2, 31, 32, 33, 4096])
def test_bytes_are_zeroed_where_they_lie_and_nothing_else_is(length: int) -> None:
    before, secret, after = os.urandom(64), os.urandom(length), os.urandom(64)
    neighbours = bytearray(before), bytearray(after)
    view = memoryview(secret)
    wipe(secret)
    assert bytes(view) == bytes(length)
    assert len(secret) == length
    assert [before, after] == [bytes(neighbour) for neighbour in neighbours]


def test_bytes_that_the_interpreter_shares_are_left_alone() -> None:
    for value in range(256):
        wipe(bytes([value]))
    wipe(b"")
    assert [bytes([value])[0] for value in range(256)] == list(range(256))
