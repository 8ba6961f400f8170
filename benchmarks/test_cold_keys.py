"""Fields of users that the sidecar has never met: a data key made, wrapped and durable before the answer."""

from itertools import count

import pytest
from keyside import Client
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.loadgen import closed_loop
from benchmarks.sidecar import Sidecar
from benchmarks.traffic import CONTEXT, encrypting, require_clean

NUMBERS = count()
CROWD = 200


@pytest.mark.benchmark(group="first use of a partition")
def test_one_user(benchmark: BenchmarkFixture, client: Client, value: bytes) -> None:
    def first_use() -> tuple[str, bytes]:
        scope = f"users/single-{next(NUMBERS)}"
        return scope, client.encrypt(scope, value, CONTEXT)

    scope, envelope = benchmark(first_use)
    assert client.decrypt(scope, envelope, CONTEXT) == value


@pytest.mark.benchmark(group=f"first use of {CROWD} partitions at once")
def test_many_users(benchmark: BenchmarkFixture, sidecar: Sidecar) -> None:
    def first_uses() -> None:
        scopes = [f"users/crowd-{next(NUMBERS)}" for _ in range(CROWD)]
        run = closed_loop(sidecar.path, encrypting(scopes, 1, 64), depth=CROWD, rounds=1)
        require_clean(run, "first use")

    benchmark(first_uses)


@pytest.mark.benchmark(group="users whose keys are not cached, decrypt 100")
def test_keys_to_unwrap(benchmark: BenchmarkFixture, sidecar: Sidecar, client: Client, value: bytes) -> None:
    scopes = [f"users/old-{number}" for number in range(100)]
    envelopes = {scope: client.encrypt(scope, value, CONTEXT) for scope in scopes}

    def read_all() -> list[bytes]:
        return [client.decrypt(scope, envelope, CONTEXT) for scope, envelope in envelopes.items()]

    # a setup for each round; pytest-benchmark leaves this method untyped
    read = benchmark.pedantic(read_all, setup=sidecar.restart, rounds=3)  # type: ignore[no-untyped-call]
    assert read == [value] * len(scopes)
