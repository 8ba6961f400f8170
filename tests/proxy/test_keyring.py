"""Names as docs/spec/wire.md allows them, and what a keyring serves."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keyring import (
    InvalidKeyring,
    InvalidName,
    Keyring,
    Purpose,
    Scope,
    Wrap,
    check_keyring_name,
    check_partition,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["a", "7", "users", "A.b_c-9", "x" * 64])
def test_good_keyring_names(name: str) -> None:
    assert check_keyring_name(name) == name


@pytest.mark.parametrize("name", ["", ".a", "_a", "-a", "a b", "a/b", "é", "x" * 65, "a\n", "a\x00"])
def test_bad_keyring_names(name: str) -> None:
    with pytest.raises(InvalidName):
        check_keyring_name(name)


@pytest.mark.parametrize("name", ["4", "a/b//c", " ", "é" * 64, "x" * 128, "\x80"])
def test_good_partitions(name: str) -> None:
    assert check_partition(name) == name


@pytest.mark.parametrize("name", ["", "\x00", "a\x1fb", "\x7f", "é" * 65, "x" * 129, "\ud800"])
def test_bad_partitions(name: str) -> None:
    with pytest.raises(InvalidName):
        check_partition(name)


def test_everything_after_the_first_slash_is_the_partition() -> None:
    assert Scope.parse("users") == Scope("users")
    assert Scope.parse("users/42") == Scope("users", "42")
    assert Scope.parse("users/42/home") == Scope("users", "42/home")
    for text in ("users/", "/42", "", "us ers/1"):
        with pytest.raises(InvalidName):
            Scope.parse(text)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True), st.none() | st.text(min_size=1, max_size=32))
def test_scopes_read_what_they_write(name: str, partition: str | None) -> None:
    try:
        scope = Scope(name, partition)
    except InvalidName:
        assert partition is not None
    else:
        assert Scope.parse(str(scope)) == scope


@pytest.mark.parametrize("bits", [0, 4, 12, 264, -8])
def test_index_bits_out_of_range(bits: int) -> None:
    with pytest.raises(InvalidKeyring):
        Keyring("a", False, bits, 1, NOW)


def test_only_the_suite_of_this_release() -> None:
    with pytest.raises(InvalidKeyring):
        Keyring("a", False, 128, 2, NOW)


@pytest.mark.parametrize(
    ("partitioned", "scope", "purpose", "serves"),
    [
        (True, "u/1", Purpose.FIELD, True),
        (True, "u", Purpose.FIELD, False),
        (True, "u", Purpose.INDEX, True),
        (True, "u/1", Purpose.INDEX, True),
        (False, "u", Purpose.FIELD, True),
        (False, "u/1", Purpose.FIELD, False),
        (False, "u", Purpose.INDEX, True),
        (False, "u/1", Purpose.INDEX, False),
    ],
)
def test_forms_of_name_that_a_keyring_serves(partitioned: bool, scope: str, purpose: Purpose, serves: bool) -> None:
    assert Keyring("u", partitioned, 128, 1, NOW).serves(Scope.parse(scope), purpose) is serves


def test_a_wrap_does_not_show_its_bytes() -> None:
    wrap = Wrap("LOCAL", "k", "m", b"sesame" * 8, NOW)
    assert "sesame" not in repr(wrap) + str(wrap)
