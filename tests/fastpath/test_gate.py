"""Who may do what, and how often."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import gate
from fastpath.dataplane import Rule
from tests.fastpath.harness import (
    ALL,
    BLIND_INDEX,
    DECRYPT,
    DENIED,
    ENCRYPT,
    EVERYONE,
    FIELD,
    HELLO,
    INDEX,
    RATE_LIMITED,
    REENCRYPT,
    Peer,
    Serving,
    serving,
)

RING = [(0xA1, FIELD, b"\x01" * 32), (0xA2, INDEX, b"\x02" * 32)]
KEYS = dict.fromkeys(("contacts",), RING) | {
    "users": [(0xB1, INDEX, b"\x04" * 32)],
    "users/42": [(0xB2, FIELD, b"\x05" * 32)],
    "users/7/a": [(0xB3, FIELD, b"\x06" * 32)],
}
SELF = 4321


def regex(glob: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in glob)


@settings(max_examples=400, deadline=None)
@given(st.text("ab*?/", max_size=12), st.text("ab/", max_size=12))
def test_globs_match_as_their_regular_expression(glob: str, name: str) -> None:
    assert gate.matches(glob.encode(), name.encode()) == bool(re.fullmatch(regex(glob), name))


def test_a_glob_made_to_backtrack_is_quick() -> None:
    begun = time.monotonic()
    for _ in range(1000):
        assert not gate.matches(b"*a" * 190 + b"b", b"a" * 193)
    assert time.monotonic() - begun < 1


def adopted(running: Serving, uid: int = SELF, gid: int = SELF, groups: tuple[int, ...] = ()) -> Peer:
    ours, theirs = socket.socketpair()
    running.plane.adopt(theirs.detach(), uid, gid, 1, groups)
    return Peer.over(ours)


def allowed(peer: Peer, scope: str) -> set[int]:
    """The operations that are not DENIED."""
    return {op for op in (ENCRYPT, DECRYPT, BLIND_INDEX, REENCRYPT) if peer.call(op, scope, [])[0] != DENIED}


EVERY = {ENCRYPT, DECRYPT, BLIND_INDEX, REENCRYPT}


@pytest.mark.parametrize(
    ("rules", "scope", "expected"),
    [
        ((), "contacts", set()),
        (EVERYONE, "contacts", EVERY),
        ((Rule(SELF, None, ("contacts",), ALL, 0),), "contacts", EVERY),
        ((Rule(SELF + 1, None, ("contacts",), ALL, 0),), "contacts", set()),
        ((Rule(0, None, ("contacts",), ALL, 0),), "contacts", set()),
        ((Rule(None, SELF, ("contacts",), ALL, 0),), "contacts", EVERY),
        ((Rule(None, 99, ("contacts",), ALL, 0),), "contacts", EVERY),
        ((Rule(None, 98, ("contacts",), ALL, 0),), "contacts", set()),
        ((Rule(SELF, 99, ("contacts",), ALL, 0),), "contacts", EVERY),
        ((Rule(SELF, 98, ("contacts",), ALL, 0),), "contacts", set()),
        ((Rule(SELF, None, ("contact",), ALL, 0),), "contacts", set()),
        ((Rule(SELF, None, ("contacts?",), ALL, 0),), "contacts", set()),
        ((Rule(SELF, None, (), ALL, 0),), "contacts", set()),
        ((Rule(SELF, None, ("*",), 1 << ENCRYPT, 0),), "contacts", {ENCRYPT}),
        ((Rule(SELF, None, ("*",), 0, 0),), "contacts", set()),
        (
            (Rule(SELF, None, ("*",), 1 << ENCRYPT, 0), Rule(SELF, None, ("c*",), 1 << DECRYPT, 0)),
            "contacts",
            {ENCRYPT, DECRYPT},
        ),
        ((Rule(SELF, None, ("users",), ALL, 0),), "users", EVERY),
        ((Rule(SELF, None, ("users",), ALL, 0),), "users/42", set()),
        ((Rule(SELF, None, ("user?",), ALL, 0),), "users/42", set()),
        ((Rule(SELF, None, ("*s",), ALL, 0),), "users/42", set()),
        ((Rule(SELF, None, ("users", "users/*"), ALL, 0),), "users/42", EVERY),
        ((Rule(SELF, None, ("*",), ALL, 0),), "users/42", EVERY),
        ((Rule(SELF, None, ("users/42",), ALL, 0),), "users/42", EVERY),
        ((Rule(SELF, None, ("users/4?",), ALL, 0),), "users/42", EVERY),
        ((Rule(SELF, None, ("users/43",), ALL, 0),), "users/42", set()),
        ((Rule(SELF, None, ("users/42",), ALL, 0),), "users", set()),
        ((Rule(SELF, None, ("users/*",), ALL, 0),), "users", set()),
        ((Rule(SELF, None, ("users/*",), ALL, 0),), "users/7/a", EVERY),
        ((Rule(SELF, None, ("us*",), ALL, 0),), "users/7/a", EVERY),
    ],
)
def test_rules(tmp_path: Path, rules: tuple[Rule, ...], scope: str, expected: set[int]) -> None:
    with serving(tmp_path, KEYS, rules=rules) as running, adopted(running, groups=(1, 99)) as peer:
        assert allowed(peer, scope) == expected
        assert peer.call(HELLO, "", [])[0] == 0


def test_the_kernel_says_who_a_peer_is(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, rules=(Rule(os.getuid(), None, ("*",), ALL, 0),)) as running:
        with running.connect() as peer:
            assert allowed(peer, "contacts") == EVERY
        running.plane.set_policy((Rule(os.getuid() + 1, None, ("*",), ALL, 0),))
        with running.connect() as peer:
            assert allowed(peer, "contacts") == set()
        running.plane.set_policy((Rule(None, os.getgid(), ("*",), ALL, 0),))
        with running.connect() as peer:
            assert allowed(peer, "contacts") == EVERY


def test_a_new_policy_counts_for_open_connections_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2) as running:
        peers = [running.connect() for _ in range(4)]
        for round_ in range(20):
            running.plane.set_policy(EVERYONE if round_ % 2 else ())
            for peer in peers:
                assert allowed(peer, "contacts") == (EVERY if round_ % 2 else set())
        for peer in peers:
            peer.close()


def test_policies_replaced_under_load(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2) as running:
        stop = threading.Event()
        statuses: set[int] = set()

        def load() -> None:
            with running.connect() as peer:
                while not stop.is_set():
                    statuses.add(peer.call(ENCRYPT, "contacts", [b"x"])[0])

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        globs = tuple(f"ring{n}*" for n in range(200))
        for round_ in range(150):
            running.plane.set_policy((Rule(None, None, globs, ALL, 0), *EVERYONE) if round_ % 3 else ())
        stop.set()
        for thread in threads:
            thread.join(10)
        assert statuses <= {0, DENIED}


def test_rates(tmp_path: Path) -> None:
    """A burst of one second's items, then the rate; within a tenth over two seconds."""
    with serving(tmp_path, KEYS, rules=(Rule(None, None, ("*",), ALL, 500),)) as running, running.connect() as peer:
        assert peer.call(ENCRYPT, "contacts", [])[0] == 0
        begun = time.monotonic()
        passed = 0
        while time.monotonic() - begun < 1.0:
            passed += 10 * (peer.call(DECRYPT, "contacts", [None] * 10)[0] == 0)
        elapsed = time.monotonic() - begun
        assert 0.9 * 500 * (1 + elapsed) <= passed <= 1.1 * 500 * (1 + elapsed)


