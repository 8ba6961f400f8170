"""Every kind of credentials for real: tokens fetched, refused, expired, renewed, and their endpoints on bad days."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import pytest
from google.auth import environment_vars, iam
from google.auth.compute_engine import _metadata

from providers import (
    CredentialsInvalid,
    HealthStatus,
    NotFound,
    Provider,
    ProviderError,
    Timeout,
    Unavailable,
    WrapContext,
)
from providers.gcp import tokens
from providers.gcp.tokens import AccessToken, Issued
from tests.fakes.gcp.endpoints import MACHINE_ACCOUNT
from tests.providers.gcp.rig import GcpRig

CONTEXT = WrapContext(7, "users", "42", "field")
ENCRYPTER = "cloudkms.cryptoKeyVersions.useToEncrypt"


async def serves(provider: Provider) -> bool:
    key = os.urandom(32)
    wrapped = await provider.wrap_key(key, CONTEXT)
    return await provider.unwrap_key(wrapped, CONTEXT) == key


@pytest.fixture
def metadata(rig: GcpRig, monkeypatch: pytest.MonkeyPatch) -> GcpRig:
    """A machine of Google's: no file says who we are, and the metadata server does."""
    host = rig.google.environment["GCE_METADATA_HOST"]
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
    monkeypatch.setenv(environment_vars.GCE_METADATA_IP, host)
    monkeypatch.setenv(environment_vars.GCE_METADATA_HOST, host)
    monkeypatch.delenv(environment_vars.CREDENTIALS, raising=False)
    monkeypatch.setenv(environment_vars.CLOUD_SDK_CONFIG_DIR, str(rig.folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return rig


def with_credentials(rig: GcpRig, kind: str, data: dict[str, Any] | None = None, **performance: object) -> Any:
    hsm = rig.hsm(**performance)
    hsm["credentials"] = {"type": kind} if data is None else {"type": kind, "data": data}
    return rig.made_of(hsm)


def kinds(rig: GcpRig) -> dict[str, tuple[str, dict[str, Any] | None]]:
    token = rig.google.order("token", principal="somebody")["access_token"]
    path = rig.folder / "token"
    path.touch(mode=0o600)
    path.write_text(token + "\n")
    return {
        "service account": ("SERVICE_PRINCIPAL", {"serviceAccountKeyFile": rig.google.ready["account"]}),
        "metadata server": ("IAM_ROLE", None),
        "workload identity": ("IAM_ROLE", {"credentialFile": rig.google.ready["workload"], "project": "keyside-test"}),
        "token": ("TOKEN", {"tokenFile": "token", "project": "keyside-test"}),
    }


@pytest.mark.parametrize("kind", ["service account", "metadata server", "workload identity", "token"])
async def test_each_kind_serves(metadata: GcpRig, kind: str) -> None:
    provider = with_credentials(metadata, *kinds(metadata)[kind])
    assert await serves(provider)
    assert (await provider.health_check()).status is HealthStatus.OK
    await provider.close()


async def test_without_credentials_it_is_whoever_the_machine_is(metadata: GcpRig) -> None:
    hsm = metadata.hsm()
    del hsm["credentials"]
    provider = metadata.made_of(hsm)
    who = next(probe for probe in provider.probes() if probe.title == "credentials")
    assert MACHINE_ACCOUNT in await who.call()
    assert await serves(provider)
    await provider.close()


@pytest.mark.parametrize("kind", ["metadata server", "workload identity"])
async def test_a_token_that_expired_is_renewed_within_the_call(metadata: GcpRig, kind: str) -> None:
    provider = with_credentials(metadata, *kinds(metadata)[kind])
    assert await serves(provider)
    await asyncio.sleep(tokens.LEAST_AGE)
    metadata.google.order("revoke_tokens")
    assert await serves(provider)
    await provider.close()


async def test_eight_callers_with_one_expired_token_fetch_one_new_one(metadata: GcpRig) -> None:
    provider = with_credentials(metadata, "IAM_ROLE")
    await provider.initialize()
    await asyncio.sleep(tokens.LEAST_AGE)
    metadata.google.order("revoke_tokens")
    before = metadata.google.order("seen")["issued"]
    assert all(await asyncio.gather(*(serves(provider) for _ in range(8))))
    assert metadata.google.order("seen")["issued"] == before + 1
    await provider.close()


async def test_a_signed_token_is_made_anew_when_it_is_refused(rig: GcpRig) -> None:
    provider = rig.make()
    assert await serves(provider)
    await asyncio.sleep(1.1)  # a signature holds the time in whole seconds: the next one must differ
    rig.google.order("revoke_tokens")
    assert await serves(provider)
    await provider.close()


async def test_a_token_file_that_somebody_renews_is_read_again(rig: GcpRig) -> None:
    kind, data = kinds(rig)["token"]
    provider = with_credentials(rig, kind, data)
    assert await serves(provider)
    await asyncio.sleep(tokens.LEAST_AGE)
    rig.google.order("revoke_tokens")
    with pytest.raises(CredentialsInvalid, match="renew"):
        await serves(provider)
    assert (await provider.health_check()).status is HealthStatus.DOWN
    (rig.folder / "token").write_text(rig.google.order("token", principal="somebody")["access_token"])
    assert await serves(provider)
    assert (await provider.health_check()).status is HealthStatus.OK
    await provider.close()


async def test_a_refused_token_is_offered_once(rig: GcpRig) -> None:
    provider = with_credentials(rig, "TOKEN", {"token": "ya29.nobodys", "project": "keyside-test"})
    with pytest.raises(CredentialsInvalid) as refusal:
        await provider.initialize()
    assert "ya29" not in str(refusal.value)
    for _ in range(4):  # as many misses would
        with pytest.raises(CredentialsInvalid, match="not sent again"):
            await serves(provider)
    assert rig.google.order("seen")["calls"] == {"Encrypt": 1}
    await provider.close()


@pytest.mark.usefixtures("refusals_pass_at_once")
@pytest.mark.parametrize("kind", ["metadata server", "workload identity"])
async def test_a_token_endpoint_that_fails_is_unavailable_and_comes_back(metadata: GcpRig, kind: str) -> None:
    provider = with_credentials(metadata, *kinds(metadata)[kind], requestTimeout=20000)
    await provider.initialize()
    await asyncio.sleep(tokens.LEAST_AGE)
    metadata.google.order("revoke_tokens")
    metadata.google.order("endpoints", broken=True)
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "html" not in health.detail.lower()
    metadata.google.order("endpoints")
    assert await serves(provider)
    await provider.close()


async def test_a_token_endpoint_that_hangs_costs_the_timeout(metadata: GcpRig) -> None:
    provider = with_credentials(metadata, *kinds(metadata)["workload identity"], requestTimeout=400)
    metadata.google.order("endpoints", hanging=True)
    started = time.monotonic()
    with pytest.raises((Timeout, Unavailable)):
        await provider.initialize()
    assert time.monotonic() - started < 1.5  # the first opening imports the SDK
    metadata.google.order("endpoints")
    await provider.close()


async def test_a_workload_that_is_unknown_is_refused(metadata: GcpRig) -> None:
    workload = metadata.workload()
    subject = metadata.folder / "subject"
    subject.write_text("somebody else's token")
    workload["credential_source"]["file"] = str(subject)
    (metadata.folder / "workload.json").write_text(json.dumps(workload))
    provider = with_credentials(metadata, "IAM_ROLE", {"credentialFile": "workload.json", "project": "keyside-test"})
    with pytest.raises(CredentialsInvalid) as refusal:
        await provider.initialize()
    assert "somebody" not in str(refusal.value)
    await provider.close()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"type": "service_account"}', '{"type": "external_account"}', "\xff"]
)
async def test_a_file_that_is_no_workload_identity_is_refused(metadata: GcpRig, content: str) -> None:
    (metadata.folder / "workload.json").write_bytes(content.encode("latin-1"))
    for name in ("workload.json", "not-there.json"):
        provider = with_credentials(metadata, "IAM_ROLE", {"credentialFile": name, "project": "keyside-test"})
        with pytest.raises((CredentialsInvalid, NotFound)):
            await provider.initialize()
        await provider.close()


