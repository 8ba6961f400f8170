"""A server that answers nonsense, lies or redirects: nothing of it is believed, nothing secret leaves."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from providers import (
    ConfigurationInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
    Provider,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
    WrappedKey,
    create,
)
from providers.vault.server import MAX_ANSWER_BYTES
from tests.providers.conformance import CONTEXT
from tests.providers.vault.scripted import KEY, Asked, Last, Scripted, http, ok, refused, scripted, usual

TOKEN = "s.scripted-token"
WRAP = WrappedKey("VAULT_TRANSIT", "transit/keyside:v2", "AES-256-GCM", bytes(60))
DATA_KEY = bytes(range(32))
GOOD = {"plaintext": b64encode(DATA_KEY).decode()}


def answering(path: str, answer: Callable[[Asked], bytes | None] | bytes | None) -> Callable[[Asked], bytes | None]:
    """The usual server, but for one path."""

    def script(asked: Asked) -> bytes | None:
        if asked.path != path:
            return usual(asked)
        return answer(asked) if callable(answer) else answer

    return script


@asynccontextmanager
async def opened(server: Scripted) -> AsyncIterator[Provider]:
    provider = create(server.hsm, Path("/"))
    try:
        yield provider
    finally:
        await provider.close()


async def unwrapped(answer: Callable[[Asked], bytes | None] | bytes | None) -> bytearray:
    async with scripted(answering("transit/decrypt/keyside", answer)) as server, opened(server) as provider:
        return await provider.unwrap_key(WRAP, CONTEXT)


async def test_what_a_good_answer_is() -> None:
    assert await unwrapped(ok(GOOD)) == DATA_KEY
    spaced = b'{ "data" : {"plaintext": "%s"} }' % b64encode(DATA_KEY)
    assert await unwrapped(http(200, spaced)) == DATA_KEY
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = json.dumps({"data": GOOD}).encode()
    for piece in (body[:30], body[30:31], body[31:]):
        chunked += b"%x\r\n%s\r\n" % (len(piece), piece)
    assert await unwrapped(chunked + b"0\r\n\r\n") == DATA_KEY


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(200, b"<html>Please sign in</html>"), id="an HTML page"),
        pytest.param(http(200), id="nothing"),
        pytest.param(http(204), id="no content"),
        pytest.param(http(200, b'{"data":{}}'), id="no plaintext"),
        pytest.param(http(200, b'{"data":{"plaintext":null}}'), id="null"),
        pytest.param(ok({"plaintext": "AAA"}), id="half a base64"),
        pytest.param(ok({"plaintext": "A=AA"}), id="base64 with padding inside"),
        pytest.param(ok({"plaintext": "AA\nAA"}), id="base64 with a line end"),
        pytest.param(ok({"plaintext": "!!!!"}), id="no base64"),
        pytest.param(http(200, b"x" * (MAX_ANSWER_BYTES + 1)), id="too long"),
        pytest.param(Last(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"), id="cut short"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", id="a negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunks"),
        pytest.param(Last(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), id="another protocol"),
        pytest.param(Last(b"\x15\x03\x01\x00\x02\x02\x46"), id="TLS"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", id="endless headers"),
        pytest.param(None, id="a closed connection"),
    ],
)
async def test_nonsense_is_unavailable(answer: bytes | None) -> None:
    good = answering("transit/decrypt/keyside", ok(GOOD))
    async with scripted(good) as server, opened(server) as provider:
        assert await provider.unwrap_key(WRAP, CONTEXT) == DATA_KEY
        server.script = answering("transit/decrypt/keyside", answer)
        with pytest.raises(Unavailable):
            await provider.unwrap_key(WRAP, CONTEXT)
        server.script = good
        assert await provider.unwrap_key(WRAP, CONTEXT) == DATA_KEY, "usable once it answers again"


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
async def test_a_plaintext_of_another_length_is_no_data_key(length: int) -> None:
    with pytest.raises(Tampered, match="32 bytes"):
        await unwrapped(ok({"plaintext": b64encode(bytes(length)).decode()}))


@pytest.mark.parametrize(
    "ciphertext",
    [
        None,
        7,
        "",
        "vault:v1:",
        "vault:v0:AAAA",
        "vault:v-1:AAAA",
        "vault:v01:AAAA",
        "vault:v1:A",
        "vault:v1:AA=A",
        "vault:v1:AAAA\n",
        "vault:v99999999999:AAAA",
        "transit:v1:AAAA",
        "vault:v1:" + "<script>",
    ],
)
async def test_a_wrap_that_is_none_is_not_stored(ciphertext: object) -> None:
    script = answering("transit/encrypt/keyside", ok({"ciphertext": ciphertext}))
    async with scripted(script) as server, opened(server) as provider:
        with pytest.raises(Unavailable):
            await provider.wrap_key(DATA_KEY, CONTEXT)


async def test_a_wrap_of_another_length_is_not_stored() -> None:
    """Somebody returns the plaintext, an error text or nothing at all in the right clothes."""
    for length in (0, 32, 59, 61):
        script = answering(
            "transit/encrypt/keyside", ok({"ciphertext": f"vault:v3:{b64encode(bytes(length)).decode()}"})
        )
        async with scripted(script) as server, opened(server) as provider:
            with pytest.raises(Unavailable):
                await provider.wrap_key(DATA_KEY, CONTEXT)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_takes_the_token_nowhere(status: int) -> None:
    async with scripted() as elsewhere:
        location = f"Location: http://127.0.0.1:{elsewhere.port}/v1/transit/decrypt/keyside"
        with pytest.raises(Unavailable, match="standby"):
            await unwrapped(http(status, b"", location))
        assert elsewhere.asked == []


async def test_cookies_are_not_kept() -> None:
    script = answering("transit/decrypt/keyside", http(200, json.dumps({"data": GOOD}).encode(), "Set-Cookie: a=b"))
    async with scripted(script) as server, opened(server) as provider:
        for _ in range(2):
            await provider.unwrap_key(WRAP, CONTEXT)
        assert not any("cookie" in asked.headers for asked in server.asked)


async def test_every_request_says_what_it_is() -> None:
    async with scripted(answering("transit/decrypt/keyside", ok(GOOD))) as server, opened(server) as provider:
        await provider.unwrap_key(WRAP, CONTEXT)
        await provider.health_check()
        for asked in server.asked:
            assert asked.headers["x-vault-request"] == "true"
            if not asked.path.startswith("sys/health"):
                assert asked.headers["x-vault-token"] == TOKEN
        (health,) = (asked for asked in server.asked if asked.path.startswith("sys/health"))
        assert "x-vault-token" not in health.headers


async def test_the_namespace_goes_along_except_to_the_servers_own_health() -> None:
    async with scripted(answering("transit/decrypt/keyside", ok(GOOD))) as server:
        provider = create(server.hsm | {"namespace": "team/a"}, Path("/"))
        await provider.unwrap_key(WRAP, CONTEXT)
        await provider.health_check()
        await provider.close()
        for asked in server.asked:
            wanted = None if asked.path.startswith("sys/health") else "team/a"
            assert asked.headers.get("x-vault-namespace") == wanted


@pytest.mark.parametrize(
    ("key", "version", "error"),
    [
        (refused(404), 2, NotFound),
        (ok(KEY | {"soft_deleted": True}), 2, KeyDisabled),
        (ok(KEY | {"min_decryption_version": 3}), 2, KeyDisabled),
        (ok(KEY), 4, NotFound),
        (ok(KEY), 2, Tampered),
        (refused(403), 2, InputRefused),
        (refused(500), 2, InputRefused),
    ],
)
async def test_a_refusal_in_unknown_words_is_explained_by_the_key(
    key: bytes, version: int, error: type[ProviderError]
) -> None:
    async with scripted() as server, opened(server) as provider:
        await provider.initialize()

        def script(asked: Asked) -> bytes | None:
            if asked.path == "transit/keys/keyside":
                return key
            return refused(400, "der Schluessel passt nicht") if "decrypt" in asked.path else usual(asked)

        server.script = script
        wrap = WrappedKey("VAULT_TRANSIT", f"transit/keyside:v{version}", "AES-256-GCM", bytes(60))
        with pytest.raises(error) as refusal:
            await provider.unwrap_key(wrap, CONTEXT)
        assert type(refusal.value) is error or error is InputRefused


async def test_a_key_that_is_gone_is_not_made_again() -> None:
    """A token that may only update is denied the encryption under a key that is not there."""
    async with scripted() as server, opened(server) as provider:
        await provider.initialize()
        server.script = lambda asked: refused(403) if "encrypt" in asked.path else refused(404)
        with pytest.raises((NotFound, Denied)):
            await provider.wrap_key(DATA_KEY, CONTEXT)


async def test_throttling_says_when_to_come_back() -> None:
    with pytest.raises(Throttled) as refusal:
        await unwrapped(http(429, b'{"errors":["quota"]}', "Retry-After: 7"))
    assert refusal.value.retry_after == 7
    for value in ("soon", "Mon, 23 Nov 2026 22:00:00 GMT", "-3"):
        with pytest.raises(Throttled) as refusal:
            await unwrapped(http(429, b"", f"Retry-After: {value}"))
        assert not refusal.value.retry_after


async def test_a_throttled_call_is_tried_again_after_the_pause_asked_for() -> None:
    answers = iter([http(429, b"", "Retry-After: 0.05"), ok(GOOD)])
    async with scripted(answering("transit/decrypt/keyside", lambda _: next(answers))) as server:
        provider = create(server.hsm | {"performance": {}}, Path("/"))
        assert await provider.unwrap_key(WRAP, CONTEXT) == DATA_KEY
        await provider.close()
        assert server.count("transit/decrypt/keyside") == 2


@pytest.mark.parametrize(
    "key",
    [
        {},
        KEY | {"latest_version": 0},
        KEY | {"latest_version": "3"},
        KEY | {"type": None},
    ],
)
async def test_a_key_that_is_not_described_is_not_used(key: dict[str, object]) -> None:
    async with scripted(answering("transit/keys/keyside", ok(key))) as server, opened(server) as provider:
        with pytest.raises(Unavailable):
            await provider.initialize()


@pytest.mark.parametrize("kind", [{"type": "ed25519"}, {"type": "aes128-gcm96"}, {"derived": True}])
async def test_a_key_of_another_kind_is_a_problem_of_the_configuration(kind: dict[str, object]) -> None:
    async with scripted(answering("transit/keys/keyside", ok(KEY | kind))) as server, opened(server) as provider:
        with pytest.raises(ConfigurationInvalid) as refusal:
            await provider.initialize()
        assert [problem.path for problem in refusal.value.problems] == ["hsm.kek"]


@pytest.mark.parametrize(
    "kek",
    [
        "transit/other:v1",
        "elsewhere/keyside:v1",
        "transit/../sys/policies:v1",
        "transit/keyside?x=1:v1",
        "transit/keyside:v0",
        "transit/keyside:v",
        "transit/keyside",
        "transit/keyside:v1:v1",
        "keyside:v1",
        "",
    ],
)
async def test_a_row_cannot_choose_another_key_or_path(kek: str) -> None:
    async with scripted() as server, opened(server) as provider:
        await provider.initialize()
        asked = len(server.asked)
        with pytest.raises(NotFound):
            await provider.unwrap_key(WrappedKey("VAULT_TRANSIT", kek, "AES-256-GCM", bytes(60)), CONTEXT)
        assert len(server.asked) == asked


async def test_retired_keys_still_unwrap() -> None:
    async with scripted(answering("transit/decrypt/older", ok(GOOD))) as server:
        provider = create(server.hsm | {"retiredKeks": ["older"]}, Path("/"))
        wrap = WrappedKey("VAULT_TRANSIT", "transit/older:v7", "AES-256-GCM", bytes(60))
        assert await provider.unwrap_key(wrap, CONTEXT) == DATA_KEY
        await provider.close()


async def test_no_error_holds_what_the_server_echoes() -> None:
    """A server, or a debugging proxy, that says the whole request back."""

    def echo(asked: Asked) -> bytes:
        return refused(400, f"bad request: {asked.headers['x-vault-token']} {asked.body.decode()}")

    with pytest.raises(ProviderError) as refusal:
        await unwrapped(echo)
    error: BaseException | None = refusal.value
    while error is not None:
        assert b64encode(bytes(60)).decode()[:20] not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("status", [200, 500])
async def test_brackets_without_end_are_no_answer(status: int) -> None:
    async with (
        scripted(answering("transit/keys/keyside", http(status, b"[" * 60_000))) as server,
        opened(server) as provider,
    ):
        with pytest.raises(Unavailable):
            await provider.initialize()


async def test_a_server_that_ignores_associated_data_wraps_nothing() -> None:
    blob = b64encode(bytes(60)).decode()

    def old(asked: Asked) -> bytes | None:
        if asked.path == "transit/encrypt/keyside":
            return ok({"ciphertext": f"vault:v3:{blob}"})
        return ok(GOOD) if asked.path == "transit/decrypt/keyside" else usual(asked)

    async with scripted(old) as server, opened(server) as provider:
        for _ in range(2):
            with pytest.raises(InputRefused, match="ignores associated_data"):
                await provider.wrap_key(DATA_KEY, CONTEXT)
