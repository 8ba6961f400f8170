"""The example runs from end to end and says what its page promises."""

from __future__ import annotations

import subprocess
import sys

from tests.house.tree import ROOT


def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.sqlalchemy_app"], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "stored 20,093 persons" in done.stdout
    assert done.stdout.count("refused: persons.") == 2
    assert "no name in plaintext" in done.stdout
    assert "persons.weight (encrypted): 19" in done.stdout
