"""Django's own tests, with encrypted fields in place of plain ones: they pass, or fail for a reason that is told.

make fetches them (`.venv/.django-suite`). Each database meets a sidecar of its own kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
from keyside.testing.server import Twin

from benchmarks.sidecar import Sidecar
from tests.orm.django.suite.encryption import KEYRING
from tests.orm.django.suite.judgement import complaints, reasons
from tests.orm.django.suite.selection import APPLICATIONS

ROOT = Path(__file__).resolve().parents[3]
SUITE = Path(sys.prefix, "django-suite")
FEWEST_PASSED = 2_100
FEWEST_FIELDS = 550
SECONDS = 500


def test_the_tests_are_those_of_the_django_that_is_installed() -> None:
    (version,) = [line for line in (SUITE / "PKG-INFO").read_text().splitlines() if line.startswith("Version: ")]
    assert version == f"Version: {django.__version__}", "make .venv/.django-suite"


def test_no_reason_names_a_test_twice_and_none_is_empty() -> None:
    for reason in reasons():
        assert reason.tests, reason.sentence
        assert reason.sentence.endswith(".")
        assert not any(reason.error.match(text) for text in ("", "AssertionError: ", "Exception: x")), reason.sentence


@pytest.mark.timeout(SECONDS)
def test_on_sqlite(twin: Twin, tmp_path: Path) -> None:
    judge("sqlite", twin.path, tmp_path)


@pytest.mark.timeout(SECONDS)
def test_on_postgresql_with_the_real_sidecar(postgresql_socket: Path, tmp_path: Path) -> None:
    with real_sidecar() as path:
        judge("postgresql", path, tmp_path, TEST_POSTGRESQL=str(postgresql_socket))


@contextmanager
def real_sidecar() -> Iterator[str]:
    with Sidecar(workers=1) as sidecar:
        sidecar.create_keyring(KEYRING)
        yield sidecar.path


def judge(database: str, sidecar: str, folder: Path, **environment: str) -> None:
    report = folder / "report.json"
    # its own setting of warnings, not that of pytest; a folder for what its tests write
    environment |= {"KEYSIDE_SOCKET": sidecar, "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "tests.orm.django.suite", str(SUITE / "tests"), str(report), *APPLICATIONS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert report.exists(), done.stdout[-1000:] + done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(report.read_text())
    assert complaints(outcome, database) == []
    assert len(outcome["passed"]) >= FEWEST_PASSED
    assert len(outcome["encrypted"]) >= FEWEST_FIELDS
