"""The fuzz targets: each takes inputs for some seconds and raises at the first wrong answer.

Run one by hand: python -m tests.fuzz.targets frames 60 SEED STATE. The file STATE always holds the input at hand.
"""

from __future__ import annotations

import json
import mmap
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyside.testing import envelope, frames

from fastpath import frame
from tests.fastpath.harness import BAD_REQUEST, DECRYPT, FIELD, INDEX, REENCRYPT, Peer, Serving, serving
from tests.fuzz.mutation import Mutator
from tests.vectors.generate import FOLDER
from tests.vectors.wire_vectors import unfold

STATE_BYTES = 1 << 20
MAX_FRAME = 1 << 16
LONGEST = 1 << 15  # of a corpus entry: larger ones only make fuzzing slow

KEYS = {
    "contacts": [(0xA1, FIELD, b"\x01" * 32), (0xA3, INDEX, b"\x03" * 32), (0xA2, FIELD, b"\x02" * 32)],
    "users/42": [(0xB1, FIELD, b"\x0b" * 32)],
}
CIPHERS = {key_id: (scope, key) for scope, ring in KEYS.items() for key_id, purpose, key in ring if purpose == FIELD}


class State:
    """The input at hand in a file that outlives a crash."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(STATE_BYTES))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), STATE_BYTES)

    def keep(self, data: bytes) -> None:
        self.map[:4] = len(data).to_bytes(4, "big")
        self.map[4 : 4 + len(data)] = data

    @staticmethod
    def read(path: Path) -> bytes:
        data = path.read_bytes()
        return data[4 : 4 + int.from_bytes(data[:4], "big")]


def requests() -> list[bytes]:
    """Whole frames: those of wire.json, and requests that the keys above can answer."""
    corpus = [unfold(case["frame"]) for case in json.loads((FOLDER / "wire.json").read_text())["requests"]]
    corpus = [entry for entry in corpus if len(entry) <= LONGEST]
    for op in range(5):
        for scope in ("contacts", "users/42", "users", "nowhere"):
            items: list[Any] = [*sealed(scope), None, b"", "text", b"x" * 300]
            corpus.append(frames.build_request(op + 1000, op, scope, b"c", items))
            corpus.append(frames.build_request(op, op, scope, [b"c", None, "c"] + [b"c"] * (len(items) - 3), items))
    return corpus


def sealed(scope: str) -> list[bytes]:
    """Envelopes under each field key, whatever the scope: some are another's."""
    return [
        envelope.seal(key, key_id, bytes(range(12)), b"c", b"value " * key_id) for key_id, (_, key) in CIPHERS.items()
    ]


# Target: the parser against the twin


def parser(mutator: Mutator, _: Serving, keep: Callable[[bytes], None]) -> None:
    body = mutator.next()[4:]
    keep(body)
    outcome = frame.parse(body)
    expected = frames.parse_request(body)
    if isinstance(expected, frames.Refusal):
        assert outcome == (2 if expected.closes else 1, expected.id)
    else:
        context = expected.context
        assert outcome == (expected.id, expected.op, expected.keyring.encode(), context, expected.items)


# Target: a stream of frames through a socket, every answer foretold by the twin


def stream(mutator: Mutator, running: Serving, keep: Callable[[bytes], None]) -> None:
    sent = b"".join(mutator.next(3) for _ in range(mutator.chance.randrange(1, 6)))[:LONGEST]
    keep(sent)
    ours, theirs = socket.socketpair()
    running.plane.adopt(theirs.detach(), 0, 0, 0)
    with Peer.over(ours) as peer:
        try:
            for piece in mutator.pieces(sent):
                peer.raw(piece)
            peer.socket.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            # closed at a broken frame before the rest was sent; its answers can still be read
            pass
        answers = read_all(peer)
    assert Counter(shape(answer) for answer in answers) == Counter(foretold(sent))


def read_all(peer: Peer) -> list[list[Any]]:
    answers = []
    try:
        while True:
            answers.append(peer.receive())
    except (EOFError, ConnectionResetError):
        return answers


def shape(answer: list[Any]) -> tuple[int, bool, int]:
    """What can be foretold of an answer: id, BAD_REQUEST or not, and items when there are some."""
    request_id, status, content = answer
    return request_id, status == BAD_REQUEST, len(content) if status < BAD_REQUEST else -1


