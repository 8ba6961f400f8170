"""A short run of every fuzz target, each in a process of its own; a crash or wrong answer prints its input.

FUZZ_SECONDS is for all targets together (12 under the sanitizers, else 4). FUZZ_SEED repeats a run; without it the runs
of a day share one seed.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, State

SECONDS = float(os.environ.get("FUZZ_SECONDS", "12" if "KEYSIDE_SANITIZED" in os.environ else "4"))
SEED = int(os.environ.get("FUZZ_SEED", datetime.datetime.now(datetime.UTC).date().toordinal()))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target: str, tmp_path: Path) -> None:
    state = tmp_path / "input"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.targets", target, str(SECONDS / len(TARGETS)), str(SEED), str(state)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 90,
        check=False,
    )
    assert ended.returncode == 0, (
        f"{ended.stdout}{ended.stderr}\n"
        f"target {target}, FUZZ_SEED={SEED}, exit {ended.returncode}; the input: {State.read(state).hex()}"
    )
