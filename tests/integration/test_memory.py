"""No data key is found in the running sidecar: not by root with a debugger, not in a core file."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from keyside import Client

from benchmarks.sidecar import Sidecar
from providers import WrapContext, WrappedKey
from providers.registry import create
from tests.integration.memory import find, forms

CONTEXT = b"a column"
PARTITIONS = 5


def data_keys(sidecar: Sidecar) -> list[bytes]:
    """Every data key, unwrapped here, from what the keystore and the root key's file hold."""
    hsm = yaml.safe_load(sidecar.config.read_text())["hsm"]
    with sqlite3.connect(sidecar.config.parent / "data" / "keystore.sqlite") as keystore:
        rows = keystore.execute(
            "SELECT data_keys.id, keyrings.name, data_keys.partition, data_keys.purpose,"
            " wraps.provider, wraps.kek, wraps.mechanism, wraps.blob"
            " FROM wraps JOIN data_keys ON wraps.data_key_id = data_keys.id"
            " JOIN keyrings ON data_keys.keyring_id = keyrings.id"
        ).fetchall()

    async def unwrap() -> list[bytes]:
        provider = create(hsm, sidecar.config.parent)
        await provider.initialize()
        keys = []
        for key_id, keyring, partition, purpose, *wrapped in rows:
            context = WrapContext(key_id & (1 << 64) - 1, keyring, partition or None, ("field", "index")[purpose])
            keys.append(bytes(await provider.unwrap_key(WrappedKey(*wrapped), context)))
        await provider.close()
        return keys

    return asyncio.run(unwrap())


class Load(threading.Thread):
    """Keeps keys in use, new ones too, while the memory is read."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.ended = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        with Client(self.path, timeout=20) as client:
            while not self.ended.is_set():
                for partition in range(PARTITIONS):
                    name = f"users/{partition}"
                    values = client.encrypt_many(name, [b"value"] * 20, context=CONTEXT)
                    assert client.decrypt_many(name, values, context=CONTEXT) == [b"value"] * 20
                    client.blind_index("users", b"value", context=CONTEXT)
                self.rounds += 1


@pytest.mark.parametrize("mechanism", ["AES-256-GCM", "AES-KWP"])
def test_no_data_key_in_memory_under_load(mechanism: str) -> None:
    if os.getuid() != 0:
        with Sidecar(workers=2) as sidecar, pytest.raises(PermissionError):
            Path(f"/proc/{sidecar.pid}/mem").open("rb").close()
        return
    with Sidecar(workers=2, hsm={"provider": "LOCAL", "mechanism": mechanism}) as sidecar:
        sidecar.create_keyring("users", partitioned=True)
        with Client(sidecar.path) as client:
            for partition in range(PARTITIONS):
                client.encrypt(f"users/{partition}", b"first use", context=CONTEXT)
        # keys that were made in this process are one thing, keys that were unwrapped are another: look at both
        for start in ("made", "unwrapped"):
            load = Load(sidecar.path)
            load.start()
            try:
                while load.rounds < 3:
                    load.join(0.05)
                    assert load.is_alive()
                keys = data_keys(sidecar)
                needles = {
                    f"{number} {form}": text for number, key in enumerate(keys) for form, text in forms(key).items()
                }
                hits, hidden = find(sidecar.pid, needles | {"control": b"keyside/0.1.0"})
            finally:
                load.ended.set()
                load.join()
            assert len(keys) == PARTITIONS + 1
            assert hits.pop("control"), "the search finds nothing at all: it proves nothing"
            assert not any(hits.values()), {name: count for name, count in hits.items() if count}
            assert hidden or sidecar.status()["memory"]["kind"] != "memfd_secret", start
            sidecar.restart()


def test_a_dying_sidecar_leaves_no_core(sidecar: Sidecar) -> None:
    """Even where somebody with the right to raises its core limit: the process is not dumpable."""
    assert resource.prlimit(sidecar.pid, resource.RLIMIT_CORE) == (0, 0)
    with suppress(PermissionError):
        resource.prlimit(sidecar.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    process = sidecar.process
    assert process is not None
    pid = process.pid
    os.kill(pid, signal.SIGABRT)
    _, status = os.waitpid(pid, 0)
    process.returncode = -os.WTERMSIG(status)
    sidecar.process = None
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
