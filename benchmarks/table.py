"""One row a figure: what was measured, beside what, and whether it reaches its target; as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 180


@dataclass(frozen=True)
class Row:
    """One measured figure. `met` is None where there is no target, or nothing to hold against it: `note` says why."""

    what: str
    unit: str
    product: float | None
    reference: float | None = None
    reference_name: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.met is not None:
            return "met" if self.met else "SHORT"
        if not self.target:
            return ""
        return "not present" if self.reference is None and self.reference_name else "unproven"


def failed(what: str, error: Exception) -> Row:
    """The row of a measurement that could not be made: never met."""
    return Row(what, "", None, target="a measurement", met=False, note=f"{type(error).__name__}: {error}")


def figure(value: float | None, unit: str) -> str:
    """A number as people read it: three digits that matter and its unit."""
    if value is None:
        return ""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if unit.endswith("/s") and value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def machine() -> dict[str, str]:
    """Where and what was measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or "unknown",
        "processor": model,
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def render(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_lines=False, pad_edge=False)
    for heading, justify in (
        ("what", "left"),
        ("Keyside", "right"),
        ("reference", "right"),
        ("", "left"),
        ("ratio", "right"),
        ("target", "left"),
        ("", "left"),
        ("note", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=heading != "note")
    for row in rows:
        style = {True: "green", False: "bold red", None: "yellow"}[row.met]
        table.add_row(
            row.what,
            figure(row.product, row.unit),
            figure(row.reference, row.unit),
            row.reference_name,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.target,
            Text(row.verdict, style=style),
            row.note,
        )
    return table


def show(rows: Sequence[Row], where: dict[str, str]) -> None:
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    console.print(", ".join(f"{name} {value}" for name, value in where.items()), highlight=False, soft_wrap=True)
    console.print(render(rows))
    short = sum(row.met is False for row in rows)
    console.print(f"{sum(row.met is True for row in rows)} met, {short} short", highlight=False)


def write_json(path: Path, rows: Sequence[Row], where: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine": where, "rows": [asdict(row) | {"verdict": row.verdict} for row in rows]}, indent=1)
    )
