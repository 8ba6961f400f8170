"""Requests that wait for a data key: coalescing, limits, deadlines, refusals, and whatever goes wrong meanwhile."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from keyside.testing import envelope, frames

from tests.fastpath.harness import (
    DECRYPT,
    ENCRYPT,
    FIELD,
    INVALID_CIPHERTEXT,
    KMS_UNAVAILABLE,
    OVERLOADED,
    REENCRYPT,
    UNKNOWN_KEY,
    UNKNOWN_KEYRING,
    Peer,
    Serving,
    serving,
    wait_for,
)

OLD, NEW = (0xA1, FIELD, b"\x01" * 32), (0xA2, FIELD, b"\x02" * 32)
KEYS = {"contacts": [OLD, NEW]}


def sealed(plaintext: bytes, key: tuple[int, int, bytes] = OLD, context: bytes = b"") -> bytes:
    return envelope.seal(key[2], key[0], bytes(range(12)), context, plaintext)


def test_a_thousand_requests_for_one_key_ask_once_a_worker(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2) as running, contextlib.ExitStack() as stack:
        running.holder.answering.clear()
        peers = [stack.enter_context(running.connect()) for _ in range(50)]
        for number in range(20):
            for peer in peers:
                peer.send(number, DECRYPT, "contacts", None, [sealed(b"%d" % number)])
        running.await_gauge("parked_now", 1000)
        assert running.gauge("key_misses") <= 2
        assert running.gauge("coalesced") >= 998
        running.holder.answering.set()
        for peer in peers:
            answers = sorted(peer.receive() for _ in range(20))
            assert answers == [[n, 0, [b"%d" % n]] for n in range(20)]
        assert running.holder.count("key") <= 2
        assert running.gauge("parked_now") == running.gauge("parked_bytes") == 0


def test_too_many_waiting_requests_are_overloaded_and_the_others_served(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, park_requests=10) as running, running.connect() as peer:
        running.holder.answering.clear()
        for number in range(13):
            peer.send(number, ENCRYPT, "contacts", None, [b"x"])
        early = [peer.receive()[:2] for _ in range(5)]
        assert early == [[n, OVERLOADED] for n in range(8, 13)]
        running.holder.answering.set()
        assert sorted(peer.receive()[:2] for _ in range(8)) == [[n, 0] for n in range(8)]


def test_too_many_waiting_bytes_are_overloaded(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, max_frame=60_000, park_bytes=200_000) as running, running.connect() as peer:
        running.holder.answering.clear()
        for number in range(5):
            peer.send(number, ENCRYPT, "contacts", None, [b"x" * 55_000])
        assert sorted(peer.receive()[:2] for _ in range(2)) == [[3, OVERLOADED], [4, OVERLOADED]]
        assert running.gauge("parked_bytes") <= 175_000
        running.holder.answering.set()
        assert sorted(peer.receive()[:2] for _ in range(3)) == [[0, 0], [1, 0], [2, 0]]


def test_a_key_that_does_not_come_in_time_is_unavailable(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, park_timeout=200) as running, running.connect() as peer:
        running.holder.answering.clear()
        waited = []
        for number in range(4):
            begun = time.monotonic()
            assert peer.call(DECRYPT, "contacts", [sealed(b"x")], request_id=number)[0] == KMS_UNAVAILABLE
            waited.append(time.monotonic() - begun)
        assert min(waited) >= 0.19
        assert min(waited) <= 0.3  # the busiest machine has one quiet moment in four
        assert running.gauge("park_timeouts") == 4
        running.holder.answering.set()
        wait_for(lambda: running.plane.contains(OLD[0]))
        assert peer.call(DECRYPT, "contacts", [sealed(b"x")]) == [0, [b"x"]]


def test_an_overdue_request_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, park_timeout=300) as running, running.connect() as peer:
        running.holder.keeping = True
        peer.send(1, ENCRYPT, "nowhere", None, [b"x"])
        time.sleep(0.15)
        peer.send(2, DECRYPT, "contacts", None, [sealed(b"x")])
        assert peer.receive()[:2] == [1, KMS_UNAVAILABLE]
        running.holder.settle(running.holder.kept[1])
        assert peer.receive() == [2, 0, [b"x"]]
        running.holder.settle(running.holder.kept[0])  # far too late


def test_an_unknown_key_is_remembered_for_a_while(tmp_path: Path) -> None:
    stranger = envelope.seal(bytes(32), 0xDEAD, bytes(12), b"", b"x")
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.negative_ttl = 300
        for _ in range(20):
            assert peer.call(DECRYPT, "contacts", [stranger]) == [1, [UNKNOWN_KEY]]
        assert running.holder.count("key") <= 2
        time.sleep(0.35)
        assert peer.call(DECRYPT, "contacts", [stranger]) == [1, [UNKNOWN_KEY]]
        assert running.holder.count("key") >= 2


def test_an_unknown_keyring_is_remembered_and_forgotten_when_its_key_comes(tmp_path: Path) -> None:
    with serving(tmp_path, dict(KEYS)) as running, running.connect() as peer:
        running.holder.negative_ttl = 60_000
        for _ in range(20):
            assert peer.call(ENCRYPT, "later", [b"x"])[0] == UNKNOWN_KEYRING
        assert running.holder.count("scope") == 1
        running.plane.install(7, "later", FIELD, bytearray(b"\x07" * 32), ttl=60_000)
        running.plane.activate(7, 10)
        assert peer.call(ENCRYPT, "later", [b"x"])[0] == 0


@pytest.mark.parametrize("code", [*range(16, 27)])
def test_any_refusal_reaches_the_item_or_the_request(tmp_path: Path, code: int) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.plane.refuse_key(0xA1, "contacts", code, 60_000)
        running.plane.refuse_scope("contacts", FIELD, code, 60_000)
        answer = peer.call(DECRYPT, "contacts", [None, sealed(b"x")])
        assert answer[0] == UNKNOWN_KEYRING if code == UNKNOWN_KEYRING else answer == [1, [None, code]]
        for op in (ENCRYPT, REENCRYPT):
            status, message = peer.call(op, "contacts", [sealed(b"x", NEW)])
            assert status == code
            assert 10 < len(message) < 256


def test_more_distinct_keys_in_one_batch_than_it_may_wait_for_at_once(tmp_path: Path) -> None:
    keys = [(n, FIELD, n.to_bytes(32, "big")) for n in range(1, 3001)]
    items = [sealed(b"%d" % key[0], key) for key in keys]
    random.Random(5).shuffle(items)
    with serving(tmp_path, {"wide": keys}) as running, running.connect() as peer:
        status, values = peer.call(DECRYPT, "wide", items * 2)
        assert status == 0
        assert sorted(map(int, values)) == sorted([key[0] for key in keys] * 2)
        assert running.holder.count("key") == 3000


@pytest.mark.parametrize(("capacity", "count"), [(1, 3), (2, 5), (2, 40), (64, 1000), (4000, 4001)])
def test_more_keys_in_one_batch_than_the_cache_holds(tmp_path: Path, capacity: int, count: int) -> None:
    keys = [(n, FIELD, n.to_bytes(32, "big")) for n in range(1, count + 1)]
    items: list[bytes | None] = [sealed(b"%d" % key[0], key) for key in keys]
    values: list[bytes | int | None] = [b"%d" % key[0] for key in keys]
    items[1:1] = [None, b"junk", sealed(b"x", (99_999, FIELD, bytes(32)))]
    values[1:1] = [None, INVALID_CIPHERTEXT, UNKNOWN_KEY]
    with serving(tmp_path, {"wide": keys}, key_capacity=capacity) as running, running.connect() as peer:
        assert peer.call(DECRYPT, "wide", items * 2) == [1, values * 2]
        assert running.gauge("keys_evicted") > 0
        assert running.gauge("failed_items") == {INVALID_CIPHERTEXT: 2, UNKNOWN_KEY: 2}
        assert running.gauge("parked_bytes") == 0


@pytest.mark.parametrize("capacity", [2, 3, 64])
def test_reencrypting_more_keys_in_one_batch_than_the_cache_holds(tmp_path: Path, capacity: int) -> None:
    keys = [(n, FIELD, n.to_bytes(32, "big")) for n in range(1, 301)]
    items = [None, b"junk", *(sealed(b"%d" % key[0], key, b"c") for key in keys)]
    with serving(tmp_path, {"wide": keys}, key_capacity=capacity) as running, running.connect() as peer:
        status, (nothing, junk, *moved) = peer.call(REENCRYPT, "wide", items, b"c")
        assert (status, nothing, junk) == (1, None, INVALID_CIPHERTEXT)
        assert moved[-1] == items[-1]  # under the active key already
        for envelope_made, key in zip(moved, keys, strict=True):
            assert envelope.key_id_of(envelope_made) == keys[-1][0]
            assert envelope.open_envelope(keys[-1][2], envelope_made, b"c") == b"%d" % key[0]


def test_a_request_whose_two_keys_never_fit_at_once_is_not_tried_for_ever(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, key_capacity=1, park_timeout=60_000) as running, running.connect() as peer:
        status, message = peer.call(REENCRYPT, "contacts", [sealed(b"x")])
        assert status == OVERLOADED
        assert "cache.keys" in message
        assert len(running.holder.seen) < 100
        assert peer.call(DECRYPT, "contacts", [sealed(b"x")]) == [0, [b"x"]]


def test_more_unknown_keys_in_one_batch_than_refusals_are_remembered(tmp_path: Path) -> None:
    items = [sealed(b"x", (n, FIELD, bytes(32))) for n in range(1000, 13_000)]
    with serving(tmp_path, KEYS, park_timeout=60_000) as running, running.connect() as peer:
        running.holder.negative_ttl = 60_000
        assert peer.call(DECRYPT, "contacts", items) == [1, [UNKNOWN_KEY] * len(items)]
        assert running.holder.count("key") <= len(items) * 1.1


def test_hits_and_failures_of_a_request_that_waited_count_once(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        assert peer.call(DECRYPT, "contacts", [sealed(b"x")])[0] == 0
        assert running.gauge("key_hits") == 0  # it was waited for
        running.holder.keeping = True
        peer.send(1, DECRYPT, "contacts", None, [b"junk", sealed(b"x"), sealed(b"y", NEW), b"junk"])
        (event,) = wait_for(lambda: running.holder.kept)
        assert (running.gauge("key_hits"), running.gauge("failed_items")) == (1, {})
        running.holder.settle(event)
        assert peer.receive() == [1, 1, [20, b"x", b"y", 20]]
        assert (running.gauge("key_hits"), running.gauge("failed_items")) == (1, {INVALID_CIPHERTEXT: 2})
        assert (running.gauge("key_misses"), running.gauge("requests")["decrypt"]) == (2, 2)


def test_a_peer_that_floods_unknown_keys_leaves_room_for_the_others(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2, park_requests=1000) as running, contextlib.ExitStack() as stack:
        running.holder.keeping = True
        flood = [stack.enter_context(running.connect_as(1001)) for _ in range(4)]
        for number, peer in enumerate(flood):
            for n in range(250):
                peer.send(n, ENCRYPT, f"users/{number}-{n}", None, [b"x"])
        wait_for(lambda: running.gauge("failed_requests").get(OVERLOADED) == 125)
        assert running.gauge("parked_now") == 875  # seven eighths: a lone peer may use nearly all
        with running.connect_as(1002) as other, running.connect_as(1003) as third:
            for number in range(10):
                other.send(number, DECRYPT, "contacts", None, [sealed(b"%d" % number)])
                third.send(number, ENCRYPT, f"users/{number}", None, [b"x"])
            running.await_gauge("parked_now", 895)
            wanted = wait_for(lambda: [e for e in running.holder.kept if e.kind == "key"])
            assert {event.uid for event in wanted} == {1002}
            running.holder.settle(wanted[0])
            assert sorted(other.receive() for _ in range(10)) == [[n, 0, [b"%d" % n]] for n in range(10)]
        flood[0].send(999, ENCRYPT, "users/late", None, [b"x"])
        wait_for(lambda: running.gauge("failed_requests")[OVERLOADED] == 126)


def test_a_peer_whose_batches_name_many_keys_leaves_misses_for_the_others(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, park_requests=1000) as running:
        running.holder.keeping = True
        with running.connect_as(1001) as flood, running.connect_as(1002) as other:
            for number in range(4):
                wanted = [sealed(b"x", (number * 1000 + n + 1, FIELD, bytes(32))) for n in range(1000)]
                flood.send(number, DECRYPT, "contacts", None, wanted)
            wait_for(lambda: running.gauge("failed_requests").get(OVERLOADED) == 3)
            assert running.gauge("key_misses") == 875
            other.send(1, DECRYPT, "contacts", None, [sealed(b"y")])
            event = wait_for(lambda: [e for e in running.holder.kept if e.uid == 1002])[0]
            running.holder.settle(event)
            assert other.receive() == [1, 0, [b"y"]]


def test_a_key_that_two_peers_want_is_asked_for_by_each(tmp_path: Path) -> None:
    """Behind one peer's long line nobody else must wait."""
    with serving(tmp_path, KEYS) as running, running.connect_as(1001) as one, running.connect_as(1002) as two:
        running.holder.keeping = True
        for peer in (one, one, two):
            peer.send(1, DECRYPT, "contacts", None, [sealed(b"x")])
        running.await_gauge("parked_now", 3)
        kept = wait_for(lambda: running.holder.kept if len(running.holder.kept) == 2 else None)
        assert sorted(event.uid for event in kept) == [1001, 1002]
        running.holder.settle(next(event for event in kept if event.uid == 1002))
        assert two.receive() == [1, 0, [b"x"]]
        assert running.gauge("parked_now") == 2


