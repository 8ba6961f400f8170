"""The four ways to a token, on a real server: got, renewed, replaced, and never asked for in a storm."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from demo.sidecar import end_with_parent
from providers import CredentialsInvalid, Denied, HealthStatus, NotFound, create
from tests.providers.conformance import CONTEXT, new_key
from tests.providers.vault.rig import VaultRig
from tests.servers.openbao import ServedBao, binary

ISSUER = "https://kubernetes.test"


def logins(bao: ServedBao, mount: str) -> int:
    """How many tokens of an auth mount live: each login makes one."""
    accessors = bao.operate("LIST", "auth/token/accessors")["data"]["keys"]
    found = 0
    for accessor in accessors:
        token = bao.operate("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        found += token["path"] == f"auth/{mount}/login"
    return found


def revoke(bao: ServedBao, mount: str) -> None:
    """End every token of an auth mount, as an operator does after an incident."""
    bao.operate("PUT", f"sys/leases/revoke-prefix/auth/{mount}/login")


@pytest.fixture(scope="module")
def approle(bao: ServedBao) -> str:
    bao.operate("POST", "sys/auth/approle", {"type": "approle"})
    return "approle"


class Role:
    """An AppRole with the policy of a rig's key, and files of its own."""

    def __init__(self, rig: VaultRig, **settings: Any) -> None:
        self.rig = rig
        self.path = f"auth/approle/role/{rig.key}"
        self.settings = {"token_policies": [rig.key], "token_ttl": "1h", **settings}
        rig.bao.operate("POST", self.path, self.settings)
        self.id = rig.bao.operate("GET", f"{self.path}/role-id")["data"]["role_id"]
        self.secret_file = rig.folder / "secret-id"
        self.secret_file.touch(mode=0o600)
        self.new_secret()

    def new_secret(self) -> None:
        secret = self.rig.bao.operate("POST", f"{self.path}/secret-id")["data"]["secret_id"]
        self.secret_file.write_text(f"{secret}\n")

    @property
    def credentials(self) -> dict[str, Any]:
        data = {"roleId": self.id, "secretIdFile": str(self.secret_file)}
        return {"credentials": {"type": "SERVICE_PRINCIPAL", "data": data}}


async def test_an_approle_logs_in_once_for_many_calls(rig: VaultRig, approle: str) -> None:
    provider = rig.make_with(Role(rig).credentials)
    before = logins(rig.bao, approle)
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    assert all(
        result == key for result in await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(40)))
    )
    assert logins(rig.bao, approle) == before + 1
    await provider.close()
    assert logins(rig.bao, approle) == before, "a token made for this process ends with it"


async def test_a_revoked_token_is_replaced_by_one_login(rig: VaultRig, approle: str) -> None:
    provider = rig.make_with(Role(rig).credentials)
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    revoke(rig.bao, approle)
    assert all(
        result == key for result in await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(40)))
    )
    assert logins(rig.bao, approle) == 1
    await provider.close()


async def test_a_lease_is_renewed_and_then_replaced_before_it_ends(rig: VaultRig, approle: str) -> None:
    provider = rig.make_with(Role(rig, token_ttl="2s", token_max_ttl="3s").credentials, retryPolicy={"maxRetries": 0})
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        await provider.unwrap_key(wrapped, CONTEXT)
        await asyncio.sleep(0.1)
    await provider.close()


async def test_a_permission_that_is_missing_costs_no_login(rig: VaultRig, approle: str) -> None:
    provider = rig.make_with(Role(rig).credentials)
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    before = logins(rig.bao, approle)
    rig.bao.allow(rig.key, f'path "transit/keys/{rig.key}" {{ capabilities = ["read"] }}')
    for result in await asyncio.gather(
        *(provider.unwrap_key(wrapped, CONTEXT) for _ in range(20)), return_exceptions=True
    ):
        assert isinstance(result, Denied)
    assert logins(rig.bao, approle) == before
    await provider.close()


