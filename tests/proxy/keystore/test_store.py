"""What goes in comes out, conflicts are refused, and a thousand writers share a few flushes."""

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keyring import InvalidKeyring, InvalidName, KeyState, Purpose, Scope, utc_now
from proxy.keystore import (
    AlreadyActive,
    AnotherInstance,
    KeyIdTaken,
    KeyringExists,
    KeyringUnknown,
    Keystore,
    KeystoreClosed,
)
from proxy.keystore.schema import KeyId
from tests.proxy.conftest import MakeKey


async def test_keyrings_are_kept(store: Keystore, url: str) -> None:
    made = await store.create_keyring("tokens", index_bits=256)
    assert await store.keyring("tokens") == made
    assert await store.keyring("nothing") is None
    assert [keyring.name for keyring in await store.keyrings()] == ["contacts", "tokens", "users"]
    await store.close()
    again = Keystore.open(url)
    assert await again.keyring("tokens") == made
    assert made.created_at.tzinfo is not None
    await again.close()


async def test_bad_keyrings_are_refused(store: Keystore) -> None:
    with pytest.raises(KeyringExists):
        await store.create_keyring("users")
    with pytest.raises(InvalidName):
        await store.create_keyring("us/ers")
    with pytest.raises(InvalidKeyring):
        await store.create_keyring("tokens", index_bits=7)
    assert len(await store.keyrings()) == 2


async def test_a_data_key_is_kept_whole(store: Keystore, make_key: MakeKey) -> None:
    key = make_key("users/é/1 2", leased=2**32)
    await store.insert_active(key)
    assert await store.key(key.id) == key
    assert await store.latest_key(key.scope, Purpose.FIELD) == key
    assert await store.active_key(key.scope, Purpose.FIELD) == key
    assert await store.latest_key(key.scope, Purpose.INDEX) is None
    assert await store.key(key.id ^ 1) is None


async def test_a_data_key_may_have_several_wraps(store: Keystore, make_key: MakeKey) -> None:
    key = make_key()
    second = replace(key.wraps[0], provider="AWS_KMS", created_at=key.created_at + timedelta(seconds=1))
    third = replace(key.wraps[0], kek="kek-2", created_at=key.created_at + timedelta(seconds=2))
    key = replace(key, wraps=(key.wraps[0], second, third))
    await store.insert_active(key)
    assert await store.key(key.id) == key


@pytest.mark.parametrize("key_id", [1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1])
async def test_ids_of_64_bits_survive(store: Keystore, make_key: MakeKey, key_id: int, tmp_path: Path) -> None:
    await store.insert_active(make_key(key_id=key_id))
    found = await store.key(key_id)
    assert found is not None
    assert found.id == key_id
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        ((stored,),) = raw.execute("SELECT id FROM data_keys").fetchall()
    raw.close()
    assert stored.to_bytes(8, "big", signed=True) == key_id.to_bytes(8, "big")


@given(st.integers(0, 2**64 - 1))
def test_no_two_ids_are_stored_alike(key_id: int) -> None:
    column = KeyId()
    stored = column.process_bind_param(key_id, None)  # type: ignore[arg-type]  # the dialect is not looked at
    assert stored is not None
    assert -(2**63) <= stored < 2**63
    assert column.process_result_value(stored, None) == key_id  # type: ignore[arg-type]  # as above


async def test_timestamps_are_utc_on_disk(store: Keystore, make_key: MakeKey, tmp_path: Path) -> None:
    key = make_key()
    east = key.created_at.astimezone(timezone(timedelta(hours=9)))
    await store.insert_active(replace(key, created_at=east))
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        ((text,),) = raw.execute("SELECT created_at FROM data_keys").fetchall()
    raw.close()
    assert text == key.created_at.strftime("%Y-%m-%d %H:%M:%S.%f")
    found = await store.key(key.id)
    assert found is not None
    assert found.created_at == key.created_at
    assert found.created_at.tzinfo is UTC


async def test_a_new_active_key_demotes_the_former(store: Keystore, make_key: MakeKey) -> None:
    first, second, other = make_key("users/1"), make_key("users/1", generation=2), make_key("users/2")
    for key in (first, other, second):
        await store.insert_active(key)
    found = {key_id: await store.key(key_id) for key_id in (first.id, second.id, other.id)}
    assert {key_id: key and key.state for key_id, key in found.items()} == {
        first.id: KeyState.DECRYPT_ONLY,
        second.id: KeyState.ACTIVE,
        other.id: KeyState.ACTIVE,
    }
    assert await store.active_key(Scope("users", "1"), Purpose.FIELD) == second


async def test_one_of_many_writers_of_a_generation_wins(store: Keystore, make_key: MakeKey) -> None:
    outcomes = await asyncio.gather(
        *(store.insert_active(make_key("users/1")) for _ in range(50)), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, AlreadyActive) for outcome in outcomes) == 49
    assert (await store.data_key_counts())["users"] == 1


