"""One client shared by threads and inherited by child processes."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keyside
import pytest
from keyside import Client
from keyside.testing import faults
from keyside.testing.server import ThreadedTwin, Twin


def test_threads_get_their_own_answers(twin: Twin) -> None:
    with Client(twin.path, pool_size=4) as ks, ThreadPoolExecutor(12) as threads:

        def round_trips(number: int) -> bool:
            values = [b"%d %d" % (number, i) for i in range(30)]
            singles = all(ks.decrypt("contacts", ks.encrypt("contacts", v)) == v for v in values)
            return singles and ks.decrypt_many("contacts", ks.encrypt_many("contacts", values * 20)) == values * 20

        assert all(threads.map(round_trips, range(24)))
    assert twin.connections <= 4


def test_the_connection_used_last_is_used_next(client: Client, twin: Twin) -> None:
    for _ in range(20):
        client.encrypt("contacts", b"x")
    assert twin.connections == 1


def test_a_full_pool_makes_callers_wait_and_tells_when_that_takes_too_long(twin: Twin) -> None:
    with Client(twin.path, pool_size=1, timeout=0.4) as ks:
        ks.encrypt("contacts", b"x")
        twin.faults.append(faults.delay(0.2))
        slow = threading.Thread(target=ks.encrypt, args=("contacts", b"slow"))
        slow.start()
        time.sleep(0.05)
        assert ks.encrypt("contacts", b"patient")
        slow.join()
        twin.faults.append(faults.delay(0.35))
        slow = threading.Thread(target=ks.encrypt, args=("contacts", b"slow"))
        slow.start()
        time.sleep(0.05)
        with Client(twin.path, pool_size=1, timeout=0.1) as other:
            assert other.encrypt("contacts", b"x")  # another client has connections of its own
        ks._calls._timeout = 0.1  # this caller's patience is shorter than the other's
        with pytest.raises(keyside.DeadlineExceeded, match="pool_size"):
            ks.encrypt("contacts", b"impatient")
        slow.join()


def test_many_waiters_are_all_served(twin: Twin) -> None:
    twin.faults.extend([faults.delay(0.01)] * 50)
    with Client(twin.path, pool_size=2) as ks, ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(lambda i: ks.encrypt("contacts", b"%d" % i), range(50)))) == 50


def test_closing_while_others_call(twin: Twin) -> None:
    client = Client(twin.path, pool_size=1, timeout=2)
    client.encrypt("contacts", b"x")
    twin.faults.append(faults.delay(0.2))
    outcomes: list[object] = []

    def call() -> None:
        try:
            outcomes.append(client.encrypt("contacts", b"x"))
        except keyside.KeysideError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    client.close()
    for thread in threads:
        thread.join(1)
    assert outcomes.count(keyside.ClientClosed) == 2  # those that waited
    assert sum(isinstance(o, bytes) for o in outcomes) == 1  # the one under way was answered


def in_child(work: "object") -> int:
    """Fork, run `work` in the child; its exit status (0: returned true)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if callable(work) and work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child takes no thread's lock
def test_a_child_never_uses_its_parents_connections(client: Client, twin: Twin) -> None:
    envelope = client.encrypt("contacts", b"x")
    client.encrypt_many("contacts", [b"x"] * 2000)
    before = twin.connections
    assert in_child(lambda: client.decrypt_many("contacts", [envelope] * 2000) == [b"x"] * 2000) == 0
    assert twin.connections > before
    made = twin.connections
    assert client.decrypt("contacts", envelope) == b"x"
    assert len(client.encrypt_many("contacts", [b"x"] * 2000)) == 2000
    assert twin.connections == made  # the parent's are alive and were not disturbed


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # as above
def test_a_fork_while_another_thread_is_in_a_call(client: Client, twin: Twin) -> None:
    client.encrypt("contacts", b"x")
    twin.faults.append(faults.delay(0.2))
    results: list[bytes] = []
    thread = threading.Thread(target=lambda: results.append(client.encrypt("contacts", b"slow")))
    thread.start()
    time.sleep(0.05)
    assert in_child(lambda: client.decrypt("contacts", client.encrypt("contacts", b"child")) == b"child") == 0
    thread.join()
    assert client.decrypt("contacts", results[0]) == b"slow"


def test_an_interrupted_call_leaves_no_answer_behind(threaded: ThreadedTwin) -> None:
    twin = threaded.twin
    with Client(twin.path, pool_size=1, timeout=0.1, retries=0) as ks:
        ks.encrypt("contacts", b"x")
        twin.faults.append(faults.delay(0.15))
        with pytest.raises(keyside.DeadlineExceeded):
            ks.encrypt("contacts", b"late")
        time.sleep(0.1)
        envelope = ks.encrypt("contacts", b"next")
        assert ks.decrypt("contacts", envelope) == b"next"
