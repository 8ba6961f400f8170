"""Many peers at once: one unwrap for all who wait, ten thousand connections, a key service that stands still."""

from __future__ import annotations

import resource
import socket
import sqlite3
import struct
import time

import msgpack
import pytest
from keyside import Client, KmsUnavailable, Overloaded

from benchmarks.sidecar import Sidecar

ENCRYPT, DECRYPT = 1, 2


def frame(*request: object) -> bytes:
    body = msgpack.packb(list(request))
    return struct.pack(">I", len(body)) + body


def connect(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    # with a timeout set, connecting while the backlog is full would be an error instead of a pause
    peer.connect(path)
    peer.settimeout(30)
    return peer


def answers(peer: socket.socket, count: int) -> list[list[object]]:
    with peer.makefile("rb") as stream:
        return [msgpack.unpackb(stream.read(struct.unpack(">I", stream.read(4))[0])) for _ in range(count)]


@pytest.mark.parametrize("op", [ENCRYPT, DECRYPT])
def test_a_thousand_requests_for_one_uncached_key_are_one_unwrap(sidecar: Sidecar, op: int) -> None:
    with Client(sidecar.path) as client:
        envelope = client.encrypt("users/42", b"value", context=b"c")
    sidecar.restart()
    before = sidecar.status()["key_service"]["unwraps"]
    peers = [connect(sidecar.path) for _ in range(50)]
    item = b"value" if op == ENCRYPT else envelope
    requests = b"".join(frame(number, op, "users/42", b"c", [item]) for number in range(20))
    for peer in peers:
        peer.sendall(requests)
    for peer in peers:
        for _, status, items in answers(peer, 20):
            assert status == 0
            assert op == ENCRYPT or items == [b"value"]
        peer.close()
    assert before == 0
    assert sidecar.status()["key_service"]["unwraps"] == 1


def test_a_thousand_first_uses_of_one_partition_make_one_key(sidecar: Sidecar) -> None:
    peers = [connect(sidecar.path) for _ in range(50)]
    requests = b"".join(frame(number, ENCRYPT, "users/new", None, [b"value"]) for number in range(20))
    for peer in peers:
        peer.sendall(requests)
    keys = {items[0][2:10] for peer in peers for _, status, items in answers(peer, 20) if status == 0}  # type: ignore[index]
    for peer in peers:
        peer.close()
    assert len(keys) == 1
    assert sidecar.status()["key_service"]["created"] == 1


def test_ten_thousand_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000
    if hard != resource.RLIM_INFINITY and hard < wanted + 200:
        wanted = hard - 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted + 200, hard), hard) if hard > 0 else (wanted + 200, hard))
    try:
        with Sidecar(workers=2) as sidecar:
            sidecar.create_keyring("contacts")
            peers = [connect(sidecar.path) for _ in range(wanted)]
            for peer in peers:
                peer.sendall(frame(1, ENCRYPT, "contacts", None, [b"value"]))
            assert all(answers(peer, 1)[0][1] == 0 for peer in peers)
            assert sidecar.status()["connections"]["open"] >= wanted
            for peer in peers:
                peer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_locked_keystore_costs_new_keys_only(sidecar: Sidecar) -> None:
    keystore = sqlite3.connect(sidecar.config.parent / "data" / "keystore.sqlite", isolation_level=None)
    with Client(sidecar.path, timeout=20, retries=0) as client:
        cached = client.encrypt("contacts", b"value")
        keystore.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises((KmsUnavailable, Overloaded)):
            client.encrypt("users/1", b"value")
        assert time.monotonic() - start < 15
        assert client.decrypt("contacts", cached) == b"value"
        assert client.decrypt("contacts", client.encrypt("contacts", b"more")) == b"more"
        keystore.execute("ROLLBACK")
        deadline = time.monotonic() + 15
        while True:
            try:
                envelope = client.encrypt("users/1", b"value")
                break
            except (KmsUnavailable, Overloaded):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert client.decrypt("users/1", envelope) == b"value"
    keystore.close()