def test_a_request_of_more_than_a_seconds_items_never_passes(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, rules=(Rule(None, None, ("*",), ALL, 100),)) as running, running.connect() as peer:
        assert peer.call(DECRYPT, "contacts", [None] * 101)[0] == RATE_LIMITED
        assert peer.call(DECRYPT, "contacts", [None] * 100)[0] == 0
        assert peer.call(DECRYPT, "contacts", [None])[0] == RATE_LIMITED
        assert peer.call(DECRYPT, "contacts", [])[0] == 0
        assert peer.call(HELLO, "", [])[0] == 0


def test_the_first_rule_that_allows_an_operation_sets_its_rate(tmp_path: Path) -> None:
    rules = (
        Rule(None, None, ("contacts",), 1 << DECRYPT, 5),
        Rule(None, None, ("*",), 1 << ENCRYPT | 1 << DECRYPT, 1000),
    )
    with serving(tmp_path, KEYS, rules=rules) as running, running.connect() as peer:
        assert peer.call(DECRYPT, "contacts", [None] * 6)[0] == RATE_LIMITED
        assert peer.call(ENCRYPT, "contacts", [None] * 6)[0] == 0
        assert peer.call(DECRYPT, "users/42", [None] * 6)[0] == 0


def test_a_rate_is_shared_by_all_whom_a_rule_matches(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, workers=2, rules=(Rule(None, None, ("*",), ALL, 50),)) as running:
        peers = [running.connect() for _ in range(10)]
        passed = sum(peer.call(DECRYPT, "contacts", [None] * 10)[0] == 0 for peer in peers)
        assert passed == 5
        for peer in peers:
            peer.close()


def test_a_request_that_waited_for_its_key_is_charged_once(tmp_path: Path) -> None:
    with serving(tmp_path, KEYS, rules=(Rule(None, None, ("*",), ALL, 10),)) as running, running.connect() as peer:
        assert peer.call(ENCRYPT, "contacts", [b"x"] * 10)[0] == 0


@pytest.mark.parametrize(
    "rule",
    [
        Rule(-1, None, ("*",), ALL, 0),
        Rule(2**32, None, ("*",), ALL, 0),
        Rule(None, None, ("*",), 1 << 5, 0),
        Rule(None, None, ("*",), -1, 0),
        Rule(None, None, ("*",), ALL, -1),
        Rule(None, None, ("a\0b",), ALL, 0),
        Rule(None, None, ("a" * 387,), ALL, 0),
    ],
)
def test_rules_that_make_no_sense_leave_the_policy_as_it_was(tmp_path: Path, rule: Rule) -> None:
    with serving(tmp_path, KEYS) as running, running.connect() as peer:
        with pytest.raises((ValueError, OverflowError)):
            running.plane.set_policy((EVERYONE[0], rule))
        assert allowed(peer, "contacts") == EVERY


def test_as_many_rules_as_are_allowed(tmp_path: Path) -> None:
    many = tuple(Rule(SELF + n, None, ("*",), ALL, 0) for n in range(1, 4096))
    with serving(tmp_path, KEYS) as running:
        running.plane.set_policy((*many, Rule(SELF, None, ("*",), ALL, 0)))
        with adopted(running) as peer:
            assert allowed(peer, "contacts") == EVERY
        with pytest.raises(ValueError, match="at most"):
            running.plane.set_policy((*many, *many))
