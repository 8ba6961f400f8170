"""A token without AES-GCM, KW or KWP: the rows pass by AES-CBC and HMAC, on openCryptoki's software token."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.providers.conformance import Conformance
from tests.providers.pkcs11.opencryptoki_rows import TestThalesByCbcAndHmac as Rows
from tests.servers.opencryptoki import inside

ROWS = [row for row in dir(Conformance) if row.startswith("test_") and row not in Rows.not_applicable]

del Rows  # or its rows would be collected here, where there is no token


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What went wrong with each row; a row that did not run has no entry."""
    folder = tmp_path_factory.mktemp("namespaces")
    report = folder / "rows.xml"
    rows = Path(__file__).with_name("opencryptoki_rows.py")
    pytest_itself = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir=tests/providers"]
    done = inside(folder / "token", [*pytest_itself, f"--junitxml={report}", str(rows)])
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [str(outcome.text) for outcome in case if outcome.tag in ("failure", "error", "skipped")]
        found.setdefault(case.attrib["name"].partition("[")[0], []).extend(wrong)
    return found


@pytest.mark.parametrize("row", ROWS)
def test_row(outcomes: dict[str, list[str]], row: str) -> None:
    assert outcomes[row] == []
