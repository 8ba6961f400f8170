"""Bad days of the blocking client: slow, half, wrong and missing answers."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import keyside
import pytest
from keyside import Client
from keyside.testing import faults, frames
from keyside.testing.frames import Code, Request
from keyside.testing.server import ThreadedTwin, Twin, running

SECRET = b"top secret value"


def one_frame(body: str) -> Callable[[Request], bytes]:
    return lambda request: frames.frame(bytes([0x93, request.id]) + bytes.fromhex(body))


def test_the_deadline_holds_when_nothing_comes(twin: Twin) -> None:
    twin.faults.append(faults.stall(0))
    with Client(twin.path, timeout=0.2, retries=5) as ks:
        start = time.monotonic()
        with pytest.raises(keyside.DeadlineExceeded):
            ks.encrypt("contacts", SECRET)
        assert 0.19 < time.monotonic() - start < 1.0
        assert ks.encrypt("contacts", SECRET)
    assert twin.connections == 2  # the one that owes an answer was not used again


def test_the_deadline_holds_on_a_proven_connection_too(twin: Twin) -> None:
    with Client(twin.path, timeout=0.2) as ks:
        ks.encrypt("contacts", SECRET)
        twin.faults.append(faults.stall(0))
        start = time.monotonic()
        with pytest.raises(keyside.DeadlineExceeded):
            ks.encrypt("contacts", SECRET)
        assert 0.19 < time.monotonic() - start < 1.0


@pytest.mark.parametrize("size", [1, 4, 9, 30])
def test_the_deadline_holds_in_the_middle_of_an_answer(twin: Twin, size: int) -> None:
    with Client(twin.path, timeout=0.2) as ks:
        ks.encrypt("contacts", SECRET)
        twin.faults.append(faults.stall(size))
        start = time.monotonic()
        with pytest.raises(keyside.DeadlineExceeded):
            ks.encrypt("contacts", SECRET)
        assert time.monotonic() - start < 1.0


def test_the_deadline_bounds_the_whole_call_not_each_byte(twin: Twin) -> None:
    twin.faults.append(faults.trickle(0.05))
    with Client(twin.path, timeout=0.3) as ks:
        start = time.monotonic()
        with pytest.raises(keyside.DeadlineExceeded):
            ks.encrypt("contacts", SECRET)
        assert time.monotonic() - start < 1.0


def test_the_deadline_bounds_retries(twin: Twin) -> None:
    twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 1000)
    with Client(twin.path, timeout=0.3, retries=1000) as ks:
        start = time.monotonic()
        # the last refusal, or the deadline itself where it falls into an attempt that is under way
        with pytest.raises((keyside.Overloaded, keyside.DeadlineExceeded)):
            ks.encrypt("contacts", SECRET)
        assert time.monotonic() - start < 1.0


def test_an_answer_byte_for_byte_is_an_answer(client: Client, twin: Twin) -> None:
    twin.faults.append(faults.trickle(0.0001))
    assert client.decrypt("contacts", client.encrypt("contacts", SECRET)) == SECRET
    twin.faults.append(faults.trickle(0.0001))
    assert client.decrypt("contacts", client.encrypt("contacts", SECRET)) == SECRET


@pytest.mark.parametrize("code", [22, 23, 24, 26])
def test_retryable_refusals_are_retried(client: Client, twin: Twin, code: int) -> None:
    for _ in range(2):  # on a new connection, then on a proven one
        twin.faults.extend([faults.refuse(Code(code))] * 2)
        assert client.encrypt("contacts", SECRET)
    twin.faults.append(faults.refuse(Code(code)))
    assert len(client.encrypt_many("contacts", [SECRET] * 1000)) == 1000
    assert twin.connections >= (3 if code == Code.SHUTTING_DOWN else 1)


@pytest.mark.parametrize("code", [16, 17, 18, 19, 20, 21, 25])
def test_other_refusals_are_not_retried_and_have_their_own_type(client: Client, twin: Twin, code: int) -> None:
    for _ in range(2):
        twin.faults.append(faults.refuse(Code(code), "what to do next"))
        before = len(twin.requests)
        with pytest.raises(keyside.SidecarError, match="what to do next") as caught:
            client.encrypt("contacts", SECRET)
        assert caught.value.code == code
        assert not caught.value.retryable
        assert len(twin.requests) == before + 1
        client.encrypt("contacts", SECRET)


def test_retries_are_counted(twin: Twin) -> None:
    twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 10)
    with Client(twin.path, retries=2) as ks, pytest.raises(keyside.Overloaded):
        ks.encrypt("contacts", SECRET)
    assert len(twin.requests) == 3


def test_only_failed_items_are_sent_again(client: Client, twin: Twin) -> None:
    twin.faults.append(faults.fail_items({1: Code.KMS_UNAVAILABLE, 2: Code.OVERLOADED, 3: Code.KEY_DISABLED}))
    results = client.encrypt_many("contacts", [b"a", b"b", b"c", b"d"], [b"1", b"2", b"3", b"4"], on_error="return")
    assert [len(r.items) for r in twin.requests] == [4, 2]
    assert isinstance(results[3], keyside.KeyDisabled)
    assert client.decrypt("contacts", results[1] if isinstance(results[1], bytes) else b"", b"2") == b"b"
    assert client.decrypt("contacts", results[2] if isinstance(results[2], bytes) else b"", b"3") == b"c"


def test_items_that_go_on_failing_keep_their_error(twin: Twin) -> None:
    twin.faults.extend([faults.fail_items({1: Code.KMS_UNAVAILABLE}), faults.fail_items({0: Code.KMS_UNAVAILABLE})])
    with Client(twin.path, retries=1) as ks:
        results = ks.encrypt_many("contacts", [b"a", b"b"], on_error="return")
    assert isinstance(results[0], bytes)
    assert isinstance(results[1], keyside.KmsUnavailable)
    assert results[1].index == 1


def test_a_code_from_the_future_is_an_error_not_a_value(client: Client, twin: Twin) -> None:
    twin.faults.append(faults.answer_with(lambda r: frames.build_response(r.id, 99, "new")))
    with pytest.raises(keyside.InternalError, match="99"):
        client.encrypt("contacts", SECRET)


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        *("00 90", "00 92 c0 c0", "00 91 c0", "00 91 14", "00 91 c3", "00 91 a161", "00 91 91 c0"),
        *("00 91 cb0000000000000000", "02 91 c40161", "00 a161", "11 90", "00", "00 91 c40161 c0"),
        *("01 91 e0", "00 91 80", "00 91 d40161", "c1"),
    ],
)
def test_answers_that_make_no_sense(client: Client, twin: Twin, body: str, proven: bool) -> None:
    if proven:
        client.encrypt("contacts", SECRET)
    before = twin.connections
    twin.faults.append(faults.answer_with(one_frame(body)))
    with pytest.raises(keyside.ProtocolError) as caught:
        client.encrypt("contacts", SECRET)
    assert "secret" not in str(caught.value)
    assert client.encrypt("contacts", SECRET)
    assert twin.connections == max(before, 1) + 1  # never used again


@pytest.mark.parametrize(
    "make",
    [
        lambda r: frames.build_response(r.id % 127 + 1, 0, [b"x"]),
        lambda r: frames.build_response(0, 0, [b"x"]),
        lambda r: frames.build_response(2**32 - 1, 0, [b"x"]),
        lambda r: b"\x00\x00\x00\x00",
        lambda r: b"\xff\xff\xff\xff",
        lambda r: b"\x00\x80\x00\x00",
        lambda r: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda r: frames.build_response(r.id, 0, [b"x"]) * 2,
    ],
    ids=["other id", "id 0", "great id", "no body", "oversize", "8 MiB", "HTTP", "two answers"],
)
@pytest.mark.parametrize("count", [1, 1000])
def test_frames_that_make_no_sense(client: Client, twin: Twin, make: Callable[[Request], bytes], count: int) -> None:
    client.encrypt("contacts", SECRET)
    twin.faults.append(faults.answer_with(make))
    with pytest.raises(keyside.ProtocolError):
        client.encrypt_many("contacts", [SECRET] * count) if count > 1 else client.encrypt("contacts", SECRET)
    assert len(client.encrypt_many("contacts", [SECRET] * 1000)) == 1000


def test_answers_in_another_encoding_are_answers(client: Client, twin: Twin) -> None:
    client.encrypt("contacts", SECRET)
    for body in ("cf0000000000000000 dd00000001 c6000000027879", "00 91 c500027879", "cc00 dc0001 c4027879"):
        twin.faults.append(faults.answer_with(one_frame(body)))
        assert client.encrypt("contacts", SECRET) == b"xy"


def test_a_dropped_connection_is_replaced_before_a_byte_of_an_answer(client: Client, twin: Twin) -> None:
    client.encrypt("contacts", SECRET)
    twin.faults.append(faults.drop())
    assert client.encrypt("contacts", SECRET)
    assert twin.connections == 2


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_half_an_answer_is_an_error(client: Client, twin: Twin, size: int) -> None:
    client.encrypt("contacts", SECRET)
    before = len(twin.requests)
    twin.faults.append(faults.cut(size))
    with pytest.raises(keyside.ConnectionLost):
        client.encrypt("contacts", SECRET)
    assert len(twin.requests) == before + 1
    assert client.encrypt("contacts", SECRET)


def test_half_answers_to_parts_of_a_batch(client: Client, twin: Twin) -> None:
    twin.faults.extend([faults.none, faults.cut(1000)])
    with pytest.raises(keyside.ConnectionLost):
        client.encrypt_many("contacts", [SECRET] * 1000)
    assert len(client.encrypt_many("contacts", [SECRET] * 1000)) == 1000


def test_dropped_parts_of_a_batch_are_asked_again(client: Client, twin: Twin) -> None:
    values = [b"%d" % i for i in range(2000)]
    envelopes = client.encrypt_many("contacts", values)
    twin.faults.extend([faults.drop(), faults.none, faults.drop(), faults.refuse(Code.OVERLOADED)])
    assert client.decrypt_many("contacts", envelopes) == values


def test_parts_are_answered_in_any_order(client: Client, twin: Twin) -> None:
    values = [b"%d" % i for i in range(1000)]
    envelopes = client.encrypt_many("contacts", values)
    twin.faults.extend(faults.reorder(4))
    assert client.decrypt_many("contacts", envelopes) == values


def test_a_restart_is_not_noticed(threaded: ThreadedTwin, client: Client) -> None:
    envelope = client.encrypt("contacts", SECRET)
    client.encrypt_many("contacts", [SECRET] * 2000)  # several connections that will be dead
    path = threaded.twin.path
    threaded.hang_up()
    Path(path).unlink()
    with running(path) as second:
        for _ in range(10):
            assert client.decrypt("contacts", envelope) == SECRET
        assert len(client.encrypt_many("contacts", [SECRET] * 2000)) == 2000
        assert second.requests


def test_a_short_absence_is_waited_out(tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    results: list[bytes] = []
    with Client(path, timeout=5, retries=50) as ks:
        thread = threading.Thread(target=lambda: results.append(ks.encrypt("contacts", SECRET)))
        thread.start()
        time.sleep(0.1)
        with running(path):
            thread.join(5)
    assert len(results) == 1


def test_nobody_there_says_where_and_what_to_look_at(tmp_path: Path) -> None:
    with (
        Client(tmp_path / "none.sock", retries=1) as ks,
        pytest.raises(keyside.SidecarUnreachable, match=r"none\.sock.*KEYSIDE_SOCKET") as caught,
    ):
        ks.encrypt("contacts", SECRET)
    assert isinstance(caught.value, ConnectionError)


def test_a_frame_longer_than_the_sidecar_takes_is_cut(tmp_path: Path) -> None:
    with running(tmp_path / "small.sock", max_frame=100_000) as twin, Client(twin.path) as ks:
        values = [bytes([i]) * 30_000 for i in range(20)]
        assert ks.decrypt_many("contacts", ks.encrypt_many("contacts", values)) == values
        mixed = [b"x"] * 100 + [bytes(60_000)] * 3 + [b"y"] * 100
        assert ks.decrypt_many("contacts", ks.encrypt_many("contacts", mixed)) == mixed
        with pytest.raises(keyside.BadRequest, match="max_frame"):
            ks.encrypt("contacts", bytes(100_000))
        with pytest.raises(keyside.BadRequest, match="max_frame"):
            ks.encrypt_many("contacts", [b"x", bytes(100_000)])
        assert not twin.refusals
        assert sum(r.op == 0 for r in twin.requests) == 1  # asked once


@pytest.mark.parametrize("wrong", [7, True, 1.5, [b"x"], {b"x": b"y"}, object()])
@pytest.mark.parametrize("count", [0, 3, 900])
def test_items_of_other_types_are_named(client: Client, wrong: object, count: int) -> None:
    with pytest.raises(TypeError, match=f"item {count}: .*{type(wrong).__name__}"):
        client.encrypt_many("contacts", [b"x"] * count + [wrong])  # type: ignore[list-item]  # that is the point
    assert client.encrypt("contacts", b"x")


def test_wrong_arguments(client: Client) -> None:
    with pytest.raises(TypeError, match="sequence of values"):
        client.encrypt_many("contacts", b"abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NoneType"):
        client.encrypt("contacts", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="keyring"):
        client.encrypt(b"contacts", b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        client.encrypt("contacts", b"x", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 contexts for 3 items"):
        client.encrypt_many("contacts", [b"x"] * 3, [b"a", b"b"])
    with pytest.raises(TypeError, match="context 1"):
        client.encrypt_many("contacts", [b"x"] * 2, [b"a", 3])  # type: ignore[list-item]
    for bad in ({"timeout": 0}, {"timeout": float("nan")}, {"pool_size": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Client("x", **bad)


def test_a_closed_client(twin: Twin) -> None:
    client = Client(twin.path)
    client.encrypt("contacts", SECRET)
    client.close()
    client.close()
    with pytest.raises(keyside.ClientClosed):
        client.encrypt("contacts", SECRET)
    with pytest.raises(keyside.ClientClosed):
        client.encrypt_many("contacts", [SECRET])


def test_nothing_secret_in_representations(client: Client, twin: Twin) -> None:
    client.encrypt("contacts", SECRET, b"private context")
    twin.faults.append(faults.refuse(Code.DENIED, ""))
    with pytest.raises(keyside.Denied) as caught:
        client.encrypt("contacts", SECRET, b"private context")
    shown = f"{client!r} {caught.value!r} {caught.value}"
    assert "top secret" not in shown
    assert "private context" not in shown
