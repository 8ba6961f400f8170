"""A data key is durable before the first ciphertext under it leaves: SIGKILL loses nothing acknowledged."""

from __future__ import annotations

import os
import random
import threading

from keyside import Client, KeysideError

from benchmarks.sidecar import Sidecar

ROUNDS = int(os.environ.get("KEYSIDE_KILL_ROUNDS", "5"))
PARTITIONS = 1000
THREADS = 8
CONTEXT = b"users.email"


class Writers:
    """Threads that each encrypt for partitions nobody used before, and note what was acknowledged."""

    def __init__(self, path: str, number: int) -> None:
        self.path = path
        self.number = number
        self.acknowledged: list[tuple[str, bytes, bytes]] = []
        self.answers = 0
        self.threads = [threading.Thread(target=self.write, args=(lane,)) for lane in range(THREADS)]

    def write(self, lane: int) -> None:
        with Client(self.path, timeout=10, retries=0) as client:
            for partition in range(lane, PARTITIONS, THREADS):
                name = f"users/{self.number}-{partition}"
                value = f"{name}@example.org".encode()
                try:
                    envelope = client.encrypt(name, value, context=CONTEXT)
                except KeysideError:
                    return  # killed
                self.acknowledged.append((name, value, envelope))


def test_every_acknowledged_ciphertext_decrypts_after_sigkill() -> None:
    chance = random.Random(20260101)
    everything: list[tuple[str, bytes, bytes]] = []
    cut_short = 0
    with Sidecar(workers=2) as sidecar:
        sidecar.create_keyring("users", partitioned=True)
        for number in range(ROUNDS):
            writers = Writers(sidecar.path, number)
            for thread in writers.threads:
                thread.start()
            writers.threads[0].join(chance.uniform(0.01, 0.6))
            sidecar.kill()
            for thread in writers.threads:
                thread.join(30)
                assert not thread.is_alive()
            cut_short += len(writers.acknowledged) < PARTITIONS
            everything += writers.acknowledged
            sidecar.start()
        with Client(sidecar.path, timeout=30) as client:
            for name, value, envelope in everything:
                assert client.decrypt(name, envelope, context=CONTEXT) == value
    assert everything
    assert cut_short, "no round was killed in the middle of its first uses: this test proved nothing"
