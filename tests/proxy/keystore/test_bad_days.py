"""Locked, read-only, full, damaged, missing, taken away: a clear error that says what to do, and no lost write."""

import asyncio
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from proxy.keyring import Keyring, Scope
from proxy.keystore import (
    Keystore,
    KeystoreCorrupt,
    KeystoreError,
    KeystoreExposed,
    KeystoreFailing,
    KeystoreFull,
    KeystoreLocked,
    KeystoreMissing,
    KeystoreReadOnly,
)
from tests.proxy.conftest import MakeKey

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24


async def fill(store: Keystore, make_key: MakeKey, number: int) -> list[int]:
    keys = [make_key(f"users/{serial:06}") for serial in range(number)]
    await asyncio.gather(*(store.insert_active(key) for key in keys))
    return [key.id for key in keys]


def test_missing_says_restore_or_init(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeystoreMissing, match=r"backup.*keyside init"):
        Keystore.open(url)
    with pytest.raises(KeystoreMissing):
        Keystore.open(f"sqlite:///{tmp_path}/no/such/folder/keystore.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = Keystore.open(f"sqlite:///{tmp_path}/data/keystore.sqlite", create=True)
    asyncio.run(made.close())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path, *tmp_path.rglob("*"))}
    assert modes["data"] == 0o700
    assert modes["keystore.sqlite"] == modes["keystore.sqlite.lock"] == 0o600


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_file_that_others_may_write_is_refused(store: Keystore, url: str, tmp_path: Path, mode: int) -> None:
    await store.close()
    os.chmod(tmp_path / "keystore.sqlite", mode)  # noqa: PTH101  (pathlib's chmod is a blocking call in a coroutine to the linter)
    with pytest.raises(KeystoreExposed, match=r"others .*chmod go-w"):
        Keystore.open(url)


@pytest.mark.parametrize("mode", [0o770, 0o703, 0o1777])
async def test_a_folder_that_others_may_write_is_refused(store: Keystore, url: str, tmp_path: Path, mode: int) -> None:
    await store.close()
    os.chmod(tmp_path, mode)  # noqa: PTH101  (as above)
    with pytest.raises(KeystoreExposed, match="others"):
        Keystore.open(url)


def test_a_folder_in_the_files_place_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "keystore.sqlite").mkdir(0o700)
    with pytest.raises(KeystoreCorrupt, match="not a file"):
        Keystore.open(url)


def as_ordinary_owner() -> None:
    """In a child: even root obeys file modes from here on (capabilities(7), the bounding set)."""
    import ctypes

    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize(("what", "mode"), [("keystore.sqlite", 0o400), (".", 0o500)])
async def test_read_only_says_which_place(store: Keystore, url: str, tmp_path: Path, what: str, mode: int) -> None:
    await store.close()
    os.chmod(tmp_path / what, mode)  # noqa: PTH101  (as above)
    program = (
        f"from proxy.keystore import *\ntry: Keystore.open({url!r})\nexcept KeystoreReadOnly as error: print(error)"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, preexec_fn=as_ordinary_owner
    )
    out, _ = await child.communicate()
    os.chmod(tmp_path / what, 0o700)  # noqa: PTH101  (as above)
    assert re.search(rf"{re.escape(str(tmp_path / what))} cannot be written by uid \d+: change its owner", out.decode())


