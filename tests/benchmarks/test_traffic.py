"""Requests are valid frames, and answers that decrypt to something else are found."""

from pathlib import Path

import pytest
from keyside.testing import frames

from benchmarks.loadgen import closed_loop
from benchmarks.traffic import (
    CONTEXT,
    WrongAnswerError,
    ask,
    ask_items,
    check_encrypted,
    decrypting,
    encrypting,
    fields,
    frame,
    require_clean,
)
from tests.benchmarks.scripted import ScriptedServer, decrypt, encrypt, reply


def honest(request: list) -> bytes:
    return encrypt(request) if request[1] == 1 else decrypt(request)


def test_a_frame_is_what_the_spec_says() -> None:
    made = frame(1, "users/42", [b"a", b""])
    request = frames.parse_request(made[4:])
    assert isinstance(request, frames.Request)
    assert int.from_bytes(made[:4], "big") == len(made) - 4
    assert (request.op, request.keyring, request.context, request.items) == (1, "users/42", CONTEXT, [b"a", b""])


def test_values_are_the_same_every_time_and_all_different() -> None:
    assert fields(100, 64) == fields(100, 64)
    assert len(set(fields(100, 64))) == 100


def test_answers_are_decrypted_and_compared(tmp_path: Path) -> None:
    with ScriptedServer(tmp_path / "s", honest) as server:
        run = closed_loop(server.path, encrypting(["a", "b"], 3, 64), depth=2, rounds=8)
        assert check_encrypted(server.path, ["a", "b"], 3, 64, run) == 3 * len(run.samples) == 15


def test_an_envelope_of_another_value_is_found(tmp_path: Path) -> None:
    def liar(request: list) -> bytes:
        return honest([*request[:4], [bytes(64)]]) if request[1] == 1 else honest(request)

    with ScriptedServer(tmp_path / "s", liar) as server:
        run = closed_loop(server.path, encrypting(["a"], 1, 64), rounds=1)
        assert run.failed == 0
        with pytest.raises(WrongAnswerError, match="another value"):
            check_encrypted(server.path, ["a"], 1, 64, run)


def test_decrypting_asks_for_its_envelopes(tmp_path: Path) -> None:
    with ScriptedServer(tmp_path / "s", honest) as server:
        exchanges = decrypting(server.path, ["a", "b"], 5, 64)
        run = closed_loop(server.path, exchanges, depth=2, rounds=3)
    assert (run.items, run.errors) == (30, {})


def test_a_failed_request_is_not_taken_for_items(tmp_path: Path) -> None:
    with ScriptedServer(tmp_path / "s", lambda r: reply(r[0], 18, "no such keyring")) as server:
        assert ask(server.path, frame(1, "a", [b""])) == (18, "no such keyring")
        with pytest.raises(WrongAnswerError, match="18"):
            ask_items(server.path, frame(1, "a", [b""]))
        with pytest.raises(WrongAnswerError, match="'18': 1"):
            require_clean(closed_loop(server.path, encrypting(["a"], 1, 64), rounds=1), "run")
