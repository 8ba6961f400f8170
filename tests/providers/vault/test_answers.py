"""Each status and message of the server, and the error that it is."""

from __future__ import annotations

import json

import pytest

from providers import (
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
)
from providers.vault.answers import MAX_SAID, Unexplained, data, document, failure, said
from providers.vault.server import Answer


def answer(status: int, *errors: str, body: bytes | None = None, retry_after: float | None = None) -> Answer:
    return Answer(status, json.dumps({"errors": errors}).encode() if body is None else body, retry_after)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, Unavailable),
        (302, Unavailable),
        (307, Unavailable),
        (308, Unavailable),
        (400, Unexplained),
        (401, CredentialsInvalid),
        (403, Denied),
        (404, NotFound),
        (405, InputRefused),
        (412, Unavailable),
        (413, InputRefused),
        (418, InputRefused),
        (429, Throttled),
        (472, Unavailable),
        (473, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
        (599, Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'{"errors":null}', b'{"errors":["no"]}'])
def test_statuses(status: int, error: type[ProviderError], body: bytes) -> None:
    with pytest.raises(error, match="unwrapping") as refusal:
        document(answer(status, body=body), "unwrapping")
    assert type(refusal.value) is error


@pytest.mark.parametrize(
    ("message", "error"),
    [
        # OpenBao 2.7; the first and the last two are Vault's words
        ("cipher: message authentication failed", Tampered),
        ("invalid ciphertext length", Tampered),
        ("supplied signature is invalid", Tampered),
        ("encryption key not found", NotFound),
        ("signing key not found", NotFound),
        ("invalid ciphertext: version is too new", NotFound),
        ("ciphertext or signature version is disallowed by policy (too old)", KeyDisabled),
        ("refusing to use soft-deleted key", KeyDisabled),
        ("key type aes256-gcm96 does not support signing", InputRefused),
        ("no existing key named keyside could be found", NotFound),
        ("missing client token", CredentialsInvalid),
        ("something new", Unexplained),
    ],
)
def test_refusals_by_message(message: str, error: type[ProviderError]) -> None:
    assert type(failure(answer(400, message), "unwrapping")) is error


def test_a_throttled_call_says_how_long() -> None:
    error = failure(answer(429, "request path: rate limit quota exceeded", retry_after=2.5), "unwrapping")
    assert isinstance(error, Throttled)
    assert error.retry_after == 2.5


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"[1]", b'"text"', b"\xff", b'{"data":'])
def test_a_good_status_with_another_body_is_not_vaults(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not Vault's"):
        document(answer(200, body=body), "reading")


@pytest.mark.parametrize("body", [b"{}", b'{"data":null}', b'{"data":[]}', b""])
def test_an_answer_without_data_is_not_vaults(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not Vault's"):
        data(answer(200, body=body), "reading")


def test_no_content_is_an_empty_answer() -> None:
    assert document(answer(204, body=b""), "deleting") == {}


def test_the_servers_words_are_short_one_line_and_without_long_runs() -> None:
    secret = "hvs.CAESIJ" + "A" * 40
    words = said(answer(400, f"1 error occurred:\n\t* bad \x1b[31m{secret}\r\n", "more", "x " * 200))
    assert words.startswith("1 error occurred: * bad")
    assert secret not in words
    assert "\x1b" not in words
    assert len(words) <= MAX_SAID


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"errors":{}}', b'{"errors":[3,null]}', b"\xff\xfe"])
def test_words_that_are_none_are_left_out(body: bytes) -> None:
    assert said(answer(500, body=body)) == ""
