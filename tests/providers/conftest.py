"""The conformance suite is imported by test modules, so its asserts are rewritten by hand."""

import pytest

pytest.register_assert_rewrite("tests.providers.conformance")
