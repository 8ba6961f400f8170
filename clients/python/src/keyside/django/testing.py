"""What tests of a Django project need that do not run under pytest.

TEST_RUNNER = "keyside.django.testing.SidecarRunner"

class PatientTests(TestCase):
    def test_without_a_sidecar(self):
        with sidecar().absent(), self.assertRaises(FieldUnavailable):
            Patient.objects.get(pk=1)
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

from django.test.runner import DiscoverRunner, ParallelTestSuite, _init_worker

from keyside.testing.server import Twin
from keyside.testing.standing_in import standing_in


class _Present(NamedTuple):
    twin: Twin
    block: AbstractContextManager[Twin]


_present: _Present | None = None


def sidecar() -> Twin:
    """The sidecar of the process that runs the test. Raises RuntimeError without SidecarRunner."""
    if _present is None:
        raise RuntimeError('no sidecar runs in this process: set TEST_RUNNER = "keyside.django.testing.SidecarRunner"')
    return _present.twin


def _begin() -> None:
    global _present
    block = standing_in()
    _present = _Present(block.__enter__(), block)


def _end() -> None:
    global _present
    if _present is not None:
        block, _present = _present.block, None
        block.__exit__(None, None, None)


def _begin_worker(*arguments: Any, **named: Any) -> None:
    """A sidecar for each worker, so that faults in one test are none in another's."""
    _init_worker(*arguments, **named)
    _begin()
    Finalize(None, _end, exitpriority=100)


class _Suite(ParallelTestSuite):
    init_worker = _begin_worker

    def run(self, result: Any) -> Any:
        _end()  # workers are forked, which a process with threads must not be
        try:
            return super().run(result)
        finally:
            _begin()


class SidecarRunner(DiscoverRunner):
    """Django's test runner, with a sidecar in plain Python and fixed keys in place of the one that settings name.

    It is there from before the databases are made until they are gone, with `--parallel` in every worker.
    """

    parallel_test_suite = _Suite

    def setup_test_environment(self, **options: Any) -> None:
        super().setup_test_environment(**options)
        _begin()

    def teardown_test_environment(self, **options: Any) -> None:
        _end()
        super().teardown_test_environment(**options)
