"""What the provider says of itself, its permissions and its key: health, probes, compliance, the journal."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from providers import Denied, HealthStatus, KeyDisabled, NotFound, ProviderError, create
from providers.vault.provider import VaultProvider
from tests.providers.conformance import CONTEXT, new_key
from tests.providers.vault.rig import VaultRig
from tests.providers.vault.scripted import KEY, Asked, http, ok, refused, scripted, usual
from tests.servers.openbao import POLICY

ROOT = Path(__file__).parents[3]
READ = 'path "transit/keys/%s" { capabilities = ["read"] }'
ENCRYPT = 'path "transit/encrypt/%s" { capabilities = ["update"] }'
DECRYPT = 'path "transit/decrypt/%s" { capabilities = ["update"] }'


def allow(rig: VaultRig, *rules: str) -> None:
    rig.bao.allow(rig.key, "\n".join(rule % rig.key for rule in rules))


def made(hsm: dict[str, Any]) -> VaultProvider:
    provider = create(hsm, ROOT)
    assert isinstance(provider, VaultProvider)
    return provider


async def walk(provider: VaultProvider) -> list[tuple[str, str | ProviderError]]:
    """Every probe's title, and what it found."""
    found: list[tuple[str, str | ProviderError]] = []
    for probe in provider.probes():
        try:
            found.append((probe.title, await probe.call()))
        except ProviderError as error:
            found.append((probe.title, error))
    return found


async def test_health_notices_a_missing_permission_without_using_the_key(rig: VaultRig) -> None:
    provider = rig.make()
    assert (await provider.health_check()).status is HealthStatus.OK
    allow(rig, READ, ENCRYPT)
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert f"transit/decrypt/{rig.key}" in health.detail
    allow(rig, READ, DECRYPT)
    health = await provider.health_check()
    assert health.status is HealthStatus.DEGRADED
    assert f"transit/encrypt/{rig.key}" in health.detail
    allow(rig, READ, ENCRYPT, DECRYPT)
    assert (await provider.health_check()).status is HealthStatus.OK
    await provider.close()


async def test_health_notices_a_key_that_may_not_be_used(rig: VaultRig) -> None:
    provider = rig.make()
    await provider.initialize()
    rig.disable()
    health = await provider.health_check()
    assert health.status is HealthStatus.DOWN
    assert "soft-delete-restore" in health.detail
    await provider.close()


async def test_a_soft_deleted_key_is_not_opened(rig: VaultRig) -> None:
    rig.disable()
    provider = rig.make()
    with pytest.raises(KeyDisabled, match="soft-delete-restore"):
        await provider.initialize()
    await provider.close()


async def test_a_key_that_is_not_there_is_not_made(rig: VaultRig) -> None:
    provider = rig.make_with({"kek": f"{rig.key}-none"})
    for _ in range(2):
        with pytest.raises(NotFound, match=f"transit/keys/{rig.key}-none"):
            await provider.wrap_key(new_key(), CONTEXT)
    with pytest.raises(NotFound):
        await provider.initialize()
    await provider.close()


async def test_a_mount_that_is_not_there(rig: VaultRig) -> None:
    rig.token_file.write_text(rig.bao.root["token"])
    provider = rig.make_with({"mount": "nowhere"})
    with pytest.raises(NotFound, match=r"hsm\.mount"):
        await provider.initialize()
    await provider.close()


async def test_probes_of_what_works(rig: VaultRig) -> None:
    provider = rig.make()
    found = await walk(provider)
    assert [title for title, _ in found] == [
        "server",
        "credentials",
        "key-encryption key",
        "permission to encrypt and decrypt",
    ]
    server, credentials, key, permission = (line for _, line in found if isinstance(line, str))
    assert "release" in server
    assert rig.key in credentials
    assert rig.token not in credentials
    assert key == f"transit/{rig.key}:v1, aes256-gcm96"
    assert permission.startswith("both")
    await provider.close()


async def test_each_probe_says_what_it_misses(rig: VaultRig) -> None:
    allow(rig, READ, ENCRYPT)
    provider = rig.make()
    outcomes = dict(await walk(provider))
    assert isinstance(outcomes["permission to encrypt and decrypt"], Denied)
    assert "decrypt" in str(outcomes["permission to encrypt and decrypt"])
    await provider.close()
    missing = rig.make_with({"kek": f"{rig.key}-none"})
    allow(rig, READ, 'path "transit/keys/%s-none" { capabilities = ["read"] }')
    outcomes = dict(await walk(missing))
    assert isinstance(outcomes["server"], str)
    assert isinstance(outcomes["credentials"], str)
    assert isinstance(outcomes["key-encryption key"], NotFound)
    await missing.close()


async def test_a_token_that_could_make_keys_is_warned_of(rig: VaultRig) -> None:
    allow(rig, READ, DECRYPT, 'path "transit/encrypt/%s" { capabilities = ["create", "update"] }')
    provider = rig.make()
    assert "warning" in str(dict(await walk(provider))["permission to encrypt and decrypt"])
    await provider.close()


