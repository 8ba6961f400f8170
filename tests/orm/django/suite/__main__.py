"""Runs labels of Django's own test suite over encrypted columns: python -m tests.orm.django.suite TESTS REPORT LABEL…

TESTS is the folder of Django's tests, REPORT the file for the outcomes. They change the process that they run in, its
settings and warnings: hence one of their own.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases

from tests.orm.django.suite.encryption import Encrypting
from tests.orm.django.suite.selection import EXCLUDED, PLAIN, SORTED_BY_LESS


class Recorded(unittest.TextTestResult):
    """What became of each test; several errors where subtests have failed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.passed: list[str] = []
        self.errors_of: dict[str, list[str]] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802  unittest's
        super().addSuccess(test)
        self.passed.append(test.id())

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._failed(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(test, err)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self.errors_of.setdefault(test.id(), []).append("UnexpectedSuccess")

    def _failed(self, test: unittest.TestCase, err: Any) -> None:
        kind, error, _ = err
        self.errors_of.setdefault(test.id(), []).append(f"{kind.__name__}: {error}")

    def report(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "failed": self.errors_of,
            "skipped": {test.id(): reason for test, reason in self.skipped},
            "expected_by_django": [test.id() for test, _ in self.expectedFailures],
        }


class Runner(DiscoverRunner):
    """Django's, which hands its result on."""

    recorded: Recorded
    excluded: Sequence[str] = ()

    def build_suite(self, *args: Any, **options: Any) -> Any:
        suite = super().build_suite(*args, **options)
        return type(suite)([test for test in iter_test_cases(suite) if test._testMethodName not in self.excluded])

    def get_resultclass(self) -> type[unittest.TestResult]:
        return Recorded

    def suite_result(self, suite: Any, result: Any, **options: Any) -> Any:
        self.recorded = result
        return super().suite_result(suite, result, **options)


def run(tests: Path, report: Path, labels: list[str]) -> None:
    sys.path.insert(0, str(tests))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.orm.django.suite.project"
    runtests = import_module("runtests")  # Django's

    encrypting = Encrypting(sorted({label.split(".")[0] for label in labels}), PLAIN, SORTED_BY_LESS)
    encrypting.install()
    runtests.ALWAYS_INSTALLED_APPS.append("keyside.django")
    labels, state = runtests.setup_run_tests(1, None, None, labels)
    runner = Runner(verbosity=1, interactive=False, parallel=1)
    runner.excluded = EXCLUDED
    runner.run_tests(labels)
    runtests.teardown_run_tests(state)
    outcome = runner.recorded.report()
    report.write_text(json.dumps(outcome | {"encrypted": encrypting.encrypted, "left": encrypting.left}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
