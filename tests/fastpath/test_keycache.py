"""The key cache under pressure: never a wrong key, never one that was taken away."""

from __future__ import annotations

import ctypes
import functools
import os
import random
import threading
import time
from pathlib import Path

import pytest
from keyside.testing import envelope, frames

from fastpath.dataplane import DataPlane, Options
from tests.fastpath.harness import (
    BLIND_INDEX,
    CAPACITY,
    DECRYPT,
    ENCRYPT,
    FIELD,
    INDEX,
    Serving,
    open_memory,
    serving,
)

memmem = ctypes.CDLL(None).memmem
memmem.restype = ctypes.c_void_p
memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


@functools.cache
def locked_regions() -> list[tuple[int, int]]:
    """(start, bytes) of this process's secret or locked mappings: where the arena is."""
    regions = []
    where: tuple[int, int] | None = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = line.split(" ", 1)[0]
        if "-" in span and not line.startswith("VmFlags"):
            start, end = (int(part, 16) for part in span.split("-"))
            where = (start, end - start)
            secret = "secretmem" in line
        elif line.startswith("VmFlags:") and where and "rd" in line.split() and (secret or "lo" in line.split()):
            regions.append(where)
    return regions


def in_arena(key: bytes) -> bool:
    """A key, or the first round keys of its schedule, which are the key itself."""
    return any(memmem(start, size, key, len(key)) for start, size in locked_regions())


def keys_of(count: int, first: int = 1) -> list[tuple[int, int, bytes]]:
    return [(n, FIELD, os.urandom(32)) for n in range(first, first + count)]


def sealed(key: tuple[int, int, bytes], plaintext: bytes) -> bytes:
    return envelope.seal(key[2], key[0], os.urandom(12), b"", plaintext)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_a_cache_far_too_small_answers_right(tmp_path: Path, capacity: int) -> None:
    rings = {f"ring{n}": keys_of(2, 10 * n) for n in range(1, 9)}
    chance = random.Random(capacity)
    with serving(tmp_path, rings, key_capacity=capacity) as running, running.connect() as peer:
        for number in range(400):
            scope = chance.choice(list(rings))
            old, active = rings[scope]
            if chance.random() < 0.5:
                key = chance.choice((old, active))
                assert peer.call(DECRYPT, scope, [sealed(key, b"%d" % number)]) == [0, [b"%d" % number]]
            else:
                status, (made,) = peer.call(ENCRYPT, scope, [b"%d" % number])
                assert status == 0
                assert envelope.key_id_of(made) == active[0]
                assert envelope.open_envelope(active[2], made, None) == b"%d" % number
        assert running.gauge("keys_cached") <= capacity


def test_evicting_wipes_before_it_returns(tmp_path: Path) -> None:
    ring = keys_of(30)
    with serving(tmp_path, {"ring": ring}, workers=2) as running:
        stop = threading.Event()

        def load() -> None:
            chance = random.Random(1)
            with running.connect() as peer:
                while not stop.is_set():
                    key = chance.choice(ring[10:])
                    assert peer.call(DECRYPT, "ring", [sealed(key, b"x")]) == [0, [b"x"]]

        with running.connect() as peer:
            assert peer.call(DECRYPT, "ring", [sealed(key, b"x") for key in ring]) == [0, [b"x"] * 30]
            assert all(in_arena(key[2]) for key in ring)
            threads = [threading.Thread(target=load) for _ in range(2)]
            for thread in threads:
                thread.start()
            for key in ring[:10]:
                assert running.plane.evict(key[0])
                assert not in_arena(key[2])
                assert not running.plane.contains(key[0])
                assert not running.plane.evict(key[0])
            stop.set()
            for thread in threads:
                thread.join(10)
        cached = sum(running.plane.contains(key[0]) for key in ring)
        assert cached == 20
        assert running.plane.evict_scope("ring") == 20
        assert not any(in_arena(key[2]) for key in ring)
        assert running.plane.evict_scope("ring") == 0
        assert running.plane.evict_scope("other") == 0
        running.holder.install("ring", ring[0])
    assert not any(in_arena(key[2]) for key in ring)


