"""The key service on the real LOCAL provider: restarts, other root keys, and a keystore that somebody rearranged."""

import sqlite3
from pathlib import Path

import pytest

from providers import Provider, create
from providers.local import create_root_key
from proxy.keyring import Purpose
from proxy.keystore import Keystore
from tests.proxy.keys.conftest import Sidecar


async def local(folder: Path, mechanism: str, key_file: str = "root.key") -> Provider:
    path = folder / key_file
    create_root_key(path)
    provider = create({"provider": "LOCAL", "keyFile": key_file, "mechanism": mechanism}, folder)
    await provider.initialize()
    return provider


@pytest.fixture(params=["AES-256-GCM", "AES-KWP"])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    return await local(tmp_path, request.param)


def serve(store: Keystore, provider: Provider) -> Sidecar:
    return Sidecar(store, provider)  # type: ignore[arg-type]  # only the interface of a provider is used here


def edit(tmp_path: Path, *statements: str) -> None:
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


async def test_keys_come_back_after_a_restart(store: Keystore, provider: Provider, url: str) -> None:
    before = serve(store, provider)
    await before.want_active("users/é 1")
    await before.want_active("contacts", purpose=Purpose.INDEX)
    await store.close()
    again = Keystore.open(url)
    after = serve(again, provider)
    await after.want_active("users/é 1")
    await after.want_active("contacts", purpose=Purpose.INDEX)
    assert after.plane.active == before.plane.active
    for key_id, slot in before.plane.slots.items():
        assert after.plane.slots[key_id].key == slot.key
    await again.close()


@pytest.mark.parametrize(
    ("change", "scope", "purpose"),
    [
        ("UPDATE data_keys SET keyring_id = (SELECT id FROM keyrings WHERE name = 'admins')", "admins/42", 0),
        ("UPDATE data_keys SET partition = '43'", "users/43", 0),
        ("UPDATE data_keys SET purpose = 1", "users/42", 1),
        ("UPDATE keyrings SET name = CASE name WHEN 'users' THEN 'admins' ELSE name || '2' END", "admins/42", 0),
    ],
)
async def test_a_rearranged_keystore_does_not_unwrap(
    store: Keystore, provider: Provider, tmp_path: Path, change: str, scope: str, purpose: int
) -> None:
    if "UPDATE data_keys" in change:
        await store.create_keyring("admins", partitioned=True)
    before = serve(store, provider)
    await before.want_active("users/42")
    edit(tmp_path, change)
    after = serve(store, provider)
    await after.want_active(scope, purpose=Purpose(purpose))
    assert after.plane.refused_scopes == {(scope, purpose): 25}
    assert after.plane.slots == {}


async def test_wraps_that_changed_places_do_not_unwrap(store: Keystore, provider: Provider, tmp_path: Path) -> None:
    before = serve(store, provider)
    await before.want_active("users/1")
    await before.want_active("users/2")
    edit(
        tmp_path,
        "CREATE TABLE kept AS SELECT * FROM wraps",
        "UPDATE wraps SET blob = (SELECT blob FROM kept WHERE kept.data_key_id != wraps.data_key_id)",
    )
    after = serve(store, provider)
    for key_id, slot in before.plane.slots.items():
        await after.want_key(key_id, slot.scope)
    assert set(after.plane.refused_keys.values()) == {25}
    assert after.plane.slots == {}


async def test_another_root_key_is_told_and_makes_no_new_key(
    store: Keystore, provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = serve(store, provider)
    await before.want_active("contacts")
    other = await local(tmp_path, "AES-256-GCM", "other.key")
    after = serve(store, other)
    await after.want_active("contacts")
    assert after.plane.refused_scopes == {("contacts", 0): 24}
    assert (await store.data_key_counts())["contacts"] == 1
    assert caplog.records
