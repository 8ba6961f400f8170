"""Every operation through the socket against independent oracles; the plane's own life: start, drain, stop, fork."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keyside.testing import envelope

from fastpath.dataplane import DataPlane, Options, Rule
from tests.fastpath.harness import (
    BLIND_INDEX,
    CAPACITY,
    DECRYPT,
    DENIED,
    ENCRYPT,
    FIELD,
    HELLO,
    INDEX,
    REENCRYPT,
    SHUTTING_DOWN,
    UNKNOWN_KEYRING,
    Peer,
    Serving,
    open_memory,
    serving,
)

OLD, NEW, INDEXING = (0xA1, FIELD, b"\x01" * 32), (0xA2, FIELD, b"\x02" * 32), (0xA3, INDEX, b"\x03" * 32)
KEYS = {"contacts": [OLD, NEW, INDEXING], "users/42": [(0xB1, FIELD, b"\x0b" * 32)]}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path, KEYS, product="keyside/9.9") as plane:
        yield plane


@pytest.fixture
def peer(running: Serving) -> Iterator[Peer]:
    with running.connect() as connected:
        yield connected


def sealed(plaintext: bytes, context: bytes | None = None, key: tuple[int, int, bytes] = OLD) -> bytes:
    return envelope.seal(key[2], key[0], os.urandom(12), context, plaintext)


CONTEXTS = [
    (None, [b""] * 4),
    (b"", [b""] * 4),
    ("text", [b"text"] * 4),
    (b"c" * 65535, [b"c" * 65535] * 4),
    ([b"a", None, "b", b""], [b"a", b"", b"b", b""]),
]


@pytest.mark.parametrize(("context", "each"), CONTEXTS, ids=["nil", "empty", "str", "longest", "one an item"])
def test_every_operation_with_every_kind_of_context(peer: Peer, context: object, each: list[bytes]) -> None:
    plain = [b"value", None, "text", b""]
    values = [b"value", None, b"text", b""]
    status, made = peer.call(ENCRYPT, "contacts", plain, context)
    assert status == 0
    assert made[1] is None
    for ciphertext, value, bound in zip(made, values, each, strict=True):
        if value is not None:
            assert envelope.key_id_of(ciphertext) == NEW[0]
            assert envelope.open_envelope(NEW[2], ciphertext, bound) == value
    assert peer.call(DECRYPT, "contacts", made, context) == [0, values]
    old = [None if v is None else sealed(v, c) for v, c in zip(values, each, strict=True)]
    status, moved = peer.call(REENCRYPT, "contacts", old, context)
    assert status == 0
    for ciphertext, value, bound in zip(moved, values, each, strict=True):
        if value is not None:
            assert envelope.open_envelope(NEW[2], ciphertext, bound) == value
    assert peer.call(REENCRYPT, "contacts", moved, context) == [0, moved]
    expected = [
        None if v is None else envelope.blind_index(INDEXING[2], c, v) for v, c in zip(values, each, strict=True)
    ]
    assert peer.call(BLIND_INDEX, "contacts", plain, context) == [0, expected]


def test_hello(peer: Peer) -> None:
    assert peer.call(HELLO, "", []) == [0, [b"keyside/9.9", b"1", b"8388608", b"131072"]]
    assert peer.call(HELLO, "", [None], ["1", "2"]) == [0, [b"keyside/9.9", b"1", b"8388608", b"131072"]]


@pytest.mark.parametrize("op", [ENCRYPT, DECRYPT, BLIND_INDEX, REENCRYPT])
def test_no_items_and_only_nils(peer: Peer, op: int) -> None:
    assert peer.call(op, "contacts", []) == [0, []]
    assert peer.call(op, "contacts", [None] * 20) == [0, [None] * 20]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 33, 217, 218, 255, 256, 65497, 65498, 65535, 65536, 3_000_000])
def test_sizes_around_every_edge_of_the_encoding(peer: Peer, size: int) -> None:
    value = os.urandom(size)
    status, (made, again) = peer.call(ENCRYPT, "contacts", [value, value], b"c")
    assert status == 0
    assert made != again
    assert envelope.open_envelope(NEW[2], made, b"c") == value
    assert peer.call(DECRYPT, "contacts", [made, again], b"c") == [0, [value, value]]
    status, (moved, same) = peer.call(REENCRYPT, "contacts", [sealed(value, b"c"), again], b"c")
    assert (status, same) == (0, again)
    assert envelope.open_envelope(NEW[2], moved, b"c") == value


def test_scopes_have_their_own_keys(peer: Peer) -> None:
    _, (made,) = peer.call(ENCRYPT, "users/42", [b"x"])
    assert envelope.open_envelope(b"\x0b" * 32, made, None) == b"x"
    assert peer.call(ENCRYPT, "users/43", [b"x"])[0] == UNKNOWN_KEYRING
    assert peer.call(ENCRYPT, "users", [b"x"])[0] == UNKNOWN_KEYRING
    assert peer.call(DECRYPT, "users/42", [made]) == [0, [b"x"]]


def test_many_keys_interleaved_in_one_batch(tmp_path: Path) -> None:
    """More keys than a worker keeps cipher contexts for, many of them in one set of that cache."""
    keys = [(n, FIELD, n.to_bytes(32, "little")) for n in range(1, 400)]
    items = [(keys[i * 7919 % len(keys)], b"%d" % i) for i in range(3000)]
    with serving(tmp_path, {"many": keys}) as running, running.connect() as peer:
        batch = [sealed(value, b"c", key) for key, value in items]
        assert peer.call(DECRYPT, "many", batch, b"c") == [0, [value for _, value in items]]
        status, moved = peer.call(REENCRYPT, "many", batch, b"c")
        assert status == 0
        for (_, value), ciphertext in zip(items, moved, strict=True):
            assert envelope.open_envelope(keys[-1][2], ciphertext, b"c") == value


def test_no_nonce_comes_twice(peer: Peer) -> None:
    nonces = set()
    for _ in range(4):
        nonces |= {made[10:22] for made in peer.call(ENCRYPT, "contacts", [b""] * 20_000)[1]}
    assert len(nonces) == 80_000


# Connections from the control plane


def test_adopted_connections_have_the_identity_they_are_given(tmp_path: Path) -> None:
    rules = (Rule(1234, None, ("contacts",), 1 << ENCRYPT, 0), Rule(None, 77, ("contacts",), 1 << DECRYPT, 0))
    with serving(tmp_path, KEYS, rules=rules) as running:
        for uid, gid, groups, may in [
            (1234, 1, (), {ENCRYPT}),
            (0, 77, (), {DECRYPT}),
            (5, 5, (1, 2, 77), {DECRYPT}),
            (1234, 5, (77,), {ENCRYPT, DECRYPT}),
            (0, 0, (), set()),
        ]:
            ours, theirs = socket.socketpair()
            running.plane.adopt(theirs.detach(), uid, gid, 1, groups)
            peer = Peer.over(ours)
            for op, items in [(ENCRYPT, [b"x"]), (DECRYPT, [sealed(b"x")]), (BLIND_INDEX, [b"x"])]:
                assert peer.call(op, "contacts", items)[0] == (0 if op in may else DENIED)
            peer.close()
        running.await_gauge("connections", 0)


def test_adopting_nonsense(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running:
        with pytest.raises(OSError, match="adopt"):
            running.plane.adopt(-1, 0, 0, 0)
        ours, theirs = socket.socketpair()
        with pytest.raises(OverflowError):
            running.plane.adopt(theirs.fileno(), 0, 0, 0, (1, -1))
        theirs.close()
        ours.close()
        readable, writable = os.pipe()
        running.plane.adopt(readable, 0, 0, 0)
        os.write(writable, b"x")
        running.await_gauge("connections", 0)
        os.close(writable)
        with Path(os.devnull).open() as null:
            running.plane.adopt(os.dup(null.fileno()), 0, 0, 0)
        running.await_gauge("connections", 0)
        with running.connect() as peer:
            assert peer.alive()


def test_adopted_connections_speak_frames_alone(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running:
        ours, theirs = socket.socketpair()
        running.plane.adopt(theirs.detach(), 0, 0, 0)
        with Peer.over(ours) as peer:
            peer.raw(b"GET / HTTP/1.1\r\n\r\n")
            assert peer.receive()[:2] == [0, 16]
            assert peer.closed()


# Life


def test_without_a_policy_nobody_may_do_anything(tmp_path: Path) -> None:
    open_memory()
    plane = DataPlane(Options(workers=1, cpus=(), key_capacity=CAPACITY))
    with contextlib.closing(listening(tmp_path)) as listener:
        plane.start(listener.fileno())
        with Peer(tmp_path / "data.sock") as peer:
            assert peer.alive()
            assert peer.call(ENCRYPT, "contacts", [b"x"])[0] == DENIED
        plane.stop()


def listening(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "data.sock"))
    listener.listen(128)
    return listener


def test_stopping_twice_and_using_what_was_stopped(tmp_path: Path) -> None:
    open_memory()
    plane = DataPlane(Options(workers=2, cpus=(), key_capacity=CAPACITY))
    with contextlib.closing(listening(tmp_path)) as listener:
        plane.start(listener.fileno())
        with pytest.raises(RuntimeError, match="started"):
            plane.start(listener.fileno())
        with Peer(tmp_path / "data.sock") as peer:
            assert peer.alive()
            plane.stop()
            plane.stop()
            assert peer.closed()
    for use in (
        lambda: plane.events(),
        lambda: plane.set_policy(()),
        lambda: plane.evict(1),
        lambda: plane.sweep(),
        lambda: plane.stats(),
        lambda: plane.drain(0),
        lambda: plane.complete(257),
        lambda: plane.adopt(0, 0, 0, 0),
        lambda: plane.start(0),
    ):
        with pytest.raises(RuntimeError, match="stopped"):
            use()
    key = bytearray(b"\x01" * 32)
    with pytest.raises(RuntimeError, match="stopped"):
        plane.install(1, "contacts", FIELD, key, ttl=1)
    assert not any(key)


def test_a_second_plane_is_refused_while_the_first_has_the_key_slots(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running:
        with pytest.raises(RuntimeError, match="already"):
            DataPlane(Options(workers=1, cpus=(), key_capacity=CAPACITY))
        with running.connect() as peer:
            assert peer.alive()
    DataPlane(Options(workers=1, cpus=(), key_capacity=CAPACITY)).stop()


def test_a_plane_that_is_dropped_unstarted_frees_its_place() -> None:
    open_memory()
    for _ in range(3):
        plane = DataPlane(Options(workers=1, cpus=(), key_capacity=CAPACITY))
        del plane


def test_starting_on_a_bad_descriptor_can_be_repaired(tmp_path: Path) -> None:
    open_memory()
    plane = DataPlane(Options(workers=1, cpus=(), key_capacity=CAPACITY))
    with pytest.raises(OSError, match="listening"):
        plane.start(-1)
    with contextlib.closing(listening(tmp_path)) as listener:
        plane.start(listener.fileno())
        with Peer(tmp_path / "data.sock") as peer:
            assert peer.alive()
        plane.stop()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", 0),
        ("workers", 65),
        ("key_capacity", 0),
        ("max_frame", 1 << 28),
        ("max_frame", 10),
        ("park_requests", 0),
    ],
)
def test_options_that_cannot_work(option: str, value: int) -> None:
    open_memory()
    wrong: dict[str, Any] = {option: value}
    options = Options(workers=1, cpus=(), key_capacity=CAPACITY)._replace(**wrong)
    with pytest.raises(ValueError, match=option):
        DataPlane(options)


def test_more_keys_than_the_arena_holds() -> None:
    open_memory()
    with pytest.raises(ValueError, match="room for"):
        DataPlane(Options(workers=1, cpus=(), key_capacity=1 << 27))


def test_draining_answers_what_waits_and_refuses_what_comes(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2) as running, running.connect() as peer, running.connect() as other:
        running.holder.keeping = True
        for number in range(5):
            peer.send(number, DECRYPT, "contacts", None, [sealed(b"%d" % number)])
        running.await_gauge("parked_now", 5)
        assert running.plane.drain(0.05) is False
        assert other.call(ENCRYPT, "contacts", [b"x"])[0] == SHUTTING_DOWN
        assert peer.call(ENCRYPT, "contacts", [b"x"])[0] == SHUTTING_DOWN
        assert other.call(HELLO, "", [])[0] == 0
        late = socket.socket(socket.AF_UNIX)
        late.connect(str(running.path))
        late.settimeout(0.1)
        late.send(bytes.fromhex("00000006950700a0c090"))
        with pytest.raises(TimeoutError):
            late.recv(1)
        late.close()
        threading.Timer(0.05, running.holder.settle, (running.holder.kept[0],)).start()
        assert running.plane.drain(5) is True
        assert sorted(peer.receive() for _ in range(5)) == [[n, 0, [b"%d" % n]] for n in range(5)]


def test_draining_waits_for_a_slow_reader(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        peer.send(1, ENCRYPT, "contacts", None, [b"x" * 2_000_000])
        running.await_gauge("blocked", 1)
        assert running.plane.drain(0.05) is False
        received: list[object] = []
        reader = threading.Thread(target=lambda: received.append(peer.receive()[:2]))
        reader.start()
        assert running.plane.drain(5) is True
        reader.join(5)
        assert received == [[1, 0]]


def test_nothing_that_was_begun_is_lost_between_drain_and_stop(tmp_path: Path) -> None:
    """Whatever instant draining hits: each request that a worker took is answered, if only with SHUTTING_DOWN."""
    for round_ in range(15):
        path = tmp_path / f"{round_}"
        path.mkdir()
        keys = {f"ring/{n}": [(n, FIELD, n.to_bytes(32, "big"))] for n in range(1, 2000)}
        with serving(path, keys, workers=2) as running:
            answered: list[int] = []
            peers = [running.connect() for _ in range(3)]
            assert all(peer.alive() for peer in peers)
            clients = [
                threading.Thread(target=lambda p=peer, a=answered, n=n: a.append(talk(p, n)))
                for n, peer in enumerate(peers)
            ]
            for client in clients:
                client.start()
            time.sleep(0.002 * (round_ % 5))
            assert running.plane.drain(5)
            taken = running.gauge("requests")["encrypt"]
            running.plane.stop()
            for client in clients:
                client.join(10)
            assert sum(answered) >= taken


def talk(peer: Peer, number: int) -> int:
    """Ask for keys that nobody has cached, one request at a time, until refused or closed; answers received."""
    answers = 0
    with peer, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            status = peer.call(ENCRYPT, f"ring/{1 + number * 600 + answers}", [b"x" * 1000])[0]
            answers += 1
            if status == SHUTTING_DOWN:
                break
            assert status == 0
    return answers


def test_a_forked_child_has_no_plane_and_ends_cleanly(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        assert peer.call(ENCRYPT, "contacts", [b"x"])[0] == 0
        child = os.fork()
        if child == 0:
            os._exit(in_child(running.plane))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert peer.call(ENCRYPT, "contacts", [b"x"])[0] == 0


def in_child(plane: DataPlane) -> int:
    """0 when every use of the parent's plane was refused."""
    signal.alarm(10)
    uses = (
        lambda: plane.stop(),
        lambda: plane.events(),
        lambda: plane.evict(0xA2),
        lambda: plane.contains(0xA2),
        lambda: plane.set_policy(()),
        lambda: plane.drain(1),
        lambda: plane.stats(),
        lambda: plane.install(1, "contacts", FIELD, bytearray(32), ttl=1),
    )
    refused = 0
    for use in uses:
        try:
            use()
        except RuntimeError:
            refused += 1
    return len(uses) - refused