async def test_a_taken_id_changes_nothing(store: Keystore, make_key: MakeKey) -> None:
    first = make_key("users/1")
    await store.insert_active(first)
    with pytest.raises(KeyIdTaken):
        await store.insert_active(make_key("users/1", key_id=first.id, generation=2))
    with pytest.raises(KeyIdTaken):
        await store.insert_active(make_key("contacts", key_id=first.id))
    assert await store.active_key(first.scope, Purpose.FIELD) == first


async def test_a_key_needs_its_keyring(store: Keystore, make_key: MakeKey) -> None:
    with pytest.raises(KeyringUnknown):
        await store.insert_active(make_key("nowhere"))


async def test_a_key_without_its_wrap_is_never_stored(store: Keystore, make_key: MakeKey) -> None:
    key = make_key()
    broken = replace(
        key, wraps=(key.wraps[0], key.wraps[0])
    )  # the second breaks the primary key, after the data key went in
    with pytest.raises(AlreadyActive):
        await store.insert_active(broken)
    assert await store.key(key.id) is None


async def test_states_are_kept(store: Keystore, make_key: MakeKey) -> None:
    key = make_key()
    await store.insert_active(key)
    assert await store.set_state(key.id, KeyState.DISABLED)
    assert not await store.set_state(key.id ^ 1, KeyState.DISABLED)
    latest = await store.latest_key(key.scope, Purpose.FIELD)
    assert latest is not None
    assert latest.state is KeyState.DISABLED
    assert await store.active_key(key.scope, Purpose.FIELD) is None
    assert await store.lease(key.id, 10, 2**32) == 0


async def test_leases_are_counted_to_the_last_message(store: Keystore, make_key: MakeKey) -> None:
    key = make_key(leased=100)
    await store.insert_active(key)
    assert [await store.lease(key.id, 60, 250) for _ in range(4)] == [60, 60, 30, 0]
    assert await store.lease(key.id, 60, 200) == 0  # the limit was lowered: nothing is taken back
    assert await store.lease(key.id ^ 1, 60, 250) == 0
    found = await store.key(key.id)
    assert found is not None
    assert found.messages_leased == 250


async def test_a_thousand_creations_share_a_few_transactions(store: Keystore, make_key: MakeKey) -> None:
    before = store.stats()["write_transactions"]
    keys = [make_key(f"users/{number}") for number in range(1000)]
    await asyncio.gather(*(store.insert_active(key) for key in keys))
    assert store.stats()["write_transactions"] - before <= 20
    assert store.stats()["writes"] >= 1000
    assert await asyncio.gather(*(store.key(key.id) for key in keys)) == keys
    assert store.stats()["read_transactions"] <= 40


async def test_one_refused_change_does_not_undo_its_group(store: Keystore, make_key: MakeKey) -> None:
    keys = [make_key("users/same" if number % 3 == 0 else f"users/{number}") for number in range(90)]
    outcomes = await asyncio.gather(*(store.insert_active(key) for key in keys), return_exceptions=True)
    assert store.stats()["write_transactions"] < 20
    for key, outcome in zip(keys, outcomes, strict=True):
        assert (await store.key(key.id) is not None) is (outcome is None)
    assert outcomes.count(None) == 61


async def test_a_defect_in_one_job_reaches_its_caller_alone(store: Keystore, make_key: MakeKey) -> None:
    outcomes = await asyncio.gather(
        store.insert_active(make_key("users/1")),
        store.insert_active(None),  # type: ignore[arg-type]  # the defect
        store.insert_active(make_key("users/2")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), AttributeError, type(None)]


async def test_who_stops_waiting_disturbs_nobody(store: Keystore, make_key: MakeKey) -> None:
    tasks = [asyncio.ensure_future(store.insert_active(make_key(f"users/{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 10
    assert outcomes.count(None) == 10


async def test_a_second_instance_is_kept_out_by_name(store: Keystore, url: str) -> None:
    import os

    with pytest.raises(AnotherInstance, match=rf"pid {os.getpid()}\b"):
        Keystore.open(url)
    await store.close()
    await Keystore.open(url).close()


async def test_closed_is_closed(store: Keystore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(KeystoreClosed):
        await store.keyrings()
    with pytest.raises(KeystoreClosed):
        await store.create_keyring("late")


async def test_what_was_asked_for_before_closing_is_done(store: Keystore, url: str, make_key: MakeKey) -> None:
    keys = [make_key(f"users/{number}") for number in range(100)]
    writes = asyncio.gather(*(store.insert_active(key) for key in keys))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), writes)
    again = Keystore.open(url)
    assert (await again.data_key_counts())["users"] == 100
    await again.close()


async def test_commits_are_flushed(store: Keystore, tmp_path: Path) -> None:
    with store._engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    await store.check()


async def test_nothing_of_a_wrap_is_in_messages(store: Keystore, make_key: MakeKey) -> None:
    key = make_key()
    key = replace(key, wraps=(replace(key.wraps[0], blob=b"sesame" * 10), replace(key.wraps[0], blob=b"sesame" * 10)))
    with pytest.raises(AlreadyActive) as caught:
        await store.insert_active(key)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "sesame" not in f"{chain!r} {chain}"
        chain = chain.__cause__ or chain.__context__
    assert "sesame" not in f"{key!r}"


def test_now_is_aware() -> None:
    assert utc_now().tzinfo is UTC
