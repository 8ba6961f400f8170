"""HTTP on the data socket under peers that hold back: what they make the sidecar keep is bounded."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from proxy.frames import MOST_ITEMS, Op
from proxy.http_json import Refused, parse_request
from tests.proxy.service.sidecar import Sidecar, folder, initialize, running

MIB = 1 << 20


@pytest.fixture(scope="module")
def narrow() -> Iterator[Sidecar]:
    with folder() as home, running(initialize(home, limits="{max_frame: 1MiB, buffer_bytes: 8MiB}")) as started:
        started.run("keyring", "create", "contacts")
        yield started


def begun(sidecar: Sidecar, body: bytes, length: int) -> socket.socket:
    """A connection over which a request of `length` bytes was begun with `body`."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(5)
    peer.connect(str(sidecar.data))
    peer.sendall(b"POST /v1/encrypt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
    with suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before all of it was sent
        peer.sendall(body)
    return peer


def refused(peer: socket.socket, seconds: float) -> bool:
    """Whether OVERLOADED was answered."""
    peer.settimeout(seconds)
    try:
        answer = peer.recv(4096)
    except TimeoutError:
        return False
    return answer.startswith(b"HTTP/1.1 503 ") and b"OVERLOADED" in answer


def a_request_is_served(sidecar: Sidecar) -> bool:
    return sidecar.post("/v1/encrypt", {"keyring": "contacts", "items": ["YQ=="]})[0] == 200


def test_half_bodies_of_all_connections_together_are_bounded(narrow: Sidecar) -> None:
    half = b"[" * (3 * MIB // 2)
    peers = [begun(narrow, half, len(half) + 1) for _ in range(12)]
    try:
        assert 5 <= sum(refused(peer, 0.2) for peer in peers) <= 8
    finally:
        for peer in peers:
            peer.close()
    assert a_request_is_served(narrow)


def test_answers_that_nobody_reads_are_bounded(narrow: Sidecar) -> None:
    value = base64.b64encode(bytes(MIB - 100)).decode()
    body = json.dumps({"keyring": "contacts", "items": [value]}).encode()
    peers = []
    try:
        answered = []
        for _ in range(12):
            peers.append(begun(narrow, body, len(body)))
            # the answer has begun, and its rest stays where it is
            peers[-1].settimeout(5)
            answered.append(peers[-1].recv(12))
        assert answered[0] == b"HTTP/1.1 200"
        assert answered[-1] == b"HTTP/1.1 503"
    finally:
        for peer in peers:
            peer.close()
    assert a_request_is_served(narrow)


@pytest.mark.parametrize(
    "body",
    [
        {"keyring": "contacts", "items": [None] * 131_073},
        {"keyring": "contacts", "items": [None], "context": [None] * 2},
    ],
)
def test_arrays_of_wrong_lengths_are_refused(narrow: Sidecar, body: dict[str, object]) -> None:
    status, answer = narrow.post("/v1/encrypt", body)
    assert (status, answer["error"]["name"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("element", [b"[],", b"{},", b"0,", b'"",'])
def test_a_body_of_too_many_elements_is_refused_unparsed(monkeypatch: pytest.MonkeyPatch, element: bytes) -> None:
    def parsed(body: bytes) -> object:
        raise AssertionError("millions of objects were made of a body that can be no request")

    monkeypatch.setattr("json.loads", parsed)
    with pytest.raises(Refused, match="split the request"):
        parse_request(Op.ENCRYPT, b'{"keyring":"k","items":[' + element * 300_000 + b"null]}")


def test_names_may_have_commas_and_brackets_and_items_and_contexts_their_most() -> None:
    name = "k/" + "[,{" * 42
    body = {"keyring": name, "items": ["YQ=="] * MOST_ITEMS, "context": [None] * MOST_ITEMS}
    asked = parse_request(Op.ENCRYPT, json.dumps(body).encode())
    assert (asked.keyring, len(asked.items)) == (name, MOST_ITEMS)
