"""The rivals that are installed, on the same thousand fields as encrypt_many and decrypt_many."""

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.rivals import Rival, installed, open_rival
from benchmarks.traffic import CONTEXT


@pytest.fixture(params=installed())
def rival(request: pytest.FixtureRequest) -> Iterator[Rival]:
    opened = open_rival(request.param)
    yield opened
    opened.close()


@pytest.mark.benchmark(group="rivals, encrypt 1,000 x 64 B")
def test_encrypt(benchmark: BenchmarkFixture, rival: Rival, thousand: list[bytes]) -> None:
    benchmark.extra_info["version"] = rival.version
    sealed = benchmark(rival.encrypt_many, thousand, CONTEXT)
    assert rival.decrypt_many(sealed, CONTEXT) == thousand


@pytest.mark.benchmark(group="rivals, decrypt 1,000 x 64 B")
def test_decrypt(benchmark: BenchmarkFixture, rival: Rival, thousand: list[bytes]) -> None:
    benchmark.extra_info["version"] = rival.version
    sealed = rival.encrypt_many(thousand, CONTEXT)
    assert benchmark(rival.decrypt_many, sealed, CONTEXT) == thousand