async def test_a_login_without_the_default_policy_is_repeated_once_and_not_in_a_storm(
    rig: VaultRig, approle: str
) -> None:
    """Such a token may not even look itself up, so a missing permission looks like a token that has gone."""
    role = Role(rig, token_no_default_policy=True)
    provider = rig.make_with(role.credentials)
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    before = logins(rig.bao, approle)
    rig.bao.allow(rig.key, f'path "transit/keys/{rig.key}" {{ capabilities = ["read"] }}')
    for _ in range(3):
        calls = (provider.unwrap_key(wrapped, CONTEXT) for _ in range(10))
        assert all(isinstance(result, Denied) for result in await asyncio.gather(*calls, return_exceptions=True))
    assert logins(rig.bao, approle) == before + 1
    await provider.close()


async def test_refused_credentials_are_not_sent_again_until_they_change(rig: VaultRig, approle: str) -> None:
    role = Role(rig)
    good = role.secret_file.read_text()
    role.secret_file.write_text("c1a3a4a2-0000-0000-0000-000000000000\n")
    provider = rig.make_with(role.credentials)
    accepted = rig.proxy.accepted()
    with pytest.raises(CredentialsInvalid, match="roleId") as refusal:
        await provider.initialize()
    assert "c1a3a4a2" not in str(refusal.value)
    for _ in range(20):
        with pytest.raises(CredentialsInvalid, match="not sent again"):
            await provider.initialize()
    assert rig.proxy.accepted() == accepted + 1
    role.secret_file.write_text(good)
    await provider.initialize()
    assert (await provider.health_check()).status is HealthStatus.OK
    await provider.close()


async def test_a_spent_secret_id_renewed_in_its_file_is_found(rig: VaultRig, approle: str) -> None:
    role = Role(rig, secret_id_num_uses=1)
    provider = rig.make_with(role.credentials)
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    revoke(rig.bao, approle)
    with pytest.raises(CredentialsInvalid):
        await provider.unwrap_key(wrapped, CONTEXT)
    role.new_secret()
    assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


# tokens


async def test_a_token_is_renewed_before_it_ends(rig: VaultRig) -> None:
    rig.new_token(ttl="2s")
    provider = rig.make(retryPolicy={"maxRetries": 0})
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    await asyncio.sleep(4)
    assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()
    assert rig.bao.operate("POST", "auth/token/lookup", {"token": rig.token}), "a token that was given is not revoked"


async def test_a_token_put_anew_into_its_file_is_found(rig: VaultRig) -> None:
    provider = rig.make()
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    rig.bao.operate("POST", "auth/token/revoke", {"token": rig.token})
    with pytest.raises(CredentialsInvalid, match="expired, was revoked"):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert (await provider.health_check()).status is HealthStatus.DOWN
    rig.new_token()
    assert await provider.unwrap_key(wrapped, CONTEXT)
    assert (await provider.health_check()).status is HealthStatus.OK
    await provider.close()


async def test_a_token_changed_in_its_file_before_it_is_revoked_goes_unnoticed_by_callers(rig: VaultRig) -> None:
    provider = rig.make(retryPolicy={"maxRetries": 0})
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    old = rig.token
    rig.new_token()
    rig.bao.operate("POST", "auth/token/revoke", {"token": old})
    assert all(
        result == key for result in await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(20)))
    )
    await provider.close()


async def test_a_token_that_may_do_nothing_else_serves(rig: VaultRig) -> None:
    rig.new_token(no_default_policy=True, ttl="1h")
    provider = rig.make()
    assert await provider.wrap_key(new_key(), CONTEXT)
    health = await provider.health_check()
    assert health.status is HealthStatus.DEGRADED
    assert "capabilities-self" in health.detail
    await provider.close()


@pytest.mark.parametrize("token", ["hvs.nobody-knows-it", "a\nb", "with space", "gr\u00fcn", "\x7f"])
async def test_a_token_that_is_none(rig: VaultRig, token: str) -> None:
    rig.token_file.write_text(token)
    provider = rig.make()
    with pytest.raises(CredentialsInvalid) as refusal:
        await provider.initialize()
    assert token not in str(refusal.value)
    await provider.close()


