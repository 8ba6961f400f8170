"""Every measurement of the table runs, shortened, so that none rots between benchmarks; figures are not looked at."""

import pytest

from benchmarks.limit import source
from benchmarks.rows import MEASUREMENTS
from benchmarks.stage import Stage


# the rows of all back ends start every service in turn and hang it for longer than a test may take: `make bench` alone
@pytest.mark.parametrize("name", [name for name in MEASUREMENTS if name != "providers"])
def test_a_measurement_gives_figures_without_the_limit(name: str) -> None:
    for row in MEASUREMENTS[name](Stage(limit=None, rounds=1, scale=0.01)):
        assert row.what
        assert row.product is not None
        assert row.verdict in {"met", "SHORT", "not present", "unproven", ""}


def test_a_limit_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSIDE_LIMIT", "/nonexistent")
    assert source() is None
