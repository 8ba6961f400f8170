"""What the service refuses, and answers that no good service gives."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from providers import (
    CredentialsInvalid,
    Denied,
    HealthStatus,
    InputRefused,
    KeyDisabled,
    NotFound,
    ProviderError,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
    WrapContext,
)
from providers.azure.refusals import refusal, retry_after
from tests.providers.azure.rig import AzureRig
from tests.servers.azure import CLIENT_ID

CONTEXT = WrapContext(7, "users", "42", "field")
KEY = bytes(range(32))
KID = "https://acme.vault.azure.net/keys/keyside/" + "a" * 32


def answer(code: str, inner: str | None = None) -> bytes:
    error: dict[str, object] = {"code": code, "message": "You sent c2VjcmV0."}
    return json.dumps({"error": error | ({"innererror": {"code": inner}} if inner else {})}).encode()


@pytest.mark.parametrize(
    ("operation", "status", "content", "error", "says"),
    [
        ("unwrapkey", 400, answer("BadParameter"), Tampered, "restore that keystore row"),
        ("decrypt", 400, answer("BadParameter"), Tampered, "restore"),
        ("unwrapkey", 400, answer("KeyTypeNotSupported"), InputRefused, "KeyTypeNotSupported"),
        ("decrypt", 400, answer("InvalidApiVersion", "BadParameter"), InputRefused, "InvalidApiVersion"),
        ("unwrapkey", 400, b"<html>Bad Request</html>", Unavailable, "no error code"),
        ("decrypt", 400, b"", Unavailable, "in between"),
        ("unwrapkey", 400, b'{"error": {"message": "no"}}', Unavailable, "no error code"),
        ("verify", 400, b"<html>Bad Request</html>", Unavailable, "no error code"),
        ("wrapkey", 400, answer("BadParameter"), InputRefused, "BadParameter"),
        ("create", 400, answer("BadParameter"), InputRefused, "does not fit"),
        ("unwrapkey", 401, answer("Unauthorized"), CredentialsInvalid, "audience"),
        ("unwrapkey", 403, answer("Forbidden", "KeyDisabled"), KeyDisabled, "enable"),
        ("wrapkey", 403, answer("Forbidden", "KeyNotYetValidOrExpired"), KeyDisabled, "rotate"),
        ("unwrapkey", 403, answer("Forbidden", "KeyOperationForbidden"), Denied, "key_ops"),
        ("unwrapkey", 403, answer("Forbidden", "ForbiddenByRbac"), Denied, "Crypto User"),
        ("unwrapkey", 403, answer("Forbidden", "ForbiddenByPolicy"), Denied, "access policy"),
        ("unwrapkey", 403, answer("Forbidden", "AccessDenied"), Denied, "AccessDenied"),
        ("unwrapkey", 403, answer("Forbidden", "ForbiddenByFirewall"), Denied, "firewall"),
        ("unwrapkey", 403, answer("Forbidden", "ForbiddenByConnection"), Denied, "private endpoint"),
        ("unwrapkey", 403, b"<html>blocked by proxy</html>", Denied, "no error code"),
        ("unwrapkey", 404, answer("KeyNotFound"), NotFound, KID),
        ("get", 404, b"", NotFound, KID),
        ("unwrapkey", 408, b"", Timeout, "ran out of time"),
        ("create", 409, answer("Conflict", "ObjectIsDeletedButRecoverable"), InputRefused, "recover or purge"),
        ("create", 409, answer("Conflict"), Unavailable, "try again"),
        ("unwrapkey", 429, answer("Throttled"), Throttled, "limit"),
        ("unwrapkey", 500, answer("InternalServerError"), Unavailable, "500"),
        ("unwrapkey", 503, b"", Unavailable, "503"),
        ("unwrapkey", 302, b"", Unavailable, "302"),
        ("unwrapkey", 418, answer("Teapot"), Unavailable, "Teapot"),
    ],
)
def test_the_table(operation: str, status: int, content: bytes, error: type[ProviderError], says: str) -> None:
    found = refusal(operation, KID, status, {}, content)
    assert type(found) is error
    assert says in str(found)
    assert "c2VjcmV0" not in str(found), "the service's message may quote what was sent"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'{"error": 3}', b'{"error": {"code": ["a"]}}', b"[" * 5000, b"\xff",
     b'{"error": {"code": "x\\n\\u001b[31m"}}', b'{"error": {"innererror": "x"}}'],
)  # fmt: skip
def test_an_error_that_is_not_the_services_is_still_one(content: bytes) -> None:
    found = refusal("unwrapkey", KID, 403, {}, content)
    assert type(found) is Denied
    assert str(found).isprintable()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("nan", None), ("inf", None), (None, None),
     ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0)],
)  # fmt: skip
def test_the_pause_that_the_service_asks_for(value: str | None, seconds: float | None) -> None:
    assert retry_after({"retry-after": value} if value is not None else {}) == seconds


async def test_throttling_waits_as_long_as_it_is_told(on_hsm: AzureRig) -> None:
    provider = on_hsm.make(retryPolicy={"maxRetries": 2})
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.served.do("fault", path="/decrypt", status=429, headers={"Retry-After": "1"}, body="{}")
    started = time.monotonic()
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    assert 1 <= time.monotonic() - started < 4
    on_hsm.served.do("fault", path="/decrypt", times=9, status=429, headers={"Retry-After": "3600"}, body="{}")
    started = time.monotonic()
    with pytest.raises(Throttled) as refused:
        await provider.unwrap_key(wrapped, CONTEXT)
    assert refused.value.retry_after == 3600
    assert time.monotonic() - started < 3, "a pause that would not end in time is not begun"
    await provider.close()


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 503}, {"how": "drop"}, {"status": 502, "body": "<html>"}]
)
async def test_failures_that_pass_are_retried_by_us_alone(on_hsm: AzureRig, fault: dict[str, Any]) -> None:
    provider = on_hsm.make(retryPolicy={"maxRetries": 2, "backoffMultiplier": 1})
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.served.do("fault", path="/decrypt", times=2, **fault)
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    on_hsm.served.do("seen")
    on_hsm.served.do("fault", path="/decrypt", times=99, **fault)
    with pytest.raises(Unavailable):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert len(on_hsm.served.do("seen")) == 3, "the first attempt and two retries: none of the SDK's own"
    await provider.close()


@pytest.mark.parametrize(
    "permissions",
    [
        {"encrypt", "get"},
        {"decrypt", "get"},
        {"encrypt", "decrypt"},
        set(),
    ],
    ids=lambda granted: " ".join(sorted(granted)) or "none",
)
async def test_a_missing_permission_is_denied_and_makes_health_bad(on_hsm: AzureRig, permissions: set[str]) -> None:
    on_hsm.served.do("permit", client_id=CLIENT_ID, permissions=sorted(permissions))
    provider = on_hsm.make()
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "ForbiddenByRbac" in health.detail
    on_hsm.served.do("permit", client_id=CLIENT_ID, permissions=None)
    assert (await provider.health_check()).status is HealthStatus.OK, "without a restart"
    on_hsm.served.do("permit", client_id=CLIENT_ID, permissions=["get", "encrypt"])
    assert (await provider.health_check()).status is HealthStatus.DOWN, "taken away while serving"
    await provider.close()


async def test_the_firewall_says_so(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    on_vault.served.do("firewall", closed=True)
    with pytest.raises(Denied, match="firewall"):
        await provider.initialize()
    on_vault.served.do("firewall", closed=False)
    await provider.initialize()
    await provider.close()


async def test_a_key_that_was_deleted_and_recovered(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_vault.served.do("delete", name="keyside")
    with pytest.raises(NotFound, match="recovered"):
        await provider.unwrap_key(wrapped, CONTEXT)
    on_vault.served.do("recover", name="keyside")
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()


async def test_an_expired_key_unwraps_and_does_not_wrap(on_vault: AzureRig) -> None:
    provider = on_vault.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    soon = {"attributes": {"exp": int(time.time()) + 86_400}}
    on_vault.served.do("update", name="keyside", body=soon)
    health = await provider.health_check()
    assert (health.status, "rotate it" in health.detail) == (HealthStatus.DEGRADED, True)
    on_vault.served.do("update", name="keyside", body={"attributes": {"exp": int(time.time()) - 1}})
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    with pytest.raises(KeyDisabled, match="rotate"):
        await provider.wrap_key(KEY, CONTEXT)
    assert (await provider.health_check()).status is HealthStatus.DEGRADED
    await provider.close()


async def test_a_release_of_a_key_is_refused_by_the_service(on_hsm: AzureRig) -> None:
    provider = on_hsm.make()
    await provider.initialize()
    assert provider._service is not None
    with pytest.raises(Denied):
        await provider._service.vault.ask("POST", f"{provider._service.kek.path}/release", "release", {"target": "x"})
    await provider.close()


# hostile and broken answers: whatever comes, an error of ours, soon, and no secret in it

OTHER_KID = "https://127.0.0.1/keys/keyside/" + "0" * 32
BROKEN: dict[str, dict[str, Any]] = {
    "an HTML page": {"body": "<html><body>Please log in</body></html>"},
    "nothing": {"body": ""},
    "cut off": {"body": '{"kid": "https://127.0.0.1/keys/key'},
    "a list": {"body": "[]"},
    "deep": {"body": '{"a":' * 3000},
    "no value": {"body": "{}"},
    "two values": {"body": '{"value": "AAAA", "value": "BBBB", "kid": "x"}'},
    "a number": {"edit": {"value": 7}},
    "not base64url": {"edit": {"value": "!!!!"}},
    "one character of base64": {"edit": {"value": "A"}},
    "a key that is too short": {"edit": {"value": "AAAA"}},
    "a key that is too long": {"edit": {"value": "A" * 4000}},
    "another version's": {"edit": {"kid": OTHER_KID}},
    "no kid": {"edit": {"kid": None}},
    "a kid of another kind": {"edit": {"kid": ["x"]}},
    "far too much": {"body": '{"value": "' + "A" * 3_000_000 + '"}'},
    "a redirect": {"status": 307, "headers": {"Location": "https://127.0.0.1:1/"}},
    "an empty success": {"status": 204},
}


@pytest.mark.parametrize("mechanism", ["A256GCM", "RSA-OAEP-256+ES256"])
async def test_broken_answers_to_an_unwrap(on_vault: AzureRig, on_hsm: AzureRig, mechanism: str) -> None:
    rig, path = (on_hsm, "/decrypt") if mechanism == "A256GCM" else (on_vault, "/unwrapkey")
    provider = rig.make(retryPolicy={"maxRetries": 0})
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    for name, fault in BROKEN.items():
        rig.served.do("fault", path=path, **fault)
        with pytest.raises((Unavailable, Tampered)) as refused:
            await provider.unwrap_key(wrapped, CONTEXT)
        assert "AAAA" not in str(refused.value), name
        assert await provider.unwrap_key(wrapped, CONTEXT) == KEY, f"the next one is good after {name}"
    await provider.close()


@pytest.mark.parametrize(
    ("mechanism", "path"),
    [
        ("A256GCM", "/encrypt"),
        ("A256KW", "/wrapkey"),
        ("RSA-OAEP-256+ES256", "/wrapkey"),
        ("RSA-OAEP-256+ES256", "/sign"),
    ],
)
async def test_broken_answers_to_a_wrap(on_vault: AzureRig, on_hsm: AzureRig, mechanism: str, path: str) -> None:
    rig = on_vault if mechanism.startswith("RSA") else on_hsm
    rig.settings["mechanism"] = mechanism
    provider = rig.make(retryPolicy={"maxRetries": 0})
    await provider.initialize()
    for name, fault in BROKEN.items():
        rig.served.do("fault", path=path, **fault)
        with pytest.raises((Unavailable, Tampered)):
            assert not await provider.wrap_key(KEY, CONTEXT), name
        assert await provider.wrap_key(KEY, CONTEXT), f"the next one is good after {name}"
    await provider.close()


@pytest.mark.parametrize("name", ["an HTML page", "cut off", "a list", "far too much", "a redirect"])
async def test_broken_answers_at_the_start(on_vault: AzureRig, name: str) -> None:
    on_vault.served.do("fault", path="^vault GET", times=9, **BROKEN[name])
    provider = on_vault.make(retryPolicy={"maxRetries": 0})
    with pytest.raises(Unavailable):
        await provider.initialize()
    on_vault.served.do("calm")
    await provider.initialize()
    await provider.close()


@pytest.mark.usefixtures("refusals_pass_at_once")
@pytest.mark.parametrize(
    "challenge", ["", "Bearer", "Negotiate", 'Bearer authorization="http://x", resource="y"', "a=b"]
)
async def test_a_challenge_that_makes_no_sense(on_hsm: AzureRig, challenge: str) -> None:
    headers = {"WWW-Authenticate": challenge}
    on_hsm.served.do("fault", path="^vault", times=99, status=401, headers=headers, body="{}")
    provider = on_hsm.make()
    with pytest.raises(CredentialsInvalid):
        await provider.initialize()
    on_hsm.served.do("calm")
    await provider.initialize()
    await provider.close()


# time


async def test_a_vault_that_hangs_costs_its_callers_the_timeout(on_hsm: AzureRig) -> None:
    provider = on_hsm.make(requestTimeout=500, connectionPoolSize=4)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    on_hsm.served.do("fault", path="/decrypt", times=8, how="hang")
    started = time.monotonic()
    answers = await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(8)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Timeout}
    assert time.monotonic() - started < 3, "half a second, and what a busy machine adds"
    on_hsm.served.do("calm")
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()


async def test_nothing_secret_is_logged_by_the_sdk_either(on_vault: AzureRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("azure", "msal", "urllib3", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    provider = on_vault.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    await provider.unwrap_key(wrapped, CONTEXT)
    on_vault.secret_file.write_text("another-secret-that-is-wrong")
    on_vault.served.do("revoke")
    with pytest.raises(CredentialsInvalid):
        await provider.unwrap_key(wrapped, CONTEXT)
    tokens = [word for word in caplog.text.split() if word.startswith("eyJ0eXAi")]
    assert not tokens
    for secret in ("another-secret-that-is-wrong", on_vault.secrets()[0].decode(), "AAECAwQFBgcICQ"):
        assert secret not in caplog.text
    await provider.close()
