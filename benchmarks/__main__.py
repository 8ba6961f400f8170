"""`make bench`: every figure in one run, one table, and JSON in benchmarks/results."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.limit import Limit, source
from benchmarks.rows import MEASUREMENTS
from benchmarks.stage import Stage
from benchmarks.table import Row, failed, machine, show, write_json

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        choices=[[], *MEASUREMENTS],
        metavar="ROW",
        help=f"of {', '.join(MEASUREMENTS)}: only these measurements",
    )
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds of each subject (7)")
    parser.add_argument("--scale", type=float, default=1.0, help="length of each round, 1 being the usual")
    parser.add_argument("--no-suites", action="store_true", help="leave the pytest-benchmark suites out")
    parser.add_argument("--json", type=Path, default=RESULTS / "table.json", help="where the figures are written")
    return parser.parse_args()


def measure(stage: Stage, names: list[str]) -> list[Row]:
    """Every row asked for. A measurement that fails is a row that says so; the others go on."""
    rows: list[Row] = []
    for name in names:
        print(f"measuring: {name} ...", file=sys.stderr, flush=True)
        try:
            rows += MEASUREMENTS[name](stage)
        except Exception as error:
            rows.append(failed(name, error))
    return rows


def suites() -> int:
    """The pytest-benchmark suites, timed; returns the exit code."""
    RESULTS.mkdir(exist_ok=True)
    words = ["-m", "pytest", "-q", "--benchmark-enable", f"--benchmark-json={RESULTS / 'suites.json'}"]
    columns = ["--benchmark-columns=median,iqr,ops,rounds", "--benchmark-group-by=group", "--benchmark-sort=name"]
    folder = Path(__file__).parent
    return subprocess.run([sys.executable, *words, *columns, str(folder)], cwd=folder.parent).returncode


def main() -> int:
    wanted = arguments()
    server_c = source()
    where = machine()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyside-limit-")))
        limit = stack.enter_context(Limit(server_c, folder)) if server_c else None
        rows = measure(Stage(limit, wanted.rounds, wanted.scale), wanted.rows or list(MEASUREMENTS))
    where["C limit"] = "present" if server_c else "not present"
    code = 0 if wanted.no_suites or wanted.rows else suites()
    show(rows, where)
    write_json(wanted.json, rows, where)
    return code or int(any(row.product is None for row in rows))


if __name__ == "__main__":
    sys.exit(main())
