"""The rows that every back end passes, on the test server of Google Cloud KMS."""

from __future__ import annotations

from tests.providers.conformance import Conformance


class TestGcp(Conformance):
    """All of them."""