def test_an_index_key_is_wiped_from_the_workers_mac_too(tmp_path: Path) -> None:
    key = (5, INDEX, os.urandom(32))
    with serving(tmp_path, {"ring": [key]}) as running, running.connect() as peer:
        assert peer.call(BLIND_INDEX, "ring", [b"x"]) == [0, [envelope.blind_index(key[2], b"", b"x")]]
        assert in_arena(key[2])
        assert running.plane.evict(5)
        assert not in_arena(key[2])
        padded = bytes(byte ^ 0x36 for byte in key[2])
        assert not in_arena(padded)
        assert peer.call(BLIND_INDEX, "ring", [b"x"]) == [0, [envelope.blind_index(key[2], b"", b"x")]]


def test_expired_keys_are_asked_for_again_and_swept(tmp_path: Path) -> None:
    ring = keys_of(20)
    with serving(tmp_path, {"ring": ring}) as running, running.connect() as peer:
        running.holder.ttl = 80
        assert peer.call(DECRYPT, "ring", [sealed(key, b"x") for key in ring])[0] == 0
        asked = running.holder.count("key")
        assert running.plane.sweep() == 0
        time.sleep(0.1)
        assert running.plane.sweep() == 20
        assert not any(in_arena(key[2]) for key in ring)
        assert running.gauge("keys_expired") == 20
        assert peer.call(DECRYPT, "ring", [sealed(ring[0], b"x")]) == [0, [b"x"]]
        assert running.holder.count("key") == asked + 1


def test_renewing_keeps_a_key_and_expiring_names_those_in_use(tmp_path: Path) -> None:
    ring = keys_of(2)
    with serving(tmp_path, {"ring": ring}) as running, running.connect() as peer:
        running.holder.ttl = 300
        time.sleep(0.11)  # `used_at` is exact to a tenth of a second
        assert peer.call(DECRYPT, "ring", [sealed(ring[0], b"x")])[0] == 0
        running.holder.install("ring", ring[1])
        time.sleep(0.12)
        assert peer.call(DECRYPT, "ring", [sealed(ring[0], b"x")])[0] == 0
        assert running.plane.expiring(1000) == [(ring[0][0], "ring", FIELD)]
        running.holder.ttl = 60_000
        running.holder.install("ring", ring[0])
        time.sleep(0.1)
        running.plane.sweep()
        assert running.plane.expiring(1000) == []


