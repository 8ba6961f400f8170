"""Where credentials come from, and what happens when they end."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from providers import CredentialsInvalid, Denied, NotFound, ProviderError, WrapContext, create
from tests.providers.aws.rig import AwsRig
from tests.providers.aws.scripted import DATA_KEY, Reply, Scripted, answer, error, scripted
from tests.providers.aws.test_answers import WRAPPED
from tests.servers.aws import HOST, ServedAws

CONTEXT = WrapContext(7, "users", None, "field")
ROLE = "arn:aws:iam::123456789012:role/keyside"


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script


@pytest.fixture
def role(moto: ServedAws, monkeypatch: pytest.MonkeyPatch) -> str:
    """A role of moto, and an environment in which STS is moto's too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_key)
    return ROLE


def with_role(rig: AwsRig, **data: object) -> dict[str, Any]:
    return {**rig.hsm(), "credentials": {"type": "IAM_ROLE", "data": data}}


async def serves(rig: AwsRig, hsm: dict[str, Any]) -> str:
    """Wrap and unwrap with these settings; returns who it was done as."""
    provider = rig.made_of(hsm)
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    who = await provider.probes()[0].call()
    await provider.close()
    return who


async def test_the_default_chain_finds_the_environment(moto_rig: AwsRig, role: str) -> None:
    assert await serves(moto_rig, {**moto_rig.hsm(), "credentials": {"type": "IAM_ROLE"}})
    hsm = moto_rig.hsm()
    del hsm["credentials"]
    assert await serves(moto_rig, hsm)


async def test_a_role_is_assumed_with_external_id_and_session_name(moto_rig: AwsRig, role: str) -> None:
    who = await serves(moto_rig, with_role(moto_rig, roleArn=role, externalId="42", sessionName="one-sidecar"))
    assert who == "arn:aws:sts::123456789012:assumed-role/keyside/one-sidecar"