def foretold(sent: bytes) -> list[tuple[int, bool, int]]:
    expected: list[tuple[int, bool, int]] = []
    at = 0
    while len(sent) - at >= 4:
        n = int.from_bytes(sent[at : at + 4], "big")
        if not 1 <= n <= MAX_FRAME:
            return [*expected, (0, True, -1)]
        body = sent[at + 4 : at + 4 + n]
        if len(body) < n:
            break
        request = frames.parse_request(body)
        expected.append(judged(request))
        if isinstance(request, frames.Refusal) and request.closes:
            break
        at += 4 + n
    return expected


def judged(request: frames.Request | frames.Refusal) -> tuple[int, bool, int]:
    if isinstance(request, frames.Refusal):
        return request.id, True, -1
    if request.op == frames.Op.HELLO:
        return request.id, False, 4
    return request.id, False, len(request.items) if served(request) else -1


def served(request: frames.Request) -> bool:
    """Whether the request as a whole succeeds: a wrong item never makes it fail."""
    ring = KEYS.get(request.keyring, [])
    purposes = {purpose for _, purpose, _ in ring}
    if request.op == frames.Op.DECRYPT:
        return True
    return (INDEX if request.op == frames.Op.BLIND_INDEX else FIELD) in purposes


# Target: envelopes, every item's outcome foretold with `cryptography`


def envelopes(mutator: Mutator, running: Serving, keep: Callable[[bytes], None]) -> None:
    batch = [mutator.next(3) for _ in range(mutator.chance.randrange(1, 20))]
    scope = mutator.chance.choice(list(KEYS))
    context = mutator.chance.choice((b"c", b"c", b"c", None, b"other"))
    op = mutator.chance.choice((DECRYPT, REENCRYPT))
    sent = frames.build_request(1, op, scope, context, list(batch))
    keep(sent)
    peer: Peer = running.peer  # type: ignore[attr-defined]  # put there by run()
    peer.raw(sent)
    _, status, answers = peer.receive()
    expected = [outcome(scope, item, context) for item in batch]
    assert status == any(isinstance(e, int) for e in expected)
    for item, answer, right in zip(batch, answers, expected, strict=True):
        if op == REENCRYPT and isinstance(right, bytes):
            key_id, _, key = KEYS[scope][-1]
            assert envelope.key_id_of(answer) == key_id
            assert envelope.open_envelope(key, answer, context) == right
            assert (answer == item) == (envelope.key_id_of(item) == key_id)
        else:
            assert answer == right


def outcome(scope: str, item: bytes, context: bytes | None) -> bytes | int:
    try:
        key_id = envelope.key_id_of(item)
        if key_id not in {k for ring in KEYS.values() for k, _, _ in ring}:
            return frames.Code.UNKNOWN_KEY
        if CIPHERS.get(key_id, ("",))[0] != scope:
            raise envelope.CiphertextError
        return envelope.open_envelope(CIPHERS[key_id][1], item, context)
    except envelope.CiphertextError:
        return frames.Code.INVALID_CIPHERTEXT


def envelope_corpus() -> list[bytes]:
    vectors = json.loads((FOLDER / "envelope.json").read_text())["open"]
    return sealed("") * 10 + [bytes.fromhex(case["envelope"]) for case in vectors]


TARGETS = {"parser": (parser, requests), "frames": (stream, requests), "envelopes": (envelopes, envelope_corpus)}


def run(name: str, seconds: float, seed: int, state: Path) -> int:
    """Feed a target; how many inputs it took."""
    target, corpus = TARGETS[name]
    mutator = Mutator(corpus(), seed)
    keep = State(state).keep
    count = 0
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), KEYS, max_frame=MAX_FRAME) as running:
        running.holder.negative_ttl = 60_000
        with running.connect() as peer:
            running.peer = peer  # type: ignore[attr-defined]  # for the targets that need one connection only
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                target(mutator, running, keep)
                count += 1
                if count % 50 == 0:
                    disturb(running, mutator)
            assert peer.alive()
        running.await_gauge("connections", 0)
        running.await_gauge("buffer_bytes", 0)
        running.await_gauge("parked_now", 0)
    return count


def disturb(running: Serving, mutator: Mutator) -> None:
    """Make the next inputs meet misses and parking."""
    for ring in KEYS.values():
        for key_id, _, _ in ring:
            if mutator.chance.random() < 0.5:
                running.plane.evict(key_id)
    running.holder.seen.clear()


if __name__ == "__main__":
    taken = run(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    sys.stdout.write(f"{sys.argv[1]}: {taken} inputs\n")
