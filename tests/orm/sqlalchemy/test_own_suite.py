"""SQLAlchemy's own tests of types, with encrypted columns in place of plain ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("suite")
FEWEST = 25
"""Some are for databases that have more types."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_types_pass_sqlalchemys_own_tests(database: str, request: pytest.FixtureRequest) -> None:
    url = "sqlite://"
    if database == "postgresql":
        url = f"postgresql+psycopg://test@/postgres?host={request.getfixturevalue('postgresql_socket')}"
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "--rootdir=.", "--dburi", url]
    done = subprocess.run(command, cwd=SUITE, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= FEWEST, done.stdout[-1000:]
