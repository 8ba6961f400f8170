"""The async client, many single calls at once: what a web application's requests look like."""

import asyncio

import pytest
from keyside import AsyncClient
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.sidecar import Sidecar
from benchmarks.traffic import CONTEXT, fields


@pytest.mark.parametrize("calls", [1, 100, 1_000])
@pytest.mark.benchmark(group="single calls at once, async")
def test_concurrent_encrypts(benchmark: BenchmarkFixture, sidecar: Sidecar, calls: int) -> None:
    values = fields(calls, 64)

    async def gather(client: AsyncClient) -> list[bytes]:
        return await asyncio.gather(*(client.encrypt("contacts", value, CONTEXT) for value in values))

    with asyncio.Runner() as runner:
        client = AsyncClient(sidecar.path)
        try:
            envelopes = benchmark(lambda: runner.run(gather(client)))
            assert runner.run(client.decrypt_many("contacts", envelopes, context=CONTEXT)) == values
        finally:
            runner.run(client.close())
