"""A miss becomes a key in the cache or a refusal with its code, once for all who wait, and is always completed."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fastpath.dataplane import KeyMiss
from providers import (
    Closed,
    CredentialsInvalid,
    Denied,
    KeyDisabled,
    NotFound,
    ProviderError,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
)
from proxy.keyring import KeyState, Purpose, Scope
from proxy.keys.complaints import Complaints
from proxy.keystore import KeystoreFull, KeystoreLocked
from tests.proxy.backends import CountingProvider
from tests.proxy.keys.conftest import OPTIONS, MakeSidecar, Sidecar


def failing(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def edit(tmp_path: Path, *statements: str) -> None:
    """Change the keystore's file behind the sidecar's back."""
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


async def test_first_use_is_durable_before_it_is_used(sidecar: Sidecar, tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []
    install = sidecar.plane.install

    def look(key_id: int, *arguments: object, **options: object) -> None:
        with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
            seen.extend(raw.execute("SELECT messages_leased, state, length(blob) FROM data_keys JOIN wraps").fetchall())
        raw.close()
        install(key_id, *arguments, **options)  # type: ignore[arg-type]  # passed on as they came

    sidecar.plane.install = look  # type: ignore[method-assign]  # to look at the right moment
    await sidecar.want_active("users/42", wanted=7)
    key = await sidecar.active("users/42")
    assert seen == [(1_000, "active", 60)]
    assert sidecar.plane.log == [
        ("install", key.id, "users/42", 0),
        ("activate", key.id, 1_000),
        ("complete", 301),
    ]
    assert key.messages_leased == 1_000
    assert key.generation == 1


async def test_the_installed_key_is_the_wrapped_one(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    other = make_sidecar()
    await other.want_key(key.id, "users/42")
    assert other.plane.slots[key.id].key == sidecar.plane.slots[key.id].key
    assert len(set(other.plane.slots[key.id].key)) > 8


async def test_an_index_key_has_its_bits_and_no_budget(sidecar: Sidecar) -> None:
    await sidecar.want_active("users", purpose=Purpose.INDEX)
    await sidecar.want_active("users/1", purpose=Purpose.INDEX)
    await sidecar.want_active("contacts", purpose=Purpose.INDEX)
    bits = {slot.scope: (slot.index_bits, slot.budget, slot.purpose) for slot in sidecar.plane.slots.values()}
    assert bits == {"users": (64, 0, 1), "users/1": (64, 0, 1), "contacts": (128, 0, 1)}
    assert (await sidecar.active("users", Purpose.INDEX)).messages_leased == 0


async def test_an_index_key_never_rotates(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("contacts", purpose=Purpose.INDEX)
    first = await sidecar.active("contacts", Purpose.INDEX)
    for _ in range(3):
        other = make_sidecar(replace(OPTIONS, messages_per_key=10, lease=10))
        await other.want_active("contacts", wanted=100, purpose=Purpose.INDEX)
        assert other.plane.active == {("contacts", 1): first.id}


async def test_a_thousand_misses_for_one_key_cost_one_unwrap(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    other = make_sidecar()
    await asyncio.gather(
        *(other.want_key(key.id, "users/42") for _ in range(900)), *(other.want_active("users/42") for _ in range(100))
    )
    assert sidecar.provider.unwraps == 1
    assert len(other.plane.completed) == 1000
    assert sum(entry[0] == "install" for entry in other.plane.log) == 1
    assert other.service.stats()["coalesced"] >= 990


async def test_a_worker_that_asks_late_costs_no_second_unwrap(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    other = make_sidecar()
    await other.want_key(key.id, "users/42")
    await other.want_key(key.id, "users/42")
    await other.want_active("users/42")
    assert sidecar.provider.unwraps == 1
    other.plane.evict(key.id)
    await other.want_key(key.id, "users/42")
    assert sidecar.provider.unwraps == 2


async def test_a_thousand_first_uses_of_one_scope_make_one_key(sidecar: Sidecar) -> None:
    await asyncio.gather(*(sidecar.want_active("users/42") for _ in range(1000)))
    assert sidecar.provider.wraps == 1
    assert (await sidecar.store.data_key_counts())["users"] == 1


async def test_a_thousand_scopes_are_bounded_at_the_provider_and_grouped_at_the_disk(sidecar: Sidecar) -> None:
    before = sidecar.store.stats()["write_transactions"]
    await asyncio.gather(*(sidecar.want_active(f"users/{number}") for number in range(1000)))
    assert (await sidecar.store.data_key_counts())["users"] == 1000
    assert len(sidecar.plane.active) == len(sidecar.plane.completed) == 1000
    assert sidecar.provider.most_at_once <= 8
    assert sidecar.store.stats()["write_transactions"] - before <= 400
    assert len({slot.key for slot in sidecar.plane.slots.values()}) == 1000


async def test_two_sidecars_agree_on_the_first_key(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    other = make_sidecar()
    await asyncio.gather(*(side.want_active("users/42") for side in (sidecar, other)))
    assert sidecar.plane.active == other.plane.active
    (key_id,) = sidecar.plane.active.values()
    assert sidecar.plane.slots[key_id].key == other.plane.slots[key_id].key
    leased = (await sidecar.active("users/42")).messages_leased
    assert leased == sum(side.plane.slots[key_id].budget for side in (sidecar, other)) == 2_000


async def test_a_taken_id_is_drawn_again(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter([5, 5, 5, 6])
    monkeypatch.setattr("proxy.keys.supply.random_key_id", lambda: next(ids))
    await sidecar.want_active("users/1")
    await sidecar.want_active("users/2")
    assert sidecar.plane.active == {("users/1", 0): 5, ("users/2", 0): 6}


async def test_ids_that_collide_for_ever_end_in_a_refusal(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.keys.supply.random_key_id", lambda: 5)
    await sidecar.want_active("users/1")
    await sidecar.want_active("users/2")
    assert sidecar.plane.refused_scopes == {("users/2", 0): 23}


@pytest.mark.parametrize(
    ("scope", "purpose"),
    [("users", 0), ("nowhere", 0), ("nowhere/1", 1), ("contacts/1", 0), ("contacts/1", 1)],
)
async def test_wrong_forms_and_unknown_keyrings_are_refused(sidecar: Sidecar, scope: str, purpose: int) -> None:
    await sidecar.want_active(scope, purpose=Purpose(purpose))
    assert sidecar.plane.log == [("refuse_scope", scope, purpose, 18, 50), ("complete", 301)]
    if purpose == 0:
        await sidecar.want_key(1, scope)
        assert sidecar.plane.log[-2:] == [("refuse_key", 1, scope, 18, 50), ("complete", 302)]
    assert sidecar.provider.wraps == sidecar.provider.unwraps == 0


async def test_unknown_ids_and_wrong_scopes_cost_no_unwrap(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/42")
    await sidecar.want_active("users/42", purpose=Purpose.INDEX)
    key, index = await sidecar.active("users/42"), await sidecar.active("users/42", Purpose.INDEX)
    other = make_sidecar()
    await other.want_key(key.id, "users/43")
    await other.want_key(key.id, "contacts")
    await other.want_key(index.id, "users/42")  # the id of an index key in a forged envelope
    await other.want_key(key.id ^ 1, "users/42")
    assert other.plane.refused_keys == {
        (key.id, "users/43"): 20,
        (key.id, "contacts"): 20,
        (index.id, "users/42"): 20,
        (key.id ^ 1, "users/42"): 19,
    }
    assert other.plane.slots == {}
    assert sidecar.provider.unwraps == 0


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.DESTROYED])
async def test_disabled_and_destroyed_keys(sidecar: Sidecar, make_sidecar: MakeSidecar, state: KeyState) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    await sidecar.store.set_state(key.id, state)
    other = make_sidecar(replace(OPTIONS, messages_per_key=1_000))  # spent as well: that must not hide the state
    await other.want_key(key.id, "users/42")
    await other.want_active("users/42")
    assert other.plane.refused_keys == {(key.id, "users/42"): 21}
    assert other.plane.refused_scopes == {("users/42", 0): 21}
    assert (sidecar.provider.unwraps, sidecar.provider.wraps) == (0, 1)


async def test_a_decrypt_only_key_decrypts_and_another_encrypts(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    await sidecar.store.set_state(key.id, KeyState.DECRYPT_ONLY)
    other = make_sidecar()
    await other.want_key(key.id, "users/42")
    await other.want_active("users/42")
    assert key.id in other.plane.slots
    fresh = await sidecar.active("users/42")
    assert fresh.id != key.id
    assert fresh.generation == 2
    assert other.plane.active == {("users/42", 0): fresh.id}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("down"), 24),
        (Throttled("slower"), 24),
        (Timeout("late"), 24),
        (Denied("no"), 24),
        (CredentialsInvalid("bad"), 24),
        (NotFound("gone"), 24),
        (KeyDisabled("off"), 24),
        (Closed("closed"), 24),
        (Tampered("altered"), 25),
        (RuntimeError("sesame"), 25),
        (TimeoutError(), 24),
    ],
)
async def test_what_the_provider_cannot_do_has_a_code(
    sidecar: Sidecar,
    make_sidecar: MakeSidecar,
    provider: CountingProvider,
    error: Exception,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await sidecar.want_active("users/42")
    key = await sidecar.active("users/42")
    provider.fault = failing(error)
    other = make_sidecar()
    await asyncio.gather(*(other.want_key(key.id, "users/42") for _ in range(100)))
    await asyncio.gather(*(other.want_active("users/43") for _ in range(100)))
    assert other.plane.refused_keys == {(key.id, "users/42"): code}
    assert other.plane.refused_scopes == {("users/43", 0): code}
    assert other.plane.log.count(("refuse_key", key.id, "users/42", code, 50)) == 1
    assert provider.unwraps == 1
    assert len(other.plane.completed) == 200
    assert other.service.stats()["negative"] == 2
    assert await sidecar.store.active_key(Scope("users", "43"), Purpose.FIELD) is None
    levels = {record.levelno for record in caplog.records if record.name == "proxy.keys.service"}
    assert levels <= ({logging.ERROR, logging.CRITICAL} if code == 25 else {logging.ERROR})
    assert levels
    if not isinstance(error, ProviderError | TimeoutError):
        assert any(record.exc_info for record in caplog.records)
        assert "sesame" not in "".join(record.getMessage() for record in caplog.records)
    provider.fault = None
    await other.want_key(key.id, "users/42")
    assert key.id in other.plane.slots


async def test_a_provider_that_never_answers_is_given_up_on(make_sidecar: MakeSidecar, sidecar: Sidecar) -> None:
    slow = CountingProvider(sidecar.provider.kek, timeout_seconds=0.1, concurrent_calls=2)
    slow.fault = lambda: asyncio.sleep(3600)
    other = make_sidecar(replace(OPTIONS, patience=250), with_provider=slow)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(other.want_active(f"users/{number}") for number in range(40)))
    assert (
        asyncio.get_running_loop().time() - started < 2.0
    )  # 40 calls one after the other, two at a time, would take 2 s
    assert len(other.plane.completed) == 40
    assert set(other.plane.refused_scopes.values()) == {24}
    assert slow.most_at_once == 2
    assert slow.now == 0
    stats = other.service.stats()
    assert stats["failed_timeout"] + stats["given_up"] == 40
    slow.fault = None
    await other.want_active("users/1")  # and no turn was lost
    await other.want_active("users/2")
    await other.want_active("users/3")
    assert len(other.plane.active) == 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE data_keys SET keyring_id = 2, partition = ''",
        "UPDATE data_keys SET partition = '43'",
        "UPDATE data_keys SET purpose = 1 - purpose",
        "UPDATE data_keys SET id = id + 1",
    ],
)
async def test_a_row_moved_elsewhere_does_not_unwrap(
    sidecar: Sidecar, make_sidecar: MakeSidecar, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    await sidecar.want_active("users/42")
    wrap = "PRAGMA foreign_keys = OFF", change, "UPDATE wraps SET data_key_id = (SELECT id FROM data_keys)"
    edit(tmp_path, *wrap)
    moved = await sidecar.store.key(next(iter(sidecar.plane.slots))) or await sidecar.store.key(
        next(iter(sidecar.plane.slots)) + 1
    )
    assert moved is not None
    other = make_sidecar()
    await other.want_active(str(moved.scope), purpose=moved.purpose)
    assert other.plane.refused_scopes == {(str(moved.scope), int(moved.purpose)): 25}
    if moved.purpose is Purpose.FIELD:
        await other.want_key(moved.id, str(moved.scope))
        assert other.plane.refused_keys == {(moved.id, str(moved.scope)): 25}
    assert other.plane.slots == {}
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


async def test_swapped_wraps_do_not_unwrap(sidecar: Sidecar, make_sidecar: MakeSidecar, tmp_path: Path) -> None:
    await sidecar.want_active("users/1")
    await sidecar.want_active("users/2")
    keys = [await sidecar.active("users/1"), await sidecar.active("users/2")]
    edit(
        tmp_path,
        "CREATE TABLE kept AS SELECT * FROM wraps",
        "UPDATE wraps SET blob = (SELECT blob FROM kept WHERE kept.data_key_id != wraps.data_key_id)",
    )
    other = make_sidecar()
    for key in keys:
        await other.want_key(key.id, str(key.scope))
    assert set(other.plane.refused_keys.values()) == {25}
    assert other.plane.slots == {}


async def test_one_bad_wrap_of_several_does_no_harm(
    sidecar: Sidecar, make_sidecar: MakeSidecar, tmp_path: Path
) -> None:
    await sidecar.want_active("users/1")
    key = await sidecar.active("users/1")
    long_ago = "2020-01-01 00:00:00.000000"
    edit(
        tmp_path,
        f"INSERT INTO wraps SELECT data_key_id, 'AWS_KMS', kek, mechanism, x'00', '{long_ago}' FROM wraps",
        f"INSERT INTO wraps SELECT data_key_id, provider, 'kek-0', mechanism, zeroblob(60), '{long_ago}' FROM wraps "
        "WHERE provider = 'COUNTING'",
    )
    other = make_sidecar()
    await other.want_key(key.id, "users/1")
    assert other.plane.slots[key.id].key == sidecar.plane.slots[key.id].key
    assert sidecar.provider.unwraps == 2


async def test_a_wrap_of_another_provider_alone_is_unavailable(
    sidecar: Sidecar, make_sidecar: MakeSidecar, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await sidecar.want_active("users/1")
    key = await sidecar.active("users/1")
    edit(tmp_path, "UPDATE wraps SET provider = 'AWS_KMS'")
    other = make_sidecar()
    await other.want_key(key.id, "users/1")
    assert other.plane.refused_keys == {(key.id, "users/1"): 24}
    assert "configure the provider that wrapped it" in caplog.text


async def test_a_full_cache_is_overload(sidecar: Sidecar) -> None:
    sidecar.plane.full = True
    await sidecar.want_active("users/1")
    key = await sidecar.active("users/1")  # durable, merely not cached
    await sidecar.want_key(key.id, "users/1")
    assert sidecar.plane.refused_scopes == {("users/1", 0): 23}
    assert sidecar.plane.refused_keys == {(key.id, "users/1"): 23}
    sidecar.plane.full = False
    await sidecar.want_active("users/1")
    assert sidecar.plane.active == {("users/1", 0): key.id}


@pytest.mark.parametrize("error", [KeystoreLocked, KeystoreFull])
async def test_a_keystore_in_trouble_is_told_and_survived(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise error("free some space")

    with monkeypatch.context() as patch:
        patch.setattr("proxy.keystore.statements.insert_active", refuse)
        await sidecar.want_active("users/1")
    assert sidecar.plane.refused_scopes == {("users/1", 0): 24}
    assert sidecar.plane.slots == {}  # nothing that is not durable was installed
    assert "free some space" in caplog.text
    await sidecar.want_active("users/1")
    assert len(sidecar.plane.active) == 1


async def test_a_cancelled_miss_is_completed_and_disturbs_nobody(sidecar: Sidecar, provider: CountingProvider) -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    provider.fault = wait
    first, second = (asyncio.ensure_future(sidecar.want_active("users/1")) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await second
    assert len(sidecar.plane.completed) == 2
    assert len(sidecar.plane.active) == 1


async def test_no_key_is_left_in_a_buffer(
    sidecar: Sidecar, make_sidecar: MakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytearray] = []
    draw = sidecar.service._supply._create.__globals__["random_key"]

    def remembered() -> bytearray:
        made.append(draw())
        return made[-1]

    monkeypatch.setattr("proxy.keys.supply.random_key", remembered)
    await sidecar.want_active("users/1")
    sidecar.provider.fault = failing(Unavailable("down"))
    await sidecar.want_active("users/2")
    sidecar.provider.fault = None
    sidecar.plane.full = True
    await sidecar.want_active("users/3")
    other = make_sidecar()
    other.plane.full = True
    await other.want_key((await sidecar.active("users/1")).id, "users/1")
    assert len(made) == 3
    assert len(sidecar.provider.returned) == 1
    for buffer in (*made, *sidecar.provider.returned):
        assert bytes(buffer) == bytes(32)


async def test_nothing_secret_is_logged_or_shown(
    sidecar: Sidecar, make_sidecar: MakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await sidecar.want_active("users/1")
    key = await sidecar.active("users/1")
    sidecar.provider.fault = failing(RuntimeError("boom"))
    other = make_sidecar()
    await other.want_key(key.id, "users/1")
    secrets = [slot.key for slot in sidecar.plane.slots.values()] + [sidecar.provider.kek, key.wraps[0].blob]
    shown = caplog.text + repr(key) + repr(sidecar.service) + str(sidecar.service.stats())
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret) not in shown


async def test_statistics_count_what_happened(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    await sidecar.want_active("users/1")
    other = make_sidecar()
    await other.want_key((await sidecar.active("users/1")).id, "users/1")
    await other.want_key(7, "users/1")
    stats = other.service.stats()
    assert {name: stats[name] for name in ("unwraps", "wraps", "created", "negative", "failed_unknown_key")} == {
        "unwraps": 1,
        "wraps": 0,
        "created": 0,
        "negative": 1,
        "failed_unknown_key": 1,
    }
    buckets = other.service.latency.buckets()
    assert buckets == sorted(buckets)
    assert buckets[-1] == (float("inf"), 1)


async def test_low_budget_of_an_unknown_event_completes_nothing(sidecar: Sidecar) -> None:
    await sidecar.service.handle(KeyMiss("key", 0, 1, "users/1", 1000))
    assert sidecar.plane.completed == []


def test_an_outage_is_no_flood_of_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complaints = Complaints(logging.getLogger("outage"), clock=lambda: now)
    for _ in range(1000):
        complaints.log(logging.ERROR, "timeout", "late")
        complaints.log(logging.ERROR, "denied", "no")
    now = 6.0
    complaints.log(logging.ERROR, "timeout", "late")
    assert [record.getMessage() for record in caplog.records] == [
        "late",
        "no",
        "late (999 more of this kind were not logged)",
    ]