def test_an_id_belongs_to_one_scope_and_purpose(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as running:
        running.plane.install(1, "ring", FIELD, bytearray(b"\x01" * 32), ttl=60_000)
        for scope, purpose, bits in [("other", FIELD, 0), ("ring/1", FIELD, 0), ("ring", INDEX, 128)]:
            key = bytearray(b"\x02" * 32)
            with pytest.raises(ValueError, match="another"):
                running.plane.install(1, scope, purpose, key, ttl=60_000, index_bits=bits)
            assert key == bytes(32)


@pytest.mark.parametrize(
    ("scope", "purpose", "key", "bits"),
    [
        ("ring", FIELD, bytearray(b"\x01" * 31), 0),
        ("ring", FIELD, bytearray(b"\x01" * 33), 0),
        ("ring", FIELD, bytearray(), 0),
        ("ring", 2, bytearray(b"\x01" * 32), 0),
        ("ring", FIELD, bytearray(b"\x01" * 32), 128),
        ("ring", INDEX, bytearray(b"\x01" * 32), 0),
        ("ring", INDEX, bytearray(b"\x01" * 32), 9),
        ("ring", INDEX, bytearray(b"\x01" * 32), 264),
        ("ring", INDEX, bytearray(b"\x01" * 32), -8),
        ("", FIELD, bytearray(b"\x01" * 32), 0),
        ("a b", FIELD, bytearray(b"\x01" * 32), 0),
        ("a/" + "b" * 129, FIELD, bytearray(b"\x01" * 32), 0),
    ],
)
def test_what_cannot_be_installed_is_wiped_all_the_same(
    tmp_path: Path, scope: str, purpose: int, key: bytearray, bits: int
) -> None:
    with serving(tmp_path, {}) as running:
        with pytest.raises(ValueError, match=r"."):
            running.plane.install(1, scope, purpose, key, ttl=1000, index_bits=bits)
        assert not any(key)
        assert not running.plane.contains(1)


def test_a_hundred_thousand_installs_into_a_small_cache() -> None:
    """Tombs are cleared, free lists hold, CacheFull never comes, the last keys are all there. No worker to wait for."""
    open_memory()
    plane = DataPlane(Options(workers=1, cpus=(), key_capacity=64))
    chance = random.Random(3)
    alive: set[int] = set()
    for number in range(100_000):
        key_id = chance.getrandbits(64)
        plane.install(key_id, f"ring/{number % 977}", FIELD, bytearray(key_id.to_bytes(32, "big")), ttl=60_000)
        alive.add(key_id)
        if number % 3 == 0:
            gone = chance.choice(sorted(alive)) if number % 300 == 0 else key_id
            plane.evict(gone)
            alive.discard(gone)
        if len(alive) > 200:
            alive = {key_id for key_id in alive if plane.contains(key_id)}
        assert plane.contains(key_id) == (key_id in alive)
    stats = plane.stats()
    assert 32 <= stats["keys_cached"] <= 64
    assert stats["keys_cached"] == sum(plane.contains(key_id) for key_id in alive)
    plane.stop()


def test_tables_are_rebuilt_while_workers_read_them(tmp_path: Path) -> None:
    ring = keys_of(4, 1 << 40)
    with serving(tmp_path, {"ring": ring}, workers=2, key_capacity=16) as running:
        stop = threading.Event()
        failures: list[BaseException] = []

        def load() -> None:
            try:
                with running.connect() as peer:
                    while not stop.is_set():
                        assert peer.call(DECRYPT, "ring", [sealed(key, b"x") for key in ring]) == [0, [b"x"] * 4]
            except BaseException as problem:
                failures.append(problem)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(3000):
            running.plane.install(number, f"churn{number % 50}", FIELD, bytearray(os.urandom(32)), ttl=60_000)
        stop.set()
        for thread in threads:
            thread.join(20)
        assert not failures


def test_keys_in_use_outlive_keys_that_are_not(tmp_path: Path) -> None:
    """Second chance: what was used lately is evicted last."""
    hot = keys_of(1, 1 << 40)[0]
    with serving(tmp_path, {"hot": [hot]}, key_capacity=64) as running, running.connect() as peer:
        for number in range(1, 40):
            running.plane.install(number, "cold", FIELD, bytearray(os.urandom(32)), ttl=60_000)
        time.sleep(1.1)
        assert peer.call(DECRYPT, "hot", [sealed(hot, b"x")])[0] == 0
        for number in range(100, 150):
            running.plane.install(number, "new", FIELD, bytearray(os.urandom(32)), ttl=60_000)
        assert running.plane.contains(hot[0])


def test_a_scope_that_comes_while_a_request_is_under_way(tmp_path: Path) -> None:
    """The scope is looked up before the items; a key that comes in between is the scope's own all the same."""
    key = keys_of(1)[0]
    with serving(tmp_path, {"ring": [key]}) as running, running.connect() as peer:
        request = frames.build_request(1, DECRYPT, "ring", None, [*[None] * 120_000, sealed(key, b"x")])
        for round_ in range(150):
            running.plane.evict(key[0])
            peer.raw(request)
            # some time between the first look at the request and its last item
            begun = time.perf_counter()
            while time.perf_counter() - begun < round_ * 15e-6:
                pass
            running.holder.install("ring", key)
            _, status, values = peer.receive()
            assert (status, values[-1]) == (0, b"x")


def test_deactivated_scopes_ask_again(tmp_path: Path) -> None:
    ring = keys_of(2)
    with serving(tmp_path, {"ring": ring[:1]}) as running, running.connect() as peer:
        assert envelope.key_id_of(peer.call(ENCRYPT, "ring", [b"x"])[1][0]) == ring[0][0]
        running.holder.keys["ring"] = ring
        assert envelope.key_id_of(peer.call(ENCRYPT, "ring", [b"x"])[1][0]) == ring[0][0]
        running.plane.deactivate("ring", FIELD)
        running.plane.deactivate("nowhere", FIELD)
        assert envelope.key_id_of(peer.call(ENCRYPT, "ring", [b"x"])[1][0]) == ring[1][0]


def test_activating_what_is_not_cached(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as running:
        assert not running.plane.activate(77, 5)
        assert not running.plane.add_budget(77, 5)


def test_the_arena_takes_any_number_of_planes_one_after_another(tmp_path: Path) -> None:
    """Key schedules, random generators and MACs of ended workers are given back."""
    open_memory()
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        with serving(folder, {"ring": keys_of(1)}, workers=4, key_capacity=CAPACITY) as running:
            use(running)


def use(running: Serving) -> None:
    for _ in range(4):
        with running.connect() as peer:
            assert peer.call(ENCRYPT, "ring", [b"x"])[0] == 0
