"""Several requests in one round trip, over both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import keyside
import pytest
from keyside import AsyncClient, Client
from keyside.batches import Job
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import ThreadedTwin, Twin
from keyside.wire import BLIND_INDEX, DECRYPT, ENCRYPT

Run = Callable[[list[Job]], list[Any]]


@pytest.fixture(params=["blocking", "asyncio"])
def run(request: pytest.FixtureRequest, twin: Twin) -> Run:
    """`pipeline` of one of the clients, a new one a call."""

    def blocking(jobs: list[Job]) -> list[Any]:
        with Client(twin.path, timeout=3, retries=1) as client:
            return client.pipeline(jobs)

    async def asynchronous(jobs: list[Job]) -> list[Any]:
        async with AsyncClient(twin.path, timeout=3, retries=1) as client:
            return await client.pipeline(jobs)

    return blocking if request.param == "blocking" else lambda jobs: asyncio.run(asynchronous(jobs))


def sealing(count: int) -> list[Job]:
    return [Job(ENCRYPT, f"users/{n}", b"c", [b"value %d" % n, None]) for n in range(count)]


def opening(jobs: list[Job], results: list[Any]) -> list[Job]:
    return [Job(DECRYPT, job.keyring, b"c", result) for job, result in zip(jobs, results, strict=True)]


@pytest.mark.parametrize("count", [0, 1, 2, 1100, 2300])
def test_every_request_gets_its_own_answer(run: Run, count: int) -> None:
    jobs = sealing(count)
    assert run(opening(jobs, run(jobs))) == [[b"value %d" % n, None] for n in range(count)]


def test_long_and_short_requests_mix(run: Run) -> None:
    jobs = [
        Job(ENCRYPT, "contacts", None, [b"%d" % n for n in range(900)]),
        Job(BLIND_INDEX, "users", b"c", [b"x"]),
        Job(ENCRYPT, "users/1", [b"a", b"b"], [bytes(40_000), b""]),
        Job(ENCRYPT, "contacts", [b"%d" % n for n in range(600)], [b"%d" % n for n in range(600)]),
        Job(ENCRYPT, "users/2", None, [b"y"]),
    ]
    first, index, large, second, small = run(jobs)
    assert len(index[0]) == 16
    again = [
        job._replace(op=DECRYPT, items=items)
        for job, items in zip(jobs, [first, [], large, second, small], strict=True)
    ]
    del again[1]
    assert run(again) == [job.items for job in jobs if job.op == ENCRYPT]


def test_what_fails_is_an_outcome_of_its_own(run: Run) -> None:
    jobs = [*sealing(2), Job(ENCRYPT, "nobody", None, [b"x"]), Job(DECRYPT, "users/1", b"c", [b"rotten", None])]
    results = run(jobs)
    assert len(results[0]) == len(results[1]) == 2
    assert isinstance(results[2], keyside.UnknownKeyring)
    assert isinstance(results[3][0], keyside.InvalidCiphertext)
    assert results[3][1] is None


def test_what_is_worth_another_attempt_gets_one(run: Run, twin: Twin) -> None:
    twin.faults.extend([faults.refuse(Code.OVERLOADED), faults.none, faults.fail_items({0: Code.KMS_UNAVAILABLE})])
    jobs = sealing(4)
    assert run(opening(jobs, run(jobs))) == [job.items for job in jobs]


@pytest.mark.parametrize("fault", [faults.drop(), faults.cut(7)])
def test_a_connection_that_breaks_costs_no_result(run: Run, twin: Twin, fault: faults.Fault) -> None:
    twin.faults.extend([faults.none, fault])
    jobs = sealing(30)
    assert run(opening(jobs, run(jobs))) == [job.items for job in jobs]


def test_an_answer_that_belongs_to_nobody(run: Run, twin: Twin) -> None:
    twin.faults.append(faults.answer_with(lambda request: b"\0\0\0\x04\x93\x63\0\x90"))
    jobs = sealing(3)
    results = run(jobs)
    assert any(isinstance(result, keyside.ProtocolError) for result in results) or run(opening(jobs, results))


def test_nobody_there_is_said_once_and_quickly(threaded: ThreadedTwin) -> None:
    with Client("/nonexistent/keyside.sock", timeout=3, retries=2) as client:
        results = client.pipeline(sealing(200))
    assert {type(result) for result in results} == {keyside.SidecarUnreachable}


def test_time_is_up_for_all_of_them(twin: Twin) -> None:
    twin.faults.append(faults.stall(0))
    with Client(twin.path, timeout=0.2, retries=0) as client:
        results = client.pipeline(sealing(3))
    assert isinstance(results[0], keyside.DeadlineExceeded)


def test_a_wrong_type_is_named(run: Run) -> None:
    with pytest.raises(TypeError, match="item 0: expected bytes, str or None, not object"):
        run([*sealing(1), Job(ENCRYPT, "contacts", None, [object()])])  # type: ignore[list-item]  # what is tested