async def test_the_usual_variable_names_the_file_as_well(metadata: GcpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment_vars.CREDENTIALS, metadata.google.ready["workload"])
    provider = with_credentials(metadata, "IAM_ROLE", {"project": "keyside-test"})
    assert await serves(provider)
    assert "federated" in await provider.probes()[0].call()
    await provider.close()


async def test_acting_as_another_account(metadata: GcpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = (
        f"http://127.0.0.1:{metadata.google.ready['http']}/v1/projects/-/serviceAccounts/{{}}:generateAccessToken"
    )
    monkeypatch.setattr(iam, "_IAM_ENDPOINT", endpoint)
    account = "fields@keyside-test.iam.gserviceaccount.com"
    provider = with_credentials(metadata, "IAM_ROLE", {"serviceAccount": account})
    assert await serves(provider)
    assert account in await provider.probes()[0].call()
    await provider.close()
    metadata.google.order("restrict", permissions=[ENCRYPTER])
    provider = with_credentials(metadata, "IAM_ROLE", {"serviceAccount": account})
    with pytest.raises(ProviderError, match="serviceAccountTokenCreator"):
        await provider.initialize()
    await provider.close()


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"type": "service_account", "private_key": "x"}'])
async def test_a_file_that_is_no_key_is_refused_and_not_quoted(rig: GcpRig, content: str) -> None:
    path = rig.folder / "broken.json"
    path.touch(mode=0o600)
    path.write_text(content)
    provider = with_credentials(rig, "SERVICE_PRINCIPAL", {"serviceAccountKeyFile": str(path)})
    with pytest.raises(CredentialsInvalid):
        await provider.initialize()
    await provider.close()


