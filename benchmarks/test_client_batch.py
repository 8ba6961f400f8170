"""The sync client, many fields a call."""

import pytest
from keyside import Client
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.traffic import CONTEXT, fields


@pytest.mark.parametrize("count", [10, 1_000, 20_000])
@pytest.mark.benchmark(group="encrypt_many, 64 B")
def test_encrypt_many(benchmark: BenchmarkFixture, client: Client, count: int) -> None:
    values = fields(count, 64)
    envelopes = benchmark(client.encrypt_many, "contacts", values, context=CONTEXT)
    assert client.decrypt_many("contacts", envelopes, context=CONTEXT) == values


@pytest.mark.parametrize("count", [10, 1_000, 20_000])
@pytest.mark.benchmark(group="decrypt_many, 64 B")
def test_decrypt_many(benchmark: BenchmarkFixture, client: Client, count: int) -> None:
    values = fields(count, 64)
    envelopes = client.encrypt_many("contacts", values, context=CONTEXT)
    assert benchmark(client.decrypt_many, "contacts", envelopes, context=CONTEXT) == values


@pytest.mark.parametrize("size", [0, 1_024, 65_536])
@pytest.mark.benchmark(group="encrypt_many, 100 fields")
def test_field_sizes(benchmark: BenchmarkFixture, client: Client, size: int) -> None:
    values = fields(100, size)
    envelopes = benchmark(client.encrypt_many, "contacts", values, context=CONTEXT)
    assert client.decrypt_many("contacts", envelopes, context=CONTEXT) == values