def test_what_a_peer_holds_is_given_back_whatever_becomes_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, park_requests=32, max_connections=4) as running:
        running.holder.keeping = True
        for turn in range(30):
            with running.connect() as leaving:
                for number in range(14):
                    stranger = (turn * 14 + number + 1000, FIELD, bytes(32))
                    leaving.send(number, DECRYPT, "contacts", None, [sealed(b"x", stranger)])
                running.await_gauge("parked_now", 14)
            running.await_gauge("parked_now", 0)
            running.await_gauge("connections", 0)
            settle_all(running)
            running.holder.kept.clear()
        assert running.gauge("failed_requests") == {}


@pytest.mark.parametrize("workers", [1, 3, 7, 64])
def test_a_frame_of_the_longest_size_arrives_and_waits_with_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    longest = 60_000
    limits: dict[str, Any] = {"max_frame": longest, "buffer_bytes": longest, "park_bytes": 1024}
    rest = longest + 4 - len(frames.build_request(1, DECRYPT, "contacts", None, [sealed(b"x"), bytes(1 << 15)]))
    request = frames.build_request(1, DECRYPT, "contacts", None, [sealed(b"x"), bytes((1 << 15) + rest)])
    assert len(request) == longest + 4
    with serving(tmp_path, KEYS, workers=workers, **limits) as running, running.connect() as peer:
        peer.raw(request[:-1])
        wait_for(lambda: running.gauge("bytes_in") == longest + 3)
        peer.raw(request[-1:])
        assert peer.receive() == [1, 1, [b"x", INVALID_CIPHERTEXT]]