async def test_a_machine_without_credentials_says_what_to_give(
    metadata: GcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)
    monkeypatch.setattr(_metadata, "detect_gce_residency_linux", lambda: False)
    provider = with_credentials(metadata, "IAM_ROLE")
    with pytest.raises(CredentialsInvalid, match=r"hsm\.credentials"):
        await provider.initialize()
    await provider.close()


class Scripted:
    """An issuer whose tokens live as long as they are told."""

    def __init__(self, *seconds: float | ProviderError) -> None:
        self.left = list(seconds)
        self.calls = 0

    def issue(self) -> Issued:
        self.calls += 1
        lifetime = self.left.pop(0)
        if isinstance(lifetime, ProviderError):
            raise lifetime
        return Issued(f"token {self.calls}", time.time() + lifetime, "somebody", None)


async def test_a_token_near_its_end_is_renewed_while_it_serves() -> None:
    issuer = Scripted(tokens.AHEAD - 1, 3600)
    token = AccessToken(issuer)
    assert (await token.get()).token == "token 1"
    assert (await token.get()).token == "token 1", "nobody waits for the new one"
    await asyncio.sleep(0.05)
    assert (await token.get()).token == "token 2"
    assert issuer.calls == 2
    await token.close()


async def test_a_renewal_that_fails_leaves_the_token_that_works() -> None:
    issuer = Scripted(tokens.AHEAD - 1, Unavailable("away"))
    token = AccessToken(issuer)
    for _ in range(5):
        assert (await token.get()).token == "token 1"
        await asyncio.sleep(0.02)
    assert issuer.calls == 2, "the next attempt waits"
    await token.close()


async def test_a_token_past_its_end_is_not_used() -> None:
    token = AccessToken(Scripted(-1, 3600))
    assert (await token.get()).token == "token 1"
    assert (await token.get()).token == "token 2"
    await token.close()