async def test_locked_by_another_process_names_the_remedy_and_recovers(
    url: str, tmp_path: Path, make_key: MakeKey
) -> None:
    store = Keystore.open(url, create=True, busy_timeout=0.1)
    await store.create_keyring("contacts")
    key = make_key()
    blocker = sqlite3.connect(tmp_path / "keystore.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(KeystoreLocked, match=r"locked by another process .*SQLITE_BUSY"):
        await store.insert_active(key)
    with pytest.raises(KeystoreLocked):
        await store.check()
    assert await store.keyring("contacts") is not None  # reading goes on
    blocker.execute("ROLLBACK")
    blocker.close()
    await store.insert_active(key)
    assert await store.key(key.id) == key
    await store.close()


async def test_locked_at_the_start(store: Keystore, url: str, tmp_path: Path) -> None:
    await store.close()
    blocker = sqlite3.connect(tmp_path / "keystore.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(KeystoreLocked):
        Keystore.open(url, busy_timeout=0.1)
    blocker.close()
    await Keystore.open(url).close()


async def test_full_is_told_as_full_and_loses_nothing(store: Keystore, make_key: MakeKey, url: str) -> None:
    stored = await fill(store, make_key, 20)
    event.listen(store._engine, "begin", lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))
    made = [store.create_keyring(f"{number:064}") for number in range(2000)]
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    # a group that does not fit fails whole, and a small group after it may find room
    full = [outcome for outcome in outcomes if isinstance(outcome, KeystoreFull)]
    assert full
    assert all(re.search(r"no space .*SQLITE_FULL", str(error)) for error in full)
    kept = [outcome for outcome in outcomes if isinstance(outcome, Keyring)]
    assert len(full) + len(kept) == len(outcomes)
    assert {keyring.name for keyring in await store.keyrings()} == {keyring.name for keyring in kept} | {
        "users",
        "contacts",
    }
    for key_id in stored:
        assert await store.key(key_id) is not None
    await store.close()
    again = Keystore.open(url)
    assert (await again.data_key_counts())["users"] == 20
    await again.close()


FULL_DISK = """
import asyncio, resource, signal, sys
from proxy.keystore import *
from proxy.keyring import *

async def main(url):
    store = Keystore.open(url)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))
    stored = 0
    try:
        for number in range(10_000):
            await store.create_keyring(f"k{number}")
            stored += 1
    except KeystoreUnavailable as error:
        print(type(error).__name__, stored, error)
    print(len(await store.keyrings()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.create_keyring("again")
    await store.check()
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_file_that_may_not_grow_loses_nothing_and_recovers(store: Keystore, url: str) -> None:
    await store.close()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", FULL_DISK, url, stdout=subprocess.PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0
    first, second = out.decode().splitlines()
    kind, stored, message = first.split(maxsplit=2)
    assert kind == "KeystoreFailing"
    assert "full or failing disk, a quota, a file-size limit" in message
    assert int(second) == int(stored) + 2
    again = Keystore.open(url)
    assert len(await again.keyrings()) == int(stored) + 3
    await again.close()


async def test_a_damaged_header_is_told(store: Keystore, url: str, tmp_path: Path) -> None:
    await store.close()
    damage(tmp_path / "keystore.sqlite", 0, b"not a database at all.....")
    with pytest.raises(KeystoreCorrupt, match=r"keep a copy .*backup"):
        Keystore.open(url)


async def test_a_damaged_page_is_found_at_the_start(
    store: Keystore, url: str, tmp_path: Path, make_key: MakeKey
) -> None:
    await fill(store, make_key, 300)
    await store.close()
    file = tmp_path / "keystore.sqlite"
    for page in range(8, 12):
        damage(file, 4096 * page, os.urandom(4096))
    with pytest.raises(KeystoreCorrupt):
        Keystore.open(url)


async def test_a_damaged_page_met_while_serving_fails_its_readers_alone(
    store: Keystore, url: str, tmp_path: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await fill(store, make_key, 300)
    await store.close()
    file = tmp_path / "keystore.sqlite"
    with sqlite3.connect(file) as raw:
        (leaf,) = max(raw.execute("SELECT pageno FROM dbstat WHERE name = 'wraps' AND pagetype = 'leaf'").fetchall())
    raw.close()
    damage(file, 4096 * (leaf - 1), b"\xff" * 4096)
    monkeypatch.setattr("proxy.keystore.sqlite.CHECKED_AT_START_BYTES", 0)
    again = Keystore.open(url)
    found = await asyncio.gather(*(again.key(key_id) for key_id in ids), return_exceptions=True)
    bad = [outcome for outcome in found if isinstance(outcome, BaseException)]
    assert 0 < len(bad) < 250
    assert {type(error) for error in bad} == {KeystoreCorrupt}
    await again.close()


async def test_a_row_that_makes_no_sense_fails_its_readers_alone(
    store: Keystore, url: str, tmp_path: Path, make_key: MakeKey
) -> None:
    good, bad = make_key("users/good"), make_key("users/bad")
    await store.insert_active(good)
    await store.insert_active(bad)
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        raw.execute("UPDATE data_keys SET partition = 'a' || char(1) WHERE partition = 'bad'")
    raw.close()
    outcomes = await asyncio.gather(store.key(good.id), store.key(bad.id), return_exceptions=True)
    assert outcomes[0] == good
    assert isinstance(outcomes[1], KeystoreCorrupt)


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_taken_away_while_in_use_is_never_written_into_the_void(
    store: Keystore, tmp_path: Path, make_key: MakeKey, how: str
) -> None:
    take_away(tmp_path / "keystore.sqlite", how)
    with pytest.raises(KeystoreMissing, match=how.replace("removed", "taken away")):
        await store.insert_active(make_key())
    with pytest.raises(KeystoreMissing):
        await store.check()


async def test_every_message_says_what_to_do(store: Keystore, url: str) -> None:
    with pytest.raises(KeystoreError, match=": stop it, or give this one"):
        Keystore.open(url)
    assert KeystoreFailing.retryable
    assert KeystoreReadOnly.retryable
    assert not KeystoreCorrupt.retryable
    assert await store.latest_key(Scope("nowhere"), 0) is None  # type: ignore[arg-type]  # a bare number does as well


def damage(file: Path, at: int, with_what: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(with_what)


def take_away(file: Path, how: str) -> None:
    if how == "replaced":
        shutil.copy(file, file.with_name("copy"))
    file.unlink()
    if how == "replaced":
        file.with_name("copy").rename(file)


def test_limits_are_as_they_were() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
