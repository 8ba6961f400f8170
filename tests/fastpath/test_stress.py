"""Everything at once for a few seconds: several workers and clients, and a control plane that takes away what they use.

KEYSIDE_STRESS_SECONDS makes it longer. Every answer is checked with `cryptography`: right, or an error that may be.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

from keyside.testing import envelope

from fastpath.dataplane import Rule
from tests.fastpath.harness import (
    ALL,
    BLIND_INDEX,
    DECRYPT,
    DENIED,
    ENCRYPT,
    EVERYONE,
    FIELD,
    INDEX,
    OVERLOADED,
    REENCRYPT,
    Serving,
    serving,
)

SECONDS = float(os.environ.get("KEYSIDE_STRESS_SECONDS", "6"))
RINGS = [f"ring/{n}" for n in range(12)]
KEYS = {
    scope: [
        (n * 10 + 1, FIELD, os.urandom(32)),
        (n * 10 + 2, FIELD, os.urandom(32)),
        (n * 10 + 3, INDEX, os.urandom(32)),
    ]
    for n, scope in enumerate(RINGS, 1)
}


class Client(threading.Thread):
    """Random requests of every kind; `problem` is the first wrong answer."""

    def __init__(self, running: Serving, seed: int, until: float) -> None:
        super().__init__()
        self.running = running
        self.chance = random.Random(seed)
        self.until = until
        self.problem: BaseException | None = None
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                with self.running.connect() as peer:
                    for _ in range(self.chance.randrange(1, 80)):
                        self.ask(peer)
        except BaseException as problem:
            self.problem = problem

    def ask(self, peer: object) -> None:
        scope = self.chance.choice(RINGS)
        values = [
            self.chance.randbytes(self.chance.choice((0, 1, 64, 64, 3000))) for _ in range(self.chance.randrange(9))
        ]
        context = self.chance.choice((None, b"column", b"c" * 300))
        op = self.chance.choice((ENCRYPT, DECRYPT, DECRYPT, BLIND_INDEX, REENCRYPT))
        getattr(self, ("", "encrypt", "decrypt", "index", "reencrypt")[op])(peer, scope, values, context)

    def call(self, peer: object, op: int, scope: str, items: list[bytes], context: bytes | None) -> list[bytes]:
        status, answer = peer.call(op, scope, items, context)  # type: ignore[attr-defined]  # a harness.Peer
        self.statuses[status] += 1
        if status == 0:
            assert len(answer) == len(items)
            return list(answer)
        # keys and rules come and go, but none is ever unknown or wrong
        assert status in (DENIED, OVERLOADED), (status, answer)
        return []

    def encrypt(self, peer: object, scope: str, values: list[bytes], context: bytes | None) -> None:
        active = KEYS[scope][1]
        for made, value in zip(self.call(peer, ENCRYPT, scope, values, context), values, strict=False):
            assert envelope.key_id_of(made) == active[0]
            assert envelope.open_envelope(active[2], made, context) == value

    def sealed(self, scope: str, values: list[bytes], context: bytes | None) -> list[bytes]:
        keys = [self.chance.choice(KEYS[scope][:2]) for _ in values]
        return [
            envelope.seal(key, key_id, self.chance.randbytes(12), context, value)
            for (key_id, _, key), value in zip(keys, values, strict=True)
        ]

    def decrypt(self, peer: object, scope: str, values: list[bytes], context: bytes | None) -> None:
        opened = self.call(peer, DECRYPT, scope, self.sealed(scope, values, context), context)
        assert opened in (values, [])

    def reencrypt(self, peer: object, scope: str, values: list[bytes], context: bytes | None) -> None:
        old = self.sealed(scope, values, context)
        active = KEYS[scope][1]
        for made, value in zip(self.call(peer, REENCRYPT, scope, old, context), values, strict=False):
            assert envelope.key_id_of(made) == active[0]
            assert envelope.open_envelope(active[2], made, context) == value

    def index(self, peer: object, scope: str, values: list[bytes], context: bytes | None) -> None:
        expected = [envelope.blind_index(KEYS[scope][2][2], context, value) for value in values]
        assert self.call(peer, BLIND_INDEX, scope, values, context) in (expected, [])


def disturb(running: Serving, chance: random.Random, round_: int) -> None:
    """One thing that a control plane may do at any time."""
    scope = chance.choice(RINGS)
    what = chance.randrange(9)
    if what < 3:
        running.plane.evict(chance.choice(KEYS[scope])[0])
    elif what == 3:
        running.plane.evict_scope(scope)
    elif what == 4:
        key_id = 1 << 32 | round_
        running.plane.install(key_id, f"noise/{round_ % 40}", FIELD, bytearray(os.urandom(32)), ttl=20)
    elif what == 5:
        running.plane.deactivate(scope, chance.randrange(2))
    elif what == 6:
        rules = [Rule(None, None, (chance.choice(RINGS),), 0, 0)] * chance.randrange(5)
        running.plane.set_policy((*rules, *(EVERYONE if chance.random() < 0.9 else (Rule(5, 5, ("*",), ALL, 0),))))
    elif what == 7:
        running.plane.sweep()
    else:
        running.plane.complete(chance.getrandbits(64))
        running.plane.stats()


def test_stress(tmp_path: Path) -> None:
    # room for a third of the keys: eviction never ends. Leases are small, so asking for more never ends either
    with serving(tmp_path, KEYS, workers=3, key_capacity=16, budget=500) as running:
        until = time.monotonic() + SECONDS
        clients = [Client(running, seed, until) for seed in range(4)]
        for client in clients:
            client.start()
        chance = random.Random(99)
        round_ = 0
        while time.monotonic() < until:
            disturb(running, chance, round_)
            round_ += 1
            time.sleep(chance.choice((0, 0, 0.0005, 0.003)))
        running.plane.set_policy(EVERYONE)
        for client in clients:
            client.join(30)
            if client.problem is not None:
                raise client.problem
        statuses = sum((client.statuses for client in clients), Counter())
        assert statuses[0] > 100
        assert round_ > 50
        running.await_gauge("parked_now", 0)
        running.await_gauge("connections", 0)
        assert running.gauge("keys_cached") <= 16
