"""What Django's tests have to become: passed, or failed in the way that `expected.txt` gives the reason of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPECTED = Path(__file__).with_name("expected.txt")

AFTERMATH = re.compile(r"TransactionManagementError: An error occurred|InternalError: current transaction is aborted")
"""What the subtests behind the first that failed say."""


@dataclass(frozen=True)
class Reason:
    """Why tests fail. `error`: what every error of theirs looks like. `tests`: by id, with the database that they fail
    on, None for each on which they run."""

    sentence: str
    error: re.Pattern[str]
    tests: dict[str, str | None]


def reasons() -> list[Reason]:
    """A paragraph is a reason: its sentence, the pattern, then a line a class with the names of its tests."""
    found = []
    for paragraph in EXPECTED.read_text().strip().split("\n\n"):
        sentence, error, *lines = paragraph.splitlines()
        assert sentence.startswith("# ")
        assert error.startswith("! ")
        found.append(Reason(sentence[2:], re.compile(error[2:], re.DOTALL), dict(_tests(lines))))
    return found


def _tests(lines: list[str]) -> Iterator[tuple[str, str | None]]:
    owner = ""
    for line in lines:
        names = line.split()
        if not line.startswith(" "):
            owner, *names = names
        for name in names:
            test, _, database = name.partition("@")
            yield f"{owner}.{test}", database or None


def complaints(outcome: dict[str, Any], database: str) -> list[str]:
    """What is not as it has to be."""
    told = []
    expected: dict[str, list[Reason]] = {}
    for reason in reasons():
        for test, only in reason.tests.items():
            if only in (None, database):
                expected.setdefault(test, []).append(reason)
    for test, errors in outcome["failed"].items():
        known = expected.get(test, [])
        strange = [error for error in errors if not any(reason.error.match(error) for reason in known)]
        told += [f"{test}: {error[:300]}" for error in strange if not (known and AFTERMATH.match(error))]
        told += [
            f"{test} does not fail for: {reason.sentence}"
            for reason in known
            if not any(reason.error.match(error) for error in errors)
        ]
    gone = set(expected) - set(outcome["failed"]) - set(outcome["skipped"])
    return told + [f"{test} passes, or is no longer there: take it off {EXPECTED.name}" for test in sorted(gone)]
