"""The sync client, one field a call."""

import pytest
from keyside import Client
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.traffic import CONTEXT

pytestmark = pytest.mark.benchmark(group="one field a call, sync")


def test_encrypt(benchmark: BenchmarkFixture, client: Client, value: bytes) -> None:
    envelope = benchmark(client.encrypt, "contacts", value, CONTEXT)
    assert client.decrypt("contacts", envelope, CONTEXT) == value


def test_decrypt(benchmark: BenchmarkFixture, client: Client, value: bytes) -> None:
    envelope = client.encrypt("contacts", value, CONTEXT)
    assert benchmark(client.decrypt, "contacts", envelope, CONTEXT) == value


def test_blind_index(benchmark: BenchmarkFixture, client: Client, value: bytes) -> None:
    index = benchmark(client.blind_index, "contacts", value, CONTEXT)
    assert index == client.blind_index("contacts", value, CONTEXT)
