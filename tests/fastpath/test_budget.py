"""A data key never encrypts more messages than it was granted (NIST SP 800-38D, 8.3)."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from keyside.testing import envelope

from tests.fastpath.harness import (
    BLIND_INDEX,
    DECRYPT,
    ENCRYPT,
    FIELD,
    INDEX,
    KMS_UNAVAILABLE,
    REENCRYPT,
    Serving,
    serving,
    wait_for,
)

OLD, NEW = (0xA1, FIELD, b"\x01" * 32), (0xA2, FIELD, b"\x02" * 32)


def test_concurrent_encryption_never_spends_more_than_the_lease(tmp_path: Path) -> None:
    """Leases of 1,000 messages; when one is spent, a fresh key comes. No key may appear more often than leased."""
    lease = 1000
    made: Counter[int] = Counter()
    lock = threading.Lock()
    with serving(tmp_path, {}, workers=2, park_timeout=20_000) as running:
        running.holder.keeping = True
        stop = threading.Event()
        leased: list[int] = []

        def grant() -> None:
            done = 0
            while not stop.is_set():
                while done < len(running.holder.kept):
                    event = running.holder.kept[done]
                    done += 1
                    key_id = 1000 + len(leased)
                    leased.append(key_id)
                    running.plane.install(key_id, "ring", FIELD, bytearray(key_id.to_bytes(32, "big")), ttl=600_000)
                    running.plane.activate(key_id, lease)
                    running.plane.complete(event.token)
                stop.wait(0.0005)

        def encrypt(size: int) -> None:
            with running.connect() as peer:
                for _ in range(60):
                    status, items = peer.call(ENCRYPT, "ring", [b"x"] * size)
                    assert status == 0
                    with lock:
                        made.update(envelope.key_id_of(item) for item in items)

        granting = threading.Thread(target=grant)
        granting.start()
        clients = [threading.Thread(target=encrypt, args=(size,)) for size in (1, 3, 70, 130, 31)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        stop.set()
        granting.join(10)
    assert made.total() == 60 * (1 + 3 + 70 + 130 + 31)
    assert max(made.values()) <= lease
    assert set(made) <= set(leased)


def test_low_budget_is_told_once_a_lease(tmp_path: Path) -> None:
    with serving(tmp_path, {"ring": [OLD]}, budget=100) as running, running.connect() as peer:
        assert peer.call(ENCRYPT, "ring", [b"x"] * 49)[0] == 0
        assert running.holder.count("low") == 0
        for _ in range(10):
            assert peer.call(ENCRYPT, "ring", [b"x"])[0] == 0
        wait_for(lambda: running.holder.count("low") == 1)
        assert running.plane.add_budget(OLD[0], 59)  # 41 left and 59 more: a lease of 100 again
        for _ in range(49):
            assert peer.call(ENCRYPT, "ring", [b"x"])[0] == 0
        assert running.holder.count("low") == 1
        for _ in range(5):
            assert peer.call(ENCRYPT, "ring", [b"x"])[0] == 0
        wait_for(lambda: running.holder.count("low") == 2)
        assert running.holder.count("scope") == 1


def test_a_request_for_more_than_is_left_says_how_much_it_wants(tmp_path: Path) -> None:
    with serving(tmp_path, {"ring": [OLD]}) as running, running.connect() as peer:
        install(running, OLD, 10)
        running.holder.keeping = True
        peer.send(1, ENCRYPT, "ring", None, [b"x", None] * 25)
        (event,) = wait_for(lambda: running.holder.kept)
        assert (event.kind, event.scope, event.purpose, event.wanted) == ("scope", "ring", FIELD, 25)
        assert peer.call(ENCRYPT, "ring", [b"x"] * 10)[0] == 0  # what is left is not lost
        running.plane.add_budget(OLD[0], 25)
        running.plane.complete(event.token)
        assert peer.receive()[:2] == [1, 0]


def install(running: Serving, key: tuple[int, int, bytes], budget: int) -> None:
    running.holder.install("ring", key)
    running.plane.activate(key[0], budget)


def test_a_lease_too_small_for_the_request_ends_in_time(tmp_path: Path) -> None:
    with serving(tmp_path, {}, park_timeout=200) as running, running.connect() as peer:
        running.plane.install(1, "ring", FIELD, bytearray(b"\x01" * 32), ttl=60_000)
        running.plane.activate(1, 5)
        running.holder.keeping = True
        assert peer.call(ENCRYPT, "ring", [b"x"] * 6)[0] == KMS_UNAVAILABLE
        assert peer.call(ENCRYPT, "ring", [b"x"] * 5)[0] == 0


def test_reencrypt_spends_for_what_it_sealed_alone(tmp_path: Path) -> None:
    def sealed(key: tuple[int, int, bytes], number: int) -> bytes:
        return envelope.seal(key[2], key[0], number.to_bytes(12, "big"), None, b"x")

    with serving(tmp_path, {"ring": [OLD, NEW]}) as running, running.connect() as peer:
        install(running, NEW, 1000)
        running.holder.install("ring", OLD)
        batch = [sealed(NEW, n) for n in range(90)] + [sealed(OLD, n) for n in range(4)] + [b"junk", None]
        for _ in range(20):
            assert peer.call(REENCRYPT, "ring", batch)[0] == 1
        running.holder.keeping = True
        assert peer.call(REENCRYPT, "ring", [sealed(OLD, n) for n in range(920)])[0] == 0
        peer.send(1, ENCRYPT, "ring", None, [b"x"])
        assert wait_for(lambda: running.holder.kept)[0].wanted == 1


def test_reading_and_indexing_spend_nothing(tmp_path: Path) -> None:
    index = (0xA3, INDEX, b"\x03" * 32)
    with serving(tmp_path, {"ring": [OLD, index]}, budget=1) as running, running.connect() as peer:
        _, (made,) = peer.call(ENCRYPT, "ring", [b"x"])
        for _ in range(20):
            assert peer.call(DECRYPT, "ring", [made]) == [0, [b"x"]]
            assert peer.call(BLIND_INDEX, "ring", [b"x"])[0] == 0
            assert peer.call(ENCRYPT, "ring", [None])[0] == 0
        assert running.holder.count("scope") == 2


def test_a_key_that_was_evicted_comes_back_without_its_budget(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as running, running.connect() as peer:
        install(running, OLD, 1000)
        assert peer.call(ENCRYPT, "ring", [b"x"])[0] == 0
        running.plane.evict(OLD[0])
        running.holder.keeping = True
        running.holder.install("ring", OLD)
        peer.send(1, ENCRYPT, "ring", None, [b"x"])
        assert wait_for(lambda: running.holder.kept)[0].kind == "scope"
