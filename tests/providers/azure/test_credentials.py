"""Each kind of credentials, and what happens when they are wrong, end, or are renewed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from providers import (
    ConfigurationInvalid,
    CredentialsInvalid,
    HealthStatus,
    NotFound,
    ProviderError,
    Throttled,
    Unavailable,
    WrapContext,
)
from tests.providers.azure.rig import AzureRig
from tests.servers.azure import AUDIENCES, CLIENT_ID, CLIENT_SECRET, make_client_certificate

CONTEXT = WrapContext(7, "users", "42", "field")
KEY = bytes(32)
USER_IDENTITY = "0a1b2c3d-0000-4000-8000-000000000002"
ENVIRONMENT = (
    "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST", "HTTPS_PROXY", "HTTP_PROXY",
)  # fmt: skip


@pytest.fixture
def rig(on_hsm: AzureRig, monkeypatch: pytest.MonkeyPatch) -> AzureRig:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return on_hsm


def with_credentials(rig: AzureRig, kind: str, **data: object) -> dict[str, Any]:
    return rig.hsm() | {"credentials": {"type": kind, "data": rig.served.data(**data)}}


async def serves(rig: AzureRig, hsm: dict[str, Any]) -> None:
    provider = rig.made_of(hsm)
    assert await provider.unwrap_key(await provider.wrap_key(KEY, CONTEXT), CONTEXT) == KEY
    await provider.close()


async def refuses(rig: AzureRig, hsm: dict[str, Any], error: type[ProviderError], says: str) -> None:
    provider = rig.made_of(hsm)
    with pytest.raises(error, match=says):
        await provider.initialize()
    await provider.close()


# SERVICE_PRINCIPAL


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"clientSecret": "wrong"}, "AADSTS7000215"),
        ({"clientId": "nobody"}, "AADSTS700016"),
        ({"tenantId": "elsewhere"}, "AADSTS90002"),
    ],
)
async def test_a_refused_application_is_told_what_is_wrong(rig: AzureRig, changed: dict[str, str], says: str) -> None:
    good = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}
    hsm = with_credentials(rig, "SERVICE_PRINCIPAL", **good | changed)
    await refuses(rig, hsm, CredentialsInvalid, says)


async def test_a_corrected_secret_needs_no_restart(rig: AzureRig) -> None:
    rig.secret_file.write_text("wrong")
    provider = rig.make()
    for _ in range(2):
        with pytest.raises(CredentialsInvalid):
            await provider.wrap_key(KEY, CONTEXT)
    rig.secret_file.write_text(CLIENT_SECRET)
    assert await provider.wrap_key(KEY, CONTEXT)
    await provider.close()


async def test_a_wrong_secret_is_offered_once(rig: AzureRig) -> None:
    rig.secret_file.write_text("wrong")
    provider = rig.make()
    rig.served.do("seen")
    for refusal in await asyncio.gather(*(provider.wrap_key(KEY, CONTEXT) for _ in range(8)), return_exceptions=True):
        assert isinstance(refusal, CredentialsInvalid)
        assert "AADSTS7000215" in str(refusal)
    assert len([request for request in rig.served.do("seen") if request.startswith("entra")]) == 1
    await provider.close()


async def test_a_revoked_token_is_replaced_within_the_call(rig: AzureRig) -> None:
    provider = rig.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    rig.served.do("revoke")
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()


async def test_an_expired_token_is_replaced(rig: AzureRig) -> None:
    rig.served.do("lifetime", seconds=1)
    provider = rig.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    await asyncio.sleep(1.2)
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    rig.served.do("lifetime", seconds=3600)
    await provider.close()


async def test_a_secret_that_was_rotated_at_entra_recovers_by_the_file(rig: AzureRig) -> None:
    provider = rig.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    rig.served.do("register", client_id=CLIENT_ID, secret="a new secret")
    rig.served.do("revoke")
    with pytest.raises(CredentialsInvalid):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert (await provider.health_check()).status is HealthStatus.DOWN
    rig.secret_file.write_text("a new secret")
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    await provider.close()


async def test_many_calls_ask_for_one_token(rig: AzureRig) -> None:
    provider = rig.make(connectionPoolSize=20)
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    rig.served.do("revoke")
    rig.served.do("seen")
    answers = await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(50)))
    assert all(answer == KEY for answer in answers)
    assert sum(request.startswith("entra") for request in rig.served.do("seen")) <= 20
    await provider.close()


async def test_a_token_that_ends_soon_is_renewed_behind_the_calls(rig: AzureRig) -> None:
    rig.served.do("lifetime", seconds=200)  # inside the five minutes from the start
    provider = rig.make()
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    rig.served.do("fault", path="^entra", times=99, how="hang")
    for _ in range(5):
        started = time.monotonic()
        assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
        assert time.monotonic() - started < 3, "the token is good: nobody waits for the next one"
    rig.served.do("lifetime", seconds=3600)
    await provider.close()


@pytest.mark.usefixtures("refusals_pass_at_once")
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 503, "body": "<html>busy</html>"}, Unavailable),
        ({"status": 500, "body": "{}"}, Unavailable),
        ({"status": 429, "body": '{"error": "temporarily_unavailable"}'}, Throttled),
        ({"how": "drop"}, Unavailable),
        ({"status": 400, "body": '{"error": "x", "error_description": "AADSTS53003: blocked"}'}, CredentialsInvalid),
    ],
)
async def test_a_token_endpoint_that_fails(rig: AzureRig, fault: dict[str, Any], error: type[ProviderError]) -> None:
    rig.served.do("fault", path="^entra", times=99, **fault)
    provider = rig.make(retryPolicy={"maxRetries": 0})
    with pytest.raises(error):
        await provider.initialize()
    rig.served.do("calm")
    assert await provider.wrap_key(KEY, CONTEXT)
    await provider.close()


async def test_a_token_endpoint_that_hangs_is_bounded(rig: AzureRig) -> None:
    rig.served.do("fault", path="^entra", times=99, how="hang")
    provider = rig.make(requestTimeout=400)
    started = time.monotonic()
    with pytest.raises(ProviderError):
        await provider.initialize()
    assert time.monotonic() - started < 3
    await provider.close()


# CERTIFICATE


@pytest.mark.parametrize("password", [None, "a passphrase"])
async def test_a_certificate(rig: AzureRig, password: str | None) -> None:
    path = rig.folder / "client.pem"
    public = make_client_certificate(path, password.encode() if password else None)
    rig.served.do("register", client_id=CLIENT_ID, certificate=public)
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "certificateFile": "client.pem"}
    await serves(rig, with_credentials(rig, "CERTIFICATE", **data, **({"password": password} if password else {})))


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, NotFound), (b"no certificate", CredentialsInvalid), (b"", CredentialsInvalid)],
)
async def test_a_certificate_file_that_cannot_be_used(
    rig: AzureRig, content: bytes | None, error: type[ProviderError]
) -> None:
    path = rig.folder / "client.pem"
    if content is not None:
        path.touch(mode=0o600)
        path.write_bytes(content)
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "certificateFile": "client.pem"}
    await refuses(rig, with_credentials(rig, "CERTIFICATE", **data), error, "client.pem")


async def test_a_certificate_of_somebody_else_or_a_wrong_password(rig: AzureRig) -> None:
    path = rig.folder / "client.pem"
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "certificateFile": str(path)}
    registered = make_client_certificate(path)
    rig.served.do("register", client_id=CLIENT_ID, certificate=registered)
    make_client_certificate(path)
    await refuses(rig, with_credentials(rig, "CERTIFICATE", **data), CredentialsInvalid, "AADSTS700027")
    make_client_certificate(path, b"right")
    wrong = with_credentials(rig, "CERTIFICATE", **data, password="wrong")
    await refuses(rig, wrong, CredentialsInvalid, "password")


async def test_a_certificate_file_that_others_may_read_is_refused(rig: AzureRig) -> None:
    path = rig.folder / "client.pem"
    make_client_certificate(path)
    path.chmod(0o644)
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "certificateFile": "client.pem"}
    await refuses(rig, with_credentials(rig, "CERTIFICATE", **data), CredentialsInvalid, "0644")


# IAM_ROLE


async def test_managed_identity_of_a_virtual_machine(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.served.do("register", client_id="system", system=True)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", rig.served.urls["machine"])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # the machine's own endpoint is asked without it
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await serves(rig, with_credentials(rig, "IAM_ROLE"))


async def test_managed_identity_of_an_app_service_by_its_client_id(
    rig: AzureRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.served.do("register", client_id=USER_IDENTITY)
    monkeypatch.setenv("IDENTITY_ENDPOINT", rig.served.urls["machine"] + "/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", rig.served.urls["identity_header"])
    await serves(rig, with_credentials(rig, "IAM_ROLE", clientId=USER_IDENTITY))


async def test_a_machine_without_that_identity(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", rig.served.urls["machine"])
    hsm = with_credentials(rig, "IAM_ROLE", clientId="nobody")
    await refuses(rig, hsm, CredentialsInvalid, "400")


async def test_a_machine_without_an_identity_endpoint(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    await refuses(rig, with_credentials(rig, "IAM_ROLE"), Unavailable, "managed identity")


async def test_an_identity_endpoint_that_hangs_is_bounded(rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", rig.served.urls["machine"])
    rig.served.do("fault", path="^machine", times=99, how="hang")
    hsm = with_credentials(rig, "IAM_ROLE") | {"performance": {"requestTimeout": 400}}
    started = time.monotonic()
    await refuses(rig, hsm, ProviderError, "requestTimeout")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("configured", [True, False])
async def test_workload_identity(rig: AzureRig, monkeypatch: pytest.MonkeyPatch, configured: bool) -> None:
    file = rig.folder / "federated"
    file.write_text("eyJ.federated.token")
    rig.served.do("register", client_id=CLIENT_ID, federated_token="eyJ.federated.token")
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "federatedTokenFile": "federated"}
    if not configured:  # as AKS does it
        for name, value in zip(ENVIRONMENT, data.values(), strict=False):
            monkeypatch.setenv(name, str(rig.folder / value) if value == "federated" else value)
        data = {}
    await serves(rig, with_credentials(rig, "IAM_ROLE", **data))


async def test_workload_identity_that_nobody_trusts_or_that_is_not_there(rig: AzureRig) -> None:
    rig.served.do("register", client_id=CLIENT_ID, federated_token="another")
    data = {"tenantId": rig.served.urls["tenant"], "clientId": CLIENT_ID, "federatedTokenFile": "federated"}
    await refuses(rig, with_credentials(rig, "IAM_ROLE", **data), CredentialsInvalid, "cannot be read")
    (rig.folder / "federated").write_text("eyJ.federated.token")
    await refuses(rig, with_credentials(rig, "IAM_ROLE", **data), CredentialsInvalid, "AADSTS700213")
    del data["tenantId"]
    await refuses(rig, with_credentials(rig, "IAM_ROLE", **data), CredentialsInvalid, "tenantId")


# TOKEN


async def test_a_token_from_a_file_is_read_anew(rig: AzureRig) -> None:
    file = rig.folder / "token"
    file.touch(mode=0o600)
    file.write_text(rig.served.do("token", client_id=CLIENT_ID, audience=AUDIENCES["hsm"]))
    provider = rig.made_of(with_credentials(rig, "TOKEN", tokenFile="token"))
    wrapped = await provider.wrap_key(KEY, CONTEXT)
    rig.served.do("revoke")
    file.write_text(rig.served.do("token", client_id=CLIENT_ID, audience=AUDIENCES["hsm"]))
    assert await provider.unwrap_key(wrapped, CONTEXT) == KEY
    rig.served.do("revoke")
    with pytest.raises(CredentialsInvalid, match="does not accept"):
        await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_a_token_that_has_ended_is_not_sent(rig: AzureRig) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) - 1}).encode()).decode().rstrip("=")
    await refuses(rig, with_credentials(rig, "TOKEN", token=f"e30.{payload}.x"), CredentialsInvalid, "has expired")


async def test_a_token_for_another_audience_is_refused_by_the_vault(rig: AzureRig) -> None:
    token = rig.served.do("token", client_id=CLIENT_ID, audience=AUDIENCES["vault"])
    await refuses(rig, with_credentials(rig, "TOKEN", token=token), CredentialsInvalid, "audience")


# what tokens are for


async def test_tokens_are_for_the_configured_audience_whatever_the_challenge_says(rig: AzureRig) -> None:
    challenge = 'Bearer authorization="https://login.microsoftonline.com/x", resource="https://management.azure.com"'
    headers = {"WWW-Authenticate": challenge}
    rig.served.do("fault", path="^vault", status=401, headers=headers, body="{}")
    await serves(rig, rig.hsm())


async def test_a_wrong_audience_is_refused_by_the_vault(rig: AzureRig) -> None:
    hsm = rig.hsm()
    hsm["credentials"]["data"]["audience"] = "https://management.azure.com"
    hsm["mechanism"] = "A256GCM"
    await refuses(rig, hsm, CredentialsInvalid, "audience")


async def test_without_an_audience_a_challenge_of_another_domain_is_refused(rig: AzureRig) -> None:
    hsm = rig.hsm()
    del hsm["credentials"]["data"]["audience"]
    hsm["mechanism"] = "A256GCM"
    rig.served.do("seen")
    await refuses(rig, hsm, CredentialsInvalid, "another domain")
    assert not any(request.startswith("entra") for request in rig.served.do("seen"))


# TLS


async def test_a_vault_with_a_certificate_of_nobody_we_know(rig: AzureRig) -> None:
    hsm = rig.hsm(retryPolicy={"maxRetries": 0})
    del hsm["connection"]["tls"]
    await refuses(rig, hsm, Unavailable, "not trusted")


async def test_files_of_tls_that_are_not_there(rig: AzureRig) -> None:
    hsm = rig.hsm()
    hsm["connection"]["tls"]["caFile"] = "nowhere.pem"
    await refuses(rig, hsm, CredentialsInvalid, "connection.tls")


async def test_tls_1_3_alone(rig: AzureRig) -> None:
    hsm = rig.hsm()
    hsm["connection"]["tls"]["minimumVersion"] = "1.3"
    await serves(rig, hsm)


async def test_without_the_sdk_the_message_says_what_to_install(
    rig: AzureRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("providers.azure.")]:
        if name.rpartition(".")[2] not in ("options", "names", "provider"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "azure.keyvault.keys.aio", None)
    provider = rig.make()
    with pytest.raises(ConfigurationInvalid, match=r"keyside-proxy\[azure\]"):
        await provider.initialize()
    await provider.close()