async def test_a_web_identity_is_exchanged_for_a_role(
    moto_rig: AwsRig, role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    token = tmp_path / "token"
    token.write_text("a.web.token\n")
    token.chmod(0o644)
    settings = with_role(moto_rig, roleArn=role, webIdentityTokenFile=str(token))
    assert "assumed-role/keyside/keyside" in await serves(moto_rig, settings)
    monkeypatch.setenv("AWS_ROLE_ARN", role)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert "assumed-role" in await serves(moto_rig, with_role(moto_rig))
    token.unlink()
    provider = moto_rig.made_of(settings)
    with pytest.raises(CredentialsInvalid, match="webIdentityTokenFile"):
        await provider.initialize()
    await provider.close()


async def test_a_container_hands_out_credentials(moto_rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def hand_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        writer.write(
            answer(
                {
                    "AccessKeyId": "AKIACONTAINER",
                    "SecretAccessKey": "secret",
                    "Token": "token",
                    "Expiration": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                Connection="close",
            )
        )
        writer.close()

    server = await asyncio.start_server(hand_out, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{HOST}:{port}/credentials")
    provider = moto_rig.made_of(with_role(moto_rig))
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert asked == 1
    await provider.close()
    server.close()


async def test_no_credentials_anywhere_is_said(moto_rig: AwsRig) -> None:
    provider = moto_rig.made_of(with_role(moto_rig))
    with pytest.raises(CredentialsInvalid, match="give the sidecar a role"):
        await provider.initialize()
    await provider.close()


async def test_a_role_that_may_not_be_taken_on_is_a_matter_of_credentials(moto_rig: AwsRig, role: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>secret-token</Message></Error></ErrorResponse>"
        writer.write(answer(body, 403, Connection="close"))
        writer.close()

    server = await asyncio.start_server(refuse, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    provider = moto_rig.made_of(with_role(moto_rig, roleArn=role, stsEndpoint=f"http://{HOST}:{port}"))
    with pytest.raises(CredentialsInvalid, match="trust policy") as refusal:
        await provider.initialize()
    assert "secret-token" not in str(refusal.value)
    await provider.close()
    server.close()


async def test_credentials_that_end_are_read_anew_within_the_call(service: Scripted, tmp_path: Path) -> None:
    """Temporary keys in files that somebody else renews."""
    files = {name: tmp_path / name for name in ("accessKeyId", "secretAccessKey", "sessionToken")}
    for path in files.values():
        path.touch(0o600)
        path.write_text("first")
    hsm = service.hsm(retryPolicy={"maxRetries": 2, "backoffMultiplier": 1})
    hsm["credentials"] = {"type": "TOKEN", "data": {f"{name}File": str(path) for name, path in files.items()}}
    provider = create(hsm, tmp_path)
    await provider.initialize()
    accepted = "first"

    def judged(good: Reply) -> Reply:
        assert isinstance(good, bytes)
        token = "X-Amz-Security-Token: "
        return lambda _asked: good if token + accepted in service.heads[-1] else error("ExpiredTokenException")

    service.replies = {operation: judged(good) for operation, good in service.replies.items()}
    accepted = "second"
    files["sessionToken"].write_text("second")
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY, "the call that met the end of the first succeeds"
    accepted = "third"
    for _ in range(2):
        with pytest.raises(CredentialsInvalid, match="expired"):
            await provider.unwrap_key(WRAPPED, CONTEXT)
    files["sessionToken"].write_text("third")
    assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
    await provider.close()


async def test_a_refused_key_is_offered_once(service: Scripted, tmp_path: Path) -> None:
    service.replies["DescribeKey"] = error("UnrecognizedClientException")
    provider = create(service.hsm(), tmp_path)
    misses = (provider.unwrap_key(WRAPPED, CONTEXT) for _ in range(8))
    for refusal in await asyncio.gather(*misses, return_exceptions=True):
        assert isinstance(refusal, CredentialsInvalid)
        assert "UnrecognizedClientException" in str(refusal)
    assert [operation for operation, _ in service.asked] == ["describekey"]
    assert "UnrecognizedClientException" in (await provider.health_check()).detail
    await provider.close()


async def test_the_log_holds_no_traceback_of_the_sdk(
    moto_rig: AwsRig, role: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a role's credentials cannot be renewed it logs one at each attempt; what is raised says it once."""
    provider = moto_rig.made_of(with_role(moto_rig, roleArn=role, webIdentityTokenFile=str(tmp_path / "away")))
    with pytest.raises(CredentialsInvalid, match="webIdentityTokenFile"):
        await provider.initialize()
    assert [record.name for record in caplog.records if not record.name.startswith("providers.")] == []
    assert not any(record.exc_info for record in caplog.records)
    await provider.close()


async def test_a_role_is_renewed_before_its_credentials_expire(
    moto_rig: AwsRig, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = moto_rig.made_of(with_role(moto_rig, roleArn=role, duration=900))
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    assert provider._kms is not None
    credentials = await provider._kms._session.get_credentials()
    first = (await credentials.get_frozen_credentials()).access_key
    credentials._expiry_time -= datetime.timedelta(minutes=14)  # a minute is left: botocore must renew by then
    assert await provider.unwrap_key(wrapped, CONTEXT) == bytes(32)
    assert (await credentials.get_frozen_credentials()).access_key != first
    await provider.close()


@pytest.mark.parametrize("missing", ["accessKeyIdFile", "secretAccessKeyFile"])
async def test_a_missing_file_is_named(moto_rig: AwsRig, missing: str) -> None:
    hsm = moto_rig.hsm()
    hsm["credentials"]["data"][missing] += ".gone"
    provider = moto_rig.made_of(hsm)
    with pytest.raises(NotFound, match=missing.removesuffix("File")):
        await provider.initialize()
    await provider.close()


async def test_secrets_are_in_no_message(moto_rig: AwsRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    hsm = moto_rig.hsm()
    hsm["credentials"]["data"] = {
        "accessKeyId": "AKIAINLINE",
        "secretAccessKey": "inline-secret",
        "sessionToken": "tok3n",
    }
    provider = moto_rig.made_of(hsm)
    wrapped = await provider.wrap_key(bytes(32), CONTEXT)
    with pytest.raises(ProviderError) as refusal:
        await provider.encrypt(b"x", key="no such key")
    said = caplog.text + str(refusal.value) + repr(provider.describe()) + repr(wrapped) + repr(provider._options)
    for secret in ("inline-secret", "tok3n"):
        assert secret not in said
    await provider.close()


async def test_denied_is_not_taken_for_bad_credentials(service: Scripted, tmp_path: Path) -> None:
    provider = create(service.hsm(), tmp_path)
    service.replies["DescribeKey"] = error("AccessDeniedException")
    with pytest.raises(Denied):
        await provider.initialize()
    await provider.close()