def test_unknown_completions_are_ignored(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2) as running, running.connect() as peer:
        running.holder.keeping = True
        peer.send(1, DECRYPT, "contacts", None, [sealed(b"x")])
        (event,) = wait_for(lambda: running.holder.kept)
        for token in (0, 1, 255, 256, 257, event.token + 256, event.token ^ 1, event.token ^ (1 << 40), 2**64 - 1):
            running.plane.complete(token)
        assert running.gauge("parked_now") == 1
        running.holder.settle(event)
        assert peer.receive() == [1, 0, [b"x"]]
        running.plane.complete(event.token)  # once more
        assert peer.alive()


def test_a_peer_that_leaves_while_its_requests_wait(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running:
        running.holder.keeping = True
        with running.connect() as staying:
            staying.send(1, DECRYPT, "contacts", None, [sealed(b"x")])
            wait_for(lambda: running.holder.kept)
            for _ in range(20):
                with running.connect() as leaving:
                    for number in range(5):
                        leaving.send(number, DECRYPT, "contacts", None, [sealed(b"%d" % number)])
                    leaving.send(9, DECRYPT, "contacts", None, [envelope.seal(bytes(32), 5, bytes(12), b"", b"")])
            running.await_gauge("parked_now", 1)
            running.await_gauge("connections", 1)
            for event in running.holder.kept:
                running.holder.settle(event)
            assert staying.receive() == [1, 0, [b"x"]]
            assert running.gauge("parked_bytes") == 0


def test_half_closed_connections_still_get_their_answers(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.keeping = True
        for number in range(5):
            peer.send(number, DECRYPT, "contacts", None, [sealed(b"%d" % number)])
        peer.socket.shutdown(1)
        running.await_gauge("parked_now", 5)
        running.holder.settle(wait_for(lambda: running.holder.kept)[0])
        assert sorted(peer.receive() for _ in range(5)) == [[n, 0, [b"%d" % n]] for n in range(5)]
        assert peer.closed()
        running.await_gauge("connections", 0)


@pytest.mark.parametrize("first", ["key", "scope"])
def test_reencrypt_with_both_keys_missing_in_either_order(tmp_path: Path, first: str) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.keeping = True
        peer.send(1, REENCRYPT, "contacts", b"c", [None, sealed(b"x", OLD, b"c"), sealed(b"y", NEW, b"c"), b"junk"])
        # NEW is missing twice: as the active key and as the one that an envelope names
        kept = wait_for(lambda: running.holder.kept if len(running.holder.kept) == 3 else None)
        for event in sorted(kept, key=lambda event: event.kind != first):
            running.holder.settle(event)
        running.holder.keeping = False
        request_id, status, (nothing, moved, same, junk) = peer.receive()
        assert (request_id, status, nothing, junk) == (1, 1, None, 20)
        assert envelope.key_id_of(moved) == NEW[0]
        assert envelope.open_envelope(NEW[2], moved, b"c") == b"x"
        assert same == sealed(b"y", NEW, b"c")


def test_a_key_that_goes_again_before_its_request_runs(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.keeping = True
        peer.send(1, DECRYPT, "contacts", None, [sealed(b"x")])
        for gone in range(3):

            def kept(start: int = gone) -> list[Any]:
                return running.holder.kept[start:]

            event = wait_for(kept)[0]
            running.holder.install("contacts", OLD)
            running.plane.evict(OLD[0])
            running.plane.complete(event.token)
        running.holder.settle(wait_for(lambda: running.holder.kept[3:])[0])
        assert peer.receive() == [1, 0, [b"x"]]


def test_a_key_that_expired_is_asked_for_again(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.ttl = 50
        for _ in range(3):
            assert peer.call(DECRYPT, "contacts", [sealed(b"x")]) == [0, [b"x"]]
            assert peer.call(ENCRYPT, "contacts", [b"x"])[0] == 0
            time.sleep(0.08)
        assert running.holder.count("key") >= 3
        assert running.holder.count("scope") >= 3


def test_a_policy_that_changes_while_a_request_waits_is_the_one_that_counts(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        running.holder.keeping = True
        peer.send(1, DECRYPT, "contacts", None, [sealed(b"x")])
        (event,) = wait_for(lambda: running.holder.kept)
        running.plane.set_policy(())
        running.holder.settle(event)
        assert peer.receive()[:2] == [1, 17]


def test_thousands_of_open_misses_are_settled_quickly(tmp_path: Path) -> None:
    count = 20_000
    with serving(tmp_path, {}) as running, running.connect() as peer:
        running.holder.answering.clear()
        running.holder.negative_ttl = 60_000
        peer.raw(b"".join(waiting(n) for n in range(count)))
        running.await_gauge("parked_now", count)
        running.holder.answering.set()
        begun = time.monotonic()
        assert sorted(peer.receive()[0] for _ in range(count)) == list(range(count))
        assert time.monotonic() - begun < 10


def waiting(n: int) -> bytes:
    return frames.build_request(n, ENCRYPT, f"users/{n}", None, [b"x"])


def test_answers_to_waiting_requests_of_one_connection_never_reach_another(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS) as running, contextlib.ExitStack() as stack:
        running.holder.keeping = True
        peers: list[tuple[int, Peer]] = [(n, stack.enter_context(running.connect())) for n in range(30)]
        for number in range(10):
            for n, peer in peers:
                peer.send(n * 100 + number, DECRYPT, "contacts", None, [sealed(b"%d" % n)])
        running.await_gauge("parked_now", 300)
        for n, peer in peers[::3]:
            assert n % 3 == 0
            peer.close()
        settle_all(running)
        for n, peer in peers:
            if n % 3:
                answers = sorted(peer.receive() for _ in range(10))
                assert answers == [[n * 100 + number, 0, [b"%d" % n]] for number in range(10)]


def settle_all(running: Serving) -> None:
    for event in wait_for(lambda: running.holder.kept):
        running.holder.settle(event)