async def test_a_key_that_can_be_copied_is_warned_of_everywhere(
    rig: VaultRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.bao.new_key(f"{rig.key}-open", exportable=True, allow_plaintext_backup=True)
    rig.bao.allow(rig.key, f'path "transit/keys/{rig.key}-open" {{ capabilities = ["read"] }}')
    provider = rig.make_with({"kek": f"{rig.key}-open"})
    await provider.initialize()
    info = await provider.get_compliance_info()
    assert info.extractable
    line = str(dict(await walk(provider))["key-encryption key"])
    for said in (caplog.text, " ".join(info.notes), line):
        assert "exportable" in said
        assert "plaintext backup" in said
    await provider.close()


async def test_compliance_is_what_the_server_says(rig: VaultRig) -> None:
    rig.rotate()
    rig.configure(auto_rotate_period="24h", min_decryption_version=2)
    provider = rig.make()
    info = await provider.get_compliance_info()
    assert not info.extractable
    assert info.validated_to is None
    assert info.mechanisms == ("AES-256-GCM",)
    said = " ".join(info.notes)
    for word in ("made by the server", "version 2", "from version 2", "rotates every 86400 s", "deletion not allowed"):
        assert word in said
    await provider.close()


@pytest.mark.parametrize(
    ("release", "claim"),
    [("1.21.0+ent.fips1403", "FIPS 140-3"), ("1.18.1+ent.hsm.fips1402", "FIPS 140-2"), ("2.7.2", None)],
)
async def test_a_validation_is_claimed_only_of_builds_that_say_so(release: str, claim: str | None) -> None:
    def script(asked: Asked) -> bytes | None:
        if asked.path.startswith("sys/health"):
            return http(200, json.dumps({"version": release}).encode())
        return ok(KEY | {"imported_key": True, "auto_rotate_period": "720h"}) if "keys" in asked.path else usual(asked)

    async with scripted(script) as server:
        provider = made(server.hsm)
        info = await provider.get_compliance_info()
        assert (info.validated_to or "").startswith(claim or "")
        assert (info.validated_to is None) is (claim is None)
        assert "imported" in info.notes[0]
        assert "rotates every 720h" in info.notes
        await provider.close()


@pytest.mark.parametrize("status", [472, 473, 501, 503])
async def test_a_server_that_does_not_serve_is_down(status: int) -> None:
    async with scripted(
        lambda asked: refused(status) if asked.path.startswith("sys/health") else usual(asked)
    ) as server:
        provider = made(server.hsm)
        assert (await provider.health_check()).status is HealthStatus.DOWN
        await provider.close()


async def test_the_journal_holds_what_was_asked_and_nothing_secret(rig: VaultRig) -> None:
    provider, began = rig.make(), datetime.now(UTC)
    wrapped = await provider.wrap_key(key := new_key(), CONTEXT)
    with pytest.raises(NotFound):
        await provider.unwrap_key(rig.unknown_kek(wrapped), CONTEXT)
    records = await provider.get_audit_logs(began - timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=1))
    assert [(record.operation, record.succeeded) for record in records] == [("wrap_key", True), ("unwrap_key", False)]
    assert {record.source for record in records} == {"sidecar"}
    assert key.hex() not in repr(records)
    assert rig.token not in repr(records)
    await provider.close()


def test_the_documented_policy_is_enough() -> None:
    """The policy of the test server, under which every test runs, is the page's."""
    page = " ".join((ROOT / "docs/providers/vault.md").read_text().split())
    for rule in POLICY.strip().splitlines():
        assert " ".join(rule.split()) in page


async def test_a_mount_that_makes_no_keys_refuses_for_everybody(rig: VaultRig) -> None:
    rig.bao.operate("POST", "transit/config/keys", {"disable_upsert": True})
    try:
        provider = rig.make()
        await provider.initialize()
        rig.configure(deletion_allowed=True)
        rig.bao.operate("DELETE", f"transit/keys/{rig.key}")
        allow(rig, READ, 'path "transit/encrypt/%s" { capabilities = ["create", "update"] }')
        with pytest.raises(NotFound):
            await provider.wrap_key(new_key(), CONTEXT)
        await provider.close()
    finally:
        rig.bao.operate("POST", "transit/config/keys", {"disable_upsert": False})


def test_no_other_sdk_is_loaded(rig: VaultRig) -> None:
    source = (
        "import asyncio, json, sys\nfrom pathlib import Path\nimport providers\n"
        f"hsm = json.loads({json.dumps(json.dumps(rig.hsm))})\n"
        "async def use():\n"
        "    provider = providers.create(hsm, Path('/'))\n"
        "    await provider.initialize()\n"
        "    await provider.close()\n"
        "asyncio.run(use())\n"
        "json.dump(sorted({name.partition('.')[0] for name in sys.modules}), sys.stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"aiohttp", "boto3", "botocore", "aiobotocore", "google", "grpc", "azure", "pkcs11", "hvac"}
