"""Rates and percentiles between readings, and the Prometheus text format."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Family, histogram, render
from proxy.status import Histogram, Reading, Recent


def reading(at: float, encrypts: int, latency: dict[int, int]) -> Reading:
    stats: dict[str, Any] = {
        "key_hits": encrypts,
        "requests": {"encrypt": encrypts},
        "items": {"encrypt": encrypts * 10},
        "failed_requests": {},
        "failed_items": {},
        "latency_ns": latency,
        "parked_latency_ns": {},
    }
    return Reading.of(stats, at)


def test_percentiles_are_upper_ends_of_buckets() -> None:
    histogram = Histogram({1000: 50, 2000: 49, 8000: 1})
    assert histogram.percentile(0.5) == pytest.approx(1e-6)
    assert histogram.percentile(0.99) == pytest.approx(2e-6)
    assert histogram.percentile(1.0) == pytest.approx(8e-6)
    assert Histogram({}).percentile(0.5) is None
    assert Histogram({1000: 3}).since(Histogram({1000: 3})).percentile(0.5) is None


def test_a_window_tells_rates_and_latencies_of_its_own_time() -> None:
    recent = Recent(reading(0, 0, {}))
    recent.add(reading(5, 1000, {1000: 1000}))
    window: Any = recent.until(reading(10, 2000, {1000: 1000, 4000: 1000}))
    assert window["seconds"] == 10
    assert window["operations"]["encrypt"] == {"requests_per_second": 200.0, "items_per_second": 2000.0}
    for second in range(15, 200, 5):
        recent.add(reading(second, 2000, {1000: 1000, 4000: 1000}))
    quiet: Any = recent.until(reading(200, 2001, {1000: 1000, 4000: 1000, 9000: 1}))
    assert 60 <= quiet["seconds"] <= 70
    assert quiet["latency_seconds"] == {"count": 1, "p50": pytest.approx(9e-6), "p99": pytest.approx(9e-6)}


def test_labels_and_help_are_escaped() -> None:
    family = Family("a_total", "counter", 'back\\slash\nand "quotes"').add(1.5, x='q"\\\n')
    (parsed,) = text_string_to_metric_families(render([family, Family("empty", "gauge", "no samples")]))
    assert parsed.documentation == 'back\\slash\nand "quotes"'
    assert (parsed.samples[0].labels, parsed.samples[0].value) == ({"x": 'q"\\\n'}, 1.5)


def test_histograms_are_cumulative_and_end_in_infinity() -> None:
    text = render([histogram("h_seconds", "How long.", [(0.001, 3), (0.002, 5)], 6)])
    (parsed,) = text_string_to_metric_families(text)
    assert parsed.type == "histogram"
    assert [(sample.labels.get("le"), sample.value) for sample in parsed.samples] == [
        ("0.001", 3),
        ("0.002", 5),
        ("+Inf", 6),
        (None, 6),
    ]
