"""LOCAL through the conformance suite, with both mechanisms and every source of the root key."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from providers import HealthStatus, NotFound, Provider, Tampered, WrapContext, WrappedKey, create
from providers.local import create_passphrase_key, create_root_key
from tests.providers.conformance import CONTEXT, Conformance, new_key
from tests.providers.rig import Rig

PASSPHRASE = b"five random words go here"


class LocalRig(Rig):
    """A root key file in a temporary folder."""

    def __init__(self, folder: Path, mechanism: str) -> None:
        self.folder = folder
        self.key_file = folder / "root.key"
        self.hsm: dict[str, object] = {"provider": "LOCAL", "keyFile": "root.key", "mechanism": mechanism}
        create_root_key(self.key_file)

    def make(self, **performance: object) -> Provider:
        return create({**self.hsm, "performance": performance}, self.folder)

    def secrets(self) -> list[bytes]:
        return [base64.b64decode(self.key_file.read_text().splitlines()[1])]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek="local:0000000000000000")

    def rotate(self) -> None:
        self.key_file.rename(self.folder / "old.key")
        create_root_key(self.key_file)
        self.hsm["retiredKeyFiles"] = ["old.key"]

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        away = self.key_file.rename(self.folder / "away.key")
        try:
            yield
        finally:
            away.rename(self.key_file)


class TestLocal(Conformance):
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_disabled_kek_is_refused": "a file has no disabled state: it is there or it is not",
        "test_back_end_away_and_back_without_restart": "there is no server; a lost key file is the row on credentials",
    }

    @pytest.fixture(params=["AES-256-GCM", "AES-KWP"])
    def rig(self, request: pytest.FixtureRequest, tmp_path: Path) -> LocalRig:
        return LocalRig(tmp_path, request.param)

    async def test_wraps_survive_a_change_of_mechanism(self, rig: LocalRig, provider: Provider) -> None:
        key = new_key()
        wrapped = await provider.wrap_key(key, CONTEXT)
        rig.hsm["mechanism"] = "AES-KWP" if wrapped.mechanism == "AES-256-GCM" else "AES-256-GCM"
        changed = rig.make()
        assert await changed.unwrap_key(wrapped, CONTEXT) == key
        relabelled = dataclasses.replace(wrapped, mechanism=changed.describe().mechanism)
        with pytest.raises(Tampered):
            await changed.unwrap_key(relabelled, CONTEXT)
        await changed.close()

    async def test_a_wrong_root_key_is_named_not_reported_as_tampering(self, rig: LocalRig, provider: Provider) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        rig.key_file.unlink()
        name = create_root_key(rig.key_file)
        other = rig.make()
        with pytest.raises(NotFound, match="restore the root key file") as refusal:
            await other.unwrap_key(wrapped, CONTEXT)
        assert wrapped.kek in str(refusal.value)
        assert name in str(refusal.value)
        await other.close()

    async def test_a_key_file_lost_or_replaced_while_serving_is_noticed(
        self, rig: LocalRig, provider: Provider
    ) -> None:
        wrapped = await provider.wrap_key(new_key(), CONTEXT)
        with rig.without_credentials():
            health = await provider.health_check()
            assert health.status is HealthStatus.DEGRADED
            assert "a restart would fail" in health.detail
            assert await provider.unwrap_key(wrapped, CONTEXT), "serves from memory meanwhile"
        rig.rotate()
        health = await provider.health_check()
        assert health.status is HealthStatus.DEGRADED
        assert "retiredKeyFiles" in health.detail

    async def test_close_wipes_every_key(self, rig: LocalRig) -> None:
        rig.rotate()
        provider = rig.make()
        await provider.initialize()
        keks = list(vars(provider)["_keks"].values())
        await provider.close()
        assert len(keks) == 2
        for kek in keks:
            held = [*vars(kek)["_wrapping"].values(), vars(kek)["_values"]]
            assert len(held) == 3
            assert not any(any(key) for key in held)

    async def test_a_missing_retired_key_is_named(self, rig: LocalRig) -> None:
        rig.hsm["retiredKeyFiles"] = ["gone.key"]
        provider = rig.make()
        with pytest.raises(NotFound, match=r"gone\.key is missing: restore it from your backup"):
            await provider.initialize()
        await provider.close()


def _hsm(**settings: object) -> dict[str, object]:
    return {"provider": "LOCAL", "performance": {"requestTimeout": 30_000}, **settings}


async def _round_trip(provider: Provider) -> str:
    key = new_key()
    assert await provider.unwrap_key(await provider.wrap_key(key, CONTEXT), CONTEXT) == key
    assert (await provider.health_check()).status is HealthStatus.OK
    kek = provider.describe().kek
    await provider.close()
    assert kek is not None
    return kek


async def test_the_default_key_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    name = create_root_key(tmp_path / "data" / "root.key")
    assert await _round_trip(create({"provider": "LOCAL"}, tmp_path)) == name


async def test_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = create_root_key(tmp_path / "root")
    (tmp_path / "root").chmod(0o440)  # as systemd leaves it where it grants the service by an ACL
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert await _round_trip(create(_hsm(systemdCredential="root"), Path("/nowhere"))) == name


@pytest.mark.parametrize("source", ["passphraseFile", "passphraseEnv", "passphraseCredential"])
async def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    name = create_passphrase_key(tmp_path / "root.scrypt", PASSPHRASE)
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE + b"\n")
    file.chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("KEYSIDE_PASSPHRASE", PASSPHRASE.decode())
    value = "KEYSIDE_PASSPHRASE" if source == "passphraseEnv" else "passphrase"
    provider = create(_hsm(passphraseKeyFile="root.scrypt", **{source: value}), tmp_path)
    assert await _round_trip(provider) == name


async def test_scopes_with_every_kind_of_name_are_kept_apart(tmp_path: Path) -> None:
    create_root_key(tmp_path / "root.key")
    provider = create(_hsm(keyFile="root.key"), tmp_path)
    contexts = [
        WrapContext(key_id, keyring, partition, "index" if key_id else "field")
        for key_id in (0, 1, 2**64 - 1)
        for keyring in ("a", "ab", "k" * 64)
        for partition in (None, "b", "zoë", "\x00", "p" * 128)
    ]
    for made_for in contexts:
        wrapped = await provider.wrap_key(new_key(), made_for)
        for tried in contexts:
            if tried == made_for:
                assert await provider.unwrap_key(wrapped, tried)
                continue
            with pytest.raises(Tampered):
                await provider.unwrap_key(wrapped, tried)
    await provider.close()
