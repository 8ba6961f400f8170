"""The example runs from end to end and says what its page promises."""

from __future__ import annotations

import subprocess
import sys

from tests.house.tree import ROOT


def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.django_app"], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "stored 20,093 persons" in done.stdout
    assert done.stdout.count("refused: register_person.") == 2
    assert "the admin finds 1 Ohtani, masked" in done.stdout
    assert "register.Person.born (encrypted): " in done.stdout
    assert "no name and no day of birth in plaintext" in done.stdout
