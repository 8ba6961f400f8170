"""SIGKILL at any instant of many concurrent first uses: every key that could have encrypted is stored, and unwraps.

The oracle shares nothing with the product: rows by sqlite3, wraps by the twin of docs/spec/wrap.md.
"""

import asyncio
import base64
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from providers.local import create_root_key
from proxy.config import parse
from proxy.keystore import Keystore
from tests.twin import wrap as twin

ROUNDS = 6
ROOT = Path(__file__).parents[3]


class Reported(NamedTuple):
    key_id: int
    scope: str
    budget: int
    key: bytes


def install(folder: Path) -> Path:
    """A keystore with the keyring `users`, and a root key; returns the keystore's file."""
    config = parse("", base=folder)

    async def make() -> None:
        store = Keystore.open(config.keystore.location, create=True)
        await store.create_keyring("users", partitioned=True)
        await store.close()

    asyncio.run(make())
    create_root_key(folder / "data/root.key")
    return config.keystore.path


def run_and_kill(folder: Path, generation: int, delay: float) -> list[Reported]:
    """One sidecar, killed `delay` seconds after it began to serve; returns what it said before."""
    command = [sys.executable, "-m", "tests.proxy.keys.first_uses", str(folder), str(generation)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().decode().splitlines()
    assert child.returncode == -signal.SIGKILL
    said = [line.split() for line in lines]
    return [Reported(int(word[1]), word[2], int(word[3]), bytes.fromhex(word[4])) for word in said if len(word) == 5]


def stored(file: Path) -> dict[int, tuple[str, int, bytes]]:
    """(scope, messages leased, blob) by key id, and nothing of the product's code."""
    raw = sqlite3.connect(file)
    rows = raw.execute(
        "SELECT k.id, r.name, k.partition, k.messages_leased, w.blob FROM data_keys k "
        "JOIN keyrings r ON r.id = k.keyring_id JOIN wraps w ON w.data_key_id = k.id"
    ).fetchall()
    (check,) = raw.execute("PRAGMA integrity_check").fetchone()
    (without,) = raw.execute(
        "SELECT count(*) FROM data_keys WHERE id NOT IN (SELECT data_key_id FROM wraps)"
    ).fetchone()
    raw.close()
    assert (check, without) == ("ok", 0)
    return {key_id % 2**64: (f"{name}/{part}", leased, blob) for key_id, name, part, leased, blob in rows}


def test_no_key_that_could_have_encrypted_is_lost(tmp_path: Path) -> None:
    file = install(tmp_path)
    root = base64.b64decode((tmp_path / "data/root.key").read_text().splitlines()[1])
    chance = random.Random(20261123)
    reported: list[Reported] = []
    for generation in range(1, ROUNDS + 1):
        reported += run_and_kill(tmp_path, generation, chance.uniform(0.02, 0.5))
        rows = stored(file)
        budgets: Counter[int] = Counter()
        for key_id, scope, budget, key in reported:
            assert key_id in rows, f"the data key of {scope} was used and is lost"
            stored_scope, _, blob = rows[key_id]
            assert stored_scope == scope
            keyring, _, partition = scope.partition("/")
            assert twin.gcm_unwrap(root, blob, twin.context(key_id, keyring, partition, "field")) == key
            budgets[key_id] += budget
        assert all(budgets[key_id] <= rows[key_id][1] for key_id in budgets)
    assert len(reported) > 50
    assert len({report.scope for report in reported}) == len({report.key_id for report in reported})