# the platform's token


class Platform:
    """Signs service-account tokens, as a Kubernetes does, and writes them where a kubelet would."""

    def __init__(self, bao: ServedBao) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        bao.operate("POST", "sys/auth/kubernetes", {"type": "jwt"})
        bao.operate(
            "POST", "auth/kubernetes/config", {"jwt_validation_pubkeys": [public.decode()], "bound_issuer": ISSUER}
        )

    def token(self, subject: str, seconds: int = 600) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": subject, "aud": "vault", "iat": now, "nbf": now - 5, "exp": now + seconds}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(SHA256())))
        return (signed + b"." + _base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


@pytest.fixture(scope="module")
def platform(bao: ServedBao) -> Platform:
    return Platform(bao)


async def test_a_service_account_logs_in_and_its_renewed_token_is_read(rig: VaultRig, platform: Platform) -> None:
    rig.bao.operate(
        "POST",
        f"auth/kubernetes/role/{rig.key}",
        {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": "system:serviceaccount:app:keyside",
            "bound_audiences": ["vault"],
            "token_policies": [rig.key],
        },
    )
    file = rig.folder / "jwt"
    file.write_text(platform.token("system:serviceaccount:app:keyside"))
    file.chmod(0o644)  # as a kubelet makes it
    data = {"role": rig.key, "jwtFile": str(file)}
    provider = rig.make_with({"credentials": {"type": "IAM_ROLE", "data": data}})
    wrapped = await provider.wrap_key(new_key(), CONTEXT)
    revoke(rig.bao, "kubernetes")
    file.write_text(platform.token("system:serviceaccount:app:somebody-else"))
    with pytest.raises(CredentialsInvalid, match="service account"):
        await provider.unwrap_key(wrapped, CONTEXT)
    file.write_text(platform.token("system:serviceaccount:app:keyside"))
    assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_a_service_account_file_that_is_missing_or_empty(rig: VaultRig) -> None:
    file = rig.folder / "jwt"
    data = {"role": "any", "jwtFile": str(file)}
    provider = rig.make_with({"credentials": {"type": "IAM_ROLE", "data": data}})
    with pytest.raises(NotFound, match="jwtFile"):
        await provider.initialize()
    for content in (b"", b" \n", b"\xff\xfe", b"x" * 70_000):
        file.write_bytes(content)
        with pytest.raises(CredentialsInvalid, match="jwtFile"):
            await provider.initialize()
    await provider.close()


# an agent


@contextmanager
def agent(rig: VaultRig) -> Iterator[Path]:
    """OpenBao's own proxy on a Unix socket, which adds the token."""
    path, configuration = rig.folder / "agent.sock", rig.folder / "agent.hcl"
    configuration.write_text(
        f"""
        vault {{ address = "http://127.0.0.1:{rig.bao.port}" }}
        auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{rig.token_file}" }} }} }}
        api_proxy {{ use_auto_auth_token = true }}
        listener "unix" {{
          address                = "{path}"
          tls_disable            = true
          require_request_header = true
        }}
        """
    )
    with (
        (rig.folder / "agent.log").open("wb") as log,
        subprocess.Popen(
            [str(binary()), "proxy", f"-config={configuration}"], stdout=log, stderr=log, preexec_fn=end_with_parent
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 20
            while "authentication successful" not in (rig.folder / "agent.log").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield path
        finally:
            process.kill()


async def test_an_agent_on_a_unix_socket_adds_the_token(rig: VaultRig) -> None:
    with agent(rig) as path:
        hsm = {"provider": "VAULT_TRANSIT", "kek": rig.key, "connection": {"endpoint": f"unix://{path}"}}
        provider = create(hsm, rig.folder)
        key = new_key()
        assert await provider.unwrap_key(await provider.wrap_key(key, CONTEXT), CONTEXT) == key
        assert (await provider.health_check()).status is HealthStatus.OK
        await provider.close()
