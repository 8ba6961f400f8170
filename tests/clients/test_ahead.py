"""Requests that leave together and whose answers are read later."""

from __future__ import annotations

import threading
import time
from typing import Any

import keyside
import pytest
from keyside import Client
from keyside.ahead import LONGEST
from keyside.batches import Job
from keyside.testing import faults
from keyside.testing.server import ThreadedTwin, Twin
from keyside.wire import DECRYPT, ENCRYPT

from tests.clients.test_sharing import in_child


def sealed(client: Client, count: int, size: int = 20) -> list[Any]:
    return [*client.encrypt_many("contacts", [b"%*d" % (size, n) for n in range(count)], context=b"c")]


def jobs(envelopes: list[Any], columns: int = 3) -> list[Job]:
    return [Job(DECRYPT, "contacts", b"c", envelopes) for _ in range(columns)]


def values(count: int, size: int = 20, columns: int = 3) -> list[list[bytes]]:
    return [[b"%*d" % (size, n) for n in range(count)] for _ in range(columns)]


@pytest.mark.parametrize(("first", "rest", "size"), [(10, 700, 20), (128, 1800, 60), (1, 1, 1), (3, 40, 9000)])
def test_each_group_gets_its_own_answers(client: Client, twin: Twin, first: int, rest: int, size: int) -> None:
    groups = [jobs(sealed(client, first, size)), jobs(sealed(client, rest, size))]
    begun, later = client.pipeline_ahead(groups)
    assert begun.results() == values(first, size)
    assert later.results() == values(rest, size)
    assert later.results() == values(rest, size), "as often as one likes"


def test_nothing_asks_nobody(client: Client, twin: Twin) -> None:
    assert [one.results() for one in client.pipeline_ahead([[], []])] == [[], []]


def test_the_first_are_not_kept_waiting_by_the_rest(client: Client, twin: Twin) -> None:
    envelopes = sealed(client, 600)
    client.pipeline_ahead([[]])  # the limits are asked for once
    twin.faults.extend([faults.none, faults.delay(0.5)])
    began = time.monotonic()
    begun, later = client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])
    assert begun.results() == values(5, columns=1)
    assert time.monotonic() - began < 0.4
    assert later.results() == values(600, columns=1)
    assert time.monotonic() - began >= 0.45


@pytest.mark.parametrize("pool_size", [1, 2, 5])
def test_whoever_needs_a_connection_reads_what_nobody_has_asked_for_yet(twin: Twin, pool_size: int) -> None:
    with Client(twin.path, pool_size=pool_size, timeout=2, retries=0) as client:
        envelopes = sealed(client, 600)
        aheads = [one for _ in range(3) for one in client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])]
        began = time.monotonic()
        assert client.decrypt_many("contacts", envelopes, context=b"c") == values(600)[0]
        thread = threading.Thread(target=lambda: client.encrypt("contacts", b"x"))
        thread.start()
        thread.join()
        assert time.monotonic() - began < 1.5
        assert [len(one.results()[0]) for one in aheads] == [5, 600] * 3  # type: ignore[arg-type]  # no errors
        assert len(client._calls.pool.idle) == pool_size
        assert not client._calls.pool.held


def test_what_is_dropped_is_nobodys_answer(client: Client, twin: Twin) -> None:
    envelopes = sealed(client, 600)
    for _ in range(5):
        begun, later = client.pipeline_ahead([jobs(envelopes[:5]), jobs(envelopes)])
        begun.results()
        later.drop()
        begun.drop()
    assert client.decrypt_many("contacts", envelopes, context=b"c") == values(600)[0]
    assert later.results() == values(600), "asked again"
    assert not client._calls.pool.held


@pytest.mark.parametrize("fault", [faults.drop(), faults.cut(7), faults.cut(3000)])
def test_a_connection_that_breaks_costs_no_result(client: Client, twin: Twin, fault: faults.Fault) -> None:
    envelopes = sealed(client, 600)
    client.pipeline_ahead([[]])
    twin.faults.extend([faults.none, fault])
    begun, later = client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])
    assert begun.results() == values(5, columns=1)
    assert later.results() == values(600, columns=1)


def test_what_fails_is_told_in_its_place(client: Client, twin: Twin) -> None:
    good = sealed(client, 3)
    ((other, mixed),) = [one.results() for one in client.pipeline_ahead([
        [Job(DECRYPT, "nobody", b"c", good), Job(DECRYPT, "contacts", b"c", [good[0], b"rotten", None])]
    ])]  # fmt: skip
    assert isinstance(other, keyside.KeysideError) or all(isinstance(one, keyside.SidecarError) for one in other)
    assert isinstance(mixed, list)
    assert isinstance(mixed[1], keyside.InvalidCiphertext)
    assert (mixed[0], mixed[2]) == (values(1)[0][0], None)


def test_nobody_there_is_said_once_and_quickly(threaded: ThreadedTwin) -> None:
    with Client("/nonexistent/keyside.sock", timeout=3, retries=2) as client:
        waiting = client.pipeline_ahead([[Job(ENCRYPT, "contacts", None, [b"x"])] * 40] * 2)
        assert {type(result) for one in waiting for result in one.results()} == {keyside.SidecarUnreachable}


def test_a_sidecar_that_falls_silent_is_waited_for_once(twin: Twin) -> None:
    with Client(twin.path, timeout=0.3, retries=0) as client:
        envelopes = sealed(client, 600)
        client.pipeline_ahead([[]])
        twin.faults.extend([faults.stall(0)] * 9)
        begun, later = client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])
        began = time.monotonic()
        assert isinstance(begun.results()[0], keyside.DeadlineExceeded)
        assert time.monotonic() - began < 0.6
        later.drop()
        assert not client._calls.pool.held


def test_a_wrong_type_leaves_nothing_behind(client: Client, twin: Twin) -> None:
    envelopes = sealed(client, 5)
    with pytest.raises(TypeError):
        client.pipeline_ahead([jobs(envelopes), [Job(DECRYPT, "contacts", None, [object()])]])  # type: ignore[list-item]
    assert not client._calls.pool.held
    assert client.decrypt_many("contacts", envelopes, context=b"c") == values(5)[0]


def test_what_is_longer_than_a_frame_may_be_is_cut(client: Client, twin: Twin) -> None:
    envelopes = sealed(client, 3, LONGEST // 2)
    begun, later = client.pipeline_ahead([jobs(envelopes[:1], 1), jobs(envelopes, 1)])
    assert begun.results() == values(1, LONGEST // 2, 1)
    assert later.results() == values(3, LONGEST // 2, 1)


def test_a_closed_client_ends_what_is_under_way(twin: Twin) -> None:
    client = Client(twin.path, timeout=3)
    envelopes = sealed(client, 600)
    begun, later = client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])
    client.close()
    assert begun.results() == values(5, columns=1)
    assert later.results() == values(600, columns=1)
    ((refused,),) = [one.results() for one in client.pipeline_ahead([jobs(envelopes, 1)])]
    assert isinstance(refused, keyside.ClientClosed)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child takes no thread's lock
def test_a_child_reads_nothing_of_its_parents(client: Client, twin: Twin) -> None:
    envelopes = sealed(client, 600)
    begun, later = client.pipeline_ahead([jobs(envelopes[:5], 1), jobs(envelopes, 1)])
    assert in_child(lambda: [begun.results(), later.results()] == [values(5, columns=1), values(600, columns=1)]) == 0
    assert begun.results() == values(5, columns=1)
    assert later.results() == values(600, columns=1)
