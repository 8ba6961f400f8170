"""Percentiles against sorting everything."""

import math
from random import Random

import pytest

from benchmarks.histogram import Histogram

PERCENTS = (0.1, 1, 50, 90, 99, 99.9, 100)


def nearest_rank(values: list[int], percent: float) -> int:
    return sorted(values)[math.ceil(round(len(values) * percent / 100, 9)) - 1]


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize("scale", [100, 10_000, 1_000_000, 10**10, 10**13])
def test_percentiles_are_at_most_one_part_in_128_above_the_sorted_ones(scale: int) -> None:
    source = Random(scale)
    values = [int(source.paretovariate(1.2) * source.random() * scale / 10) for _ in range(5_000)]
    values = [min(value, 2**41 - 1) for value in values]
    histogram = histogram_of(values)
    for percent in PERCENTS:
        exact = nearest_rank(values, percent)
        assert exact <= histogram.percentile(percent) <= exact + exact // 128


def test_small_durations_are_exact() -> None:
    histogram = histogram_of(list(range(256)))
    assert [histogram.percentile(p) for p in (50, 75, 100)] == [127, 191, 255]


def test_a_thousand_values_have_the_999th_at_99_9_percent() -> None:
    assert histogram_of([1] * 999 + [250]).percentile(99.9) == 1


def test_longer_than_the_last_slot_is_counted_there() -> None:
    histogram = histogram_of([5, 2**50])
    assert histogram.largest == histogram.percentile(100) == 2**50


def test_merging_is_recording_both() -> None:
    left, right = [3, 500, 70_000], [1, 9_000_000]
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    both = histogram_of(left + right)
    assert len(merged) == len(both) == 5
    assert [merged.percentile(p) for p in PERCENTS] == [both.percentile(p) for p in PERCENTS]


def test_nothing_recorded_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Histogram().percentile(50)


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        histogram_of([1]).percentile(percent)
