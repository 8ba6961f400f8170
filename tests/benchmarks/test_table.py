"""Rows, verdicts, and subjects that take turns."""

import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.stage import in_turns, median_ratio
from benchmarks.table import Row, failed, figure, machine, render, show, write_json


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "us", ""),
        (2_345_678, "/s", "2.35 M/s"),
        (35_000, "/s", "35 k/s"),
        (950, "/s", "950 /s"),
        (12.345, "us", "12.3 us"),
        (4_096_000, "B", "4,096,000 B"),
        (0, "", "0 "),
    ],
)
def test_a_figure_reads_as_people_say_it(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("w", "us", 1, 2, "C limit", 0.5, "ratio <= 1", True), "met"),
        (Row("w", "us", 3, 2, "C limit", 1.5, "ratio <= 1", False), "SHORT"),
        (Row("w", "us", 3, None, "C limit", None, "ratio <= 1", None), "not present"),
        (Row("w", "us", 3, 3, "idle", 1.0, "ratio <= 1", None, "the core was not free"), "unproven"),
        (Row("w", "us", 3, 2, "C limit", 1.5), ""),
        (failed("w", ValueError("no")), "SHORT"),
    ],
)
def test_verdicts(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_the_table_shows_every_row_and_its_figures() -> None:
    console = Console(width=180)
    with console.capture() as captured:
        console.print(render([Row("fields", "/s", 2e6, 4e6, "C limit", 0.5, "ratio >= 0.6", False, "why")]))
    for text in ("fields", "2 M/s", "4 M/s", "C limit", "0.50", "ratio >= 0.6", "SHORT", "why"):
        assert text in captured.get()


def test_the_last_line_counts(capsys: pytest.CaptureFixture[str]) -> None:
    show([Row("a", "", 1, target="1", met=True), failed("b", OSError("gone"))], machine())
    printed = capsys.readouterr().out
    assert "OSError: gone" in printed
    assert printed.rstrip().endswith("1 met, 1 short")


def test_json_holds_the_rows_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "results" / "table.json"
    write_json(path, [Row("a", "us", 1.5, target="<= 2", met=True)], machine())
    found = json.loads(path.read_text())
    assert found["rows"][0]["product"] == 1.5
    assert found["rows"][0]["verdict"] == "met"
    assert {"time", "commit", "processor", "cpus", "kernel", "python", "load"} <= found["machine"].keys()


def test_turns_alternate_their_order() -> None:
    order: list[str] = []

    def asked(name: str) -> int:
        order.append(name)
        return len(order)

    assert in_turns(3, {name: partial(asked, name) for name in "ab"}) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert "".join(order) == "abbaab"


def test_ratios_are_taken_within_rounds() -> None:
    """Half the speed in one round, for both: the ratio does not notice."""
    assert median_ratio([100, 50, 100], [50, 25, 50]) == 2
