"""Answers of the service: what each error means, and answers that AWS KMS would never give."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import botocore.loaders
import pytest
import pytest_asyncio

from providers import (
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    HealthStatus,
    InputRefused,
    KeyDisabled,
    NotFound,
    Provider,
    ProviderError,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
    create,
)
from providers.aws.refusals import DRY_RUN_SUCCEEDED, MEANING
from tests.providers.aws.scripted import (
    BLOB,
    DATA_KEY,
    KEY,
    OTHER,
    Scripted,
    answer,
    encoded,
    error,
    metadata,
    scripted,
)
from tests.providers.rig import seen

CONTEXT = WrapContext(7, "users", None, "field")
WRAPPED = WrappedKey("AWS_KMS", KEY, "SYMMETRIC_DEFAULT", BLOB)
OPERATIONS = (
    "CreateAlias",
    "CreateKey",
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GetKeyRotationStatus",
    "GetParametersForImport",
    "ImportKeyMaterial",
    "ScheduleKeyDeletion",
    "Sign",
    "Verify",
)
ELSEWHERE = {
    "CloudHsmClusterInvalidConfigurationException",  # custom key stores: CreateKey with CustomKeyStoreId alone
    "CustomKeyStoreInvalidStateException",
    "CustomKeyStoreNotFoundException",
    "XksKeyAlreadyInUseException",
    "XksKeyInvalidConfigurationException",
    "XksKeyNotFoundException",
}


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


@pytest_asyncio.fixture
async def provider(service: Scripted, tmp_path: Any) -> AsyncIterator[Provider]:
    provider = create(service.hsm(), tmp_path)
    await provider.initialize()
    yield provider
    await provider.close()


def test_every_error_that_the_sdk_knows_of_our_operations_has_a_meaning() -> None:
    model = botocore.loaders.Loader().load_service_model("kms", "service-2")
    named = {shape["shape"] for name in OPERATIONS for shape in model["operations"][name].get("errors", [])}
    assert named - ELSEWHERE - {DRY_RUN_SUCCEEDED} <= MEANING.keys()


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NotFoundException", 400, NotFound),
        ("InvalidArnException", 400, NotFound),
        ("DisabledException", 400, KeyDisabled),
        ("KMSInvalidStateException", 400, KeyDisabled),
        ("InvalidCiphertextException", 400, Tampered),
        ("IncorrectKeyException", 400, Tampered),
        ("AccessDeniedException", 400, Denied),
        ("UnrecognizedClientException", 400, CredentialsInvalid),
        ("InvalidSignatureException", 400, CredentialsInvalid),
        ("ThrottlingException", 400, Throttled),
        ("KeyUnavailableException", 500, Unavailable),
        ("KMSInternalException", 500, Unavailable),
        ("DependencyTimeoutException", 500, Unavailable),
        ("InvalidKeyUsageException", 400, InputRefused),
        ("ValidationException", 400, InputRefused),
        ("SomethingNewException", 400, Denied),
        ("SomethingNewException", 500, Unavailable),
        ("SomethingNewException", 503, Unavailable),
        ("SomethingNewException", 429, Throttled),
    ],
)
async def test_what_an_error_means(
    service: Scripted, provider: Provider, code: str, status: int, expected: type[ProviderError]
) -> None:
    told = f"{encoded(DATA_KEY)} and a token"
    service.replies["Decrypt"] = error(code, told, status)
    # credentials that were good until now are fetched anew by a retry, which this policy has none of
    accepted = (expected, Unavailable) if expected is CredentialsInvalid else expected
    with pytest.raises(accepted) as refusal:
        await provider.unwrap_key(WRAPPED, CONTEXT)
    assert told not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert code in str(refusal.value)


async def test_a_denied_decrypt_that_a_dry_run_permits_is_a_changed_wrap(service: Scripted, provider: Provider) -> None:
    denied, dry = error("AccessDeniedException"), error("DryRunOperationException")
    service.replies["Decrypt"] = lambda asked: dry if asked.get("DryRun") else denied
    with pytest.raises(Tampered, match=KEY):
        await provider.unwrap_key(WRAPPED, CONTEXT)
    asked = [body for operation, body in service.asked if operation == "decrypt"]
    assert asked[0]["EncryptionContext"] == asked[1]["EncryptionContext"] == CONTEXT.as_strings()
    assert asked[1]["DryRunModifiers"] == ["IGNORE_CIPHERTEXT"]


async def test_a_key_of_another_account_unwraps_only_when_it_is_named(
    service: Scripted, provider: Provider, tmp_path: Any
) -> None:
    """Whoever writes the keystore, and has an account of their own, could otherwise plant a data key that they know."""
    theirs = KEY.replace("111122223333", "999999999999")
    service.replies["Decrypt"] = answer({"KeyId": theirs, "Plaintext": encoded(DATA_KEY)})
    planted = dataclasses.replace(WRAPPED, kek=theirs)
    service.asked.clear()
    for kek in (theirs, theirs.rpartition("/")[2], "alias/theirs"):
        with pytest.raises(NotFound, match="retiredKeks"):
            await provider.unwrap_key(dataclasses.replace(planted, kek=kek), CONTEXT)
    assert service.asked == [], "nothing of it reaches the service"
    retiring = create({**service.hsm(), "retiredKeks": [theirs]}, tmp_path)
    assert await retiring.unwrap_key(planted, CONTEXT) == DATA_KEY
    await retiring.close()


async def test_a_grant_made_a_moment_ago_is_no_tampering(service: Scripted, provider: Provider) -> None:
    refused = iter([error("AccessDeniedException")])
    good, dry = service.replies["Decrypt"], error("DryRunOperationException")
    assert isinstance(good, bytes)
    service.replies["Decrypt"] = lambda asked: dry if asked.get("DryRun") else next(refused, good)
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY


async def test_an_endpoint_of_the_environment_is_judged_too(
    service: Scripted, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.attacker.example:8080")
    hsm = service.hsm()
    del hsm["connection"]["endpoint"]
    provider = create(hsm, tmp_path)
    with pytest.raises(ConfigurationInvalid, match="must be https"):
        await provider.initialize()
    await provider.close()


async def test_decrypt_is_told_the_key(service: Scripted, provider: Provider) -> None:
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
    assert service.asked[-1] == (
        "decrypt",
        {"KeyId": KEY, "CiphertextBlob": encoded(BLOB), "EncryptionContext": CONTEXT.as_strings()},
    )


WRONG_DECRYPTS = {
    "another key": ({"KeyId": OTHER, "Plaintext": encoded(DATA_KEY)}, Tampered),
    "no key": ({"Plaintext": encoded(DATA_KEY)}, Unavailable),
    "an alias": ({"KeyId": "alias/keyside", "Plaintext": encoded(DATA_KEY)}, Unavailable),
    "a key that is no text": ({"KeyId": 7, "Plaintext": encoded(DATA_KEY)}, Unavailable),
    "no plaintext": ({"KeyId": KEY}, Unavailable),
    "an empty plaintext": ({"KeyId": KEY, "Plaintext": ""}, Unavailable),
    "31 bytes": ({"KeyId": KEY, "Plaintext": encoded(bytes(31))}, Tampered),
    "33 bytes": ({"KeyId": KEY, "Plaintext": encoded(bytes(33))}, Tampered),
    "4097 bytes": ({"KeyId": KEY, "Plaintext": encoded(bytes(4097))}, Unavailable),
    "another algorithm": (
        {"KeyId": KEY, "Plaintext": encoded(DATA_KEY), "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"},
        Unavailable,
    ),
    "no base64": ({"KeyId": KEY, "Plaintext": "\N{SNOWMAN}"}, ProviderError),
    "a list": ([KEY], ProviderError),
    "a number": (7, ProviderError),
    "null": (None, ProviderError),
    "metadata of another shape": ({"KeyId": {"a": 1}, "Plaintext": [1]}, ProviderError),
}


@pytest.mark.parametrize("wrong", WRONG_DECRYPTS)
async def test_a_wrong_answer_to_decrypt_is_refused(service: Scripted, provider: Provider, wrong: str) -> None:
    body, expected = WRONG_DECRYPTS[wrong]
    service.replies["Decrypt"] = answer(body)
    with pytest.raises(expected) as refusal:
        await provider.unwrap_key(WRAPPED, CONTEXT)
    assert not seen(DATA_KEY, str(refusal.value))


WRONG_ENCRYPTS = {
    "another key": ({"KeyId": OTHER, "CiphertextBlob": encoded(BLOB)}, Tampered),
    "no blob": ({"KeyId": KEY}, Unavailable),
    "an empty blob": ({"KeyId": KEY, "CiphertextBlob": ""}, Unavailable),
    "the key itself": ({"KeyId": KEY, "CiphertextBlob": encoded(DATA_KEY)}, Unavailable),
    "the key in it": ({"KeyId": KEY, "CiphertextBlob": encoded(b"head" + DATA_KEY + b"tail")}, Unavailable),
    "too long": ({"KeyId": KEY, "CiphertextBlob": encoded(bytes(6145))}, Unavailable),
}


@pytest.mark.parametrize("wrong", WRONG_ENCRYPTS)
async def test_a_wrong_answer_to_encrypt_is_refused(service: Scripted, provider: Provider, wrong: str) -> None:
    body, expected = WRONG_ENCRYPTS[wrong]
    service.replies["Encrypt"] = answer(body)
    with pytest.raises(expected):
        await provider.wrap_key(DATA_KEY, CONTEXT)


NOT_ANSWERS = {
    "an HTML page": answer(b"<html><body>Bad Gateway</body></html>", 502),
    "an HTML page that pretends": answer(b"<html><body>Welcome to the hotel</body></html>"),
    "nested without end": answer(b"[" * 100_000),
    "cut in its JSON": answer(b'{"KeyId": "arn:aws'),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "an enormous body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
    "two answers": answer({}) + answer({}),
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9000,
    "not text": answer(bytes(range(128, 256))),
}


@pytest.mark.parametrize("what", NOT_ANSWERS)
async def test_what_is_no_answer_is_refused_and_the_next_call_works(
    service: Scripted, provider: Provider, what: str
) -> None:
    service.replies["Decrypt"] = NOT_ANSWERS[what]
    with pytest.raises(ProviderError) as refusal:
        await provider.unwrap_key(WRAPPED, CONTEXT)
    assert type(refusal.value) in (Unavailable, ProviderError)
    service.reset()
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY


async def test_a_throttled_call_waits_as_long_as_the_service_asks(service: Scripted, tmp_path: Any) -> None:
    provider = create(service.hsm(retryPolicy={"maxRetries": 1}), tmp_path)
    await provider.initialize()
    told = iter([error("ThrottlingException", Retry_After="0.4")])
    good = service.replies["Decrypt"]
    assert isinstance(good, bytes)
    service.replies["Decrypt"] = lambda _asked: next(told, good)
    started = time.monotonic()
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
    assert 0.4 <= time.monotonic() - started < 1.5
    await provider.close()


async def test_a_service_that_never_answers_costs_the_timeout_and_its_connection(
    service: Scripted, tmp_path: Any
) -> None:
    provider = create(service.hsm(requestTimeout=400), tmp_path)
    await provider.initialize()
    service.replies["Decrypt"] = None
    started = time.monotonic()
    calls = [provider.unwrap_key(WRAPPED, CONTEXT) for _ in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 1.5  # the benchmark says how much later than the timeout
    assert {type(result) for result in results} == {Timeout}
    usage = provider.pool_usage()
    assert usage is not None
    assert (usage.active, usage.waiting, usage.idle) == (0, 0, 0)
    service.reset()
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
    await provider.close()


async def test_the_pool_counts_what_is_open(service: Scripted, tmp_path: Any) -> None:
    provider = create(service.hsm(connectionPoolSize=4), tmp_path)
    await provider.initialize()
    await asyncio.gather(*(provider.unwrap_key(WRAPPED, CONTEXT) for _ in range(40)))
    usage = provider.pool_usage()
    assert usage is not None
    assert (usage.size, usage.active, usage.waiting) == (4, 0, 0)
    assert usage.idle == service.connections == 4
    await provider.close()


async def test_connections_are_replaced_by_age(service: Scripted, tmp_path: Any) -> None:
    provider = create(service.hsm(connectionMaxAge=1), tmp_path)
    await provider.initialize()
    await provider.unwrap_key(WRAPPED, CONTEXT)
    assert service.connections == 1
    await asyncio.sleep(1.05)
    await provider.unwrap_key(WRAPPED, CONTEXT)
    assert service.connections == 2
    await provider.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"KeyUsage": "SIGN_VERIFY"}, "SIGN_VERIFY"), ({"KeySpec": "RSA_4096"}, "RSA_4096")],
)
async def test_a_key_that_cannot_wrap_is_a_configuration_problem(
    service: Scripted, tmp_path: Any, changes: dict[str, str], problem: str
) -> None:
    service.replies["DescribeKey"] = answer({"KeyMetadata": metadata(**changes)})
    provider = create(service.hsm(), tmp_path)
    with pytest.raises(ConfigurationInvalid, match=problem):
        await provider.initialize()
    await provider.close()


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, HealthStatus.OK, "Decrypt is permitted"),
        ({"KeyState": "Disabled"}, HealthStatus.DOWN, "enable it"),
        ({"KeyState": "PendingDeletion", "DeletionDate": 1893456000}, HealthStatus.DOWN, "on 2030-01-01"),
        ({"KeyState": "PendingImport"}, HealthStatus.DOWN, "import its material"),
        ({"KeyState": "Unavailable"}, HealthStatus.DOWN, "not ready"),
    ],
)
async def test_health_follows_the_keys_state(
    service: Scripted, provider: Provider, changes: dict[str, object], status: HealthStatus, said: str
) -> None:
    service.replies["DescribeKey"] = answer({"KeyMetadata": metadata(**changes)})
    service.replies["Decrypt"] = error("DryRunOperationException")
    health = await provider.health_check()
    assert (health.status, said in health.detail) == (status, True), health


async def test_the_day_of_a_deletion_is_told_in_utc(
    service: Scripted, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Midnight in UTC is the day before in Chicago."""
    service.replies["DescribeKey"] = answer(
        {"KeyMetadata": metadata(KeyState="PendingDeletion", DeletionDate=1893456000)}
    )
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    try:
        assert "on 2030-01-01" in (await provider.health_check()).detail
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_health_notices_a_missing_permission_to_decrypt(service: Scripted, provider: Provider) -> None:
    service.replies["Decrypt"] = error("AccessDeniedException")
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "not allowed Decrypt" in health.detail
    service.replies["Decrypt"] = error("ValidationException")  # a service that knows no dry run without a ciphertext
    health = await provider.health_check()
    assert (health.status, "cannot tell" in health.detail) == (HealthStatus.OK, True)


async def test_a_moved_alias_is_seen_by_the_health_check(service: Scripted, provider: Provider) -> None:
    service.replies["DescribeKey"] = answer({"KeyMetadata": metadata(Arn=OTHER)})
    await provider.health_check()
    assert provider.describe().kek == OTHER


async def test_a_chunked_answer_is_read(service: Scripted, provider: Provider) -> None:
    whole = answer({"KeyId": KEY, "Plaintext": encoded(DATA_KEY)}).partition(b"\r\n\r\n")[2]
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (whole[:10], whole[10:]))
    service.replies["Decrypt"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    for _ in range(3):
        assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
    assert service.connections == 1
