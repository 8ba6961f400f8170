"""The conformance suite is imported by test modules, so its asserts are rewritten by hand."""

import pytest

from providers import refused

pytest.register_assert_rewrite("tests.providers.conformance")


@pytest.fixture
def refusals_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that mends what refused the credentials, and then looks whether nothing else is broken."""
    monkeypatch.setattr(refused, "REFUSAL_SECONDS", 0.0)
