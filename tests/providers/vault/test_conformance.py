"""The rows that every back end passes, on OpenBao."""

from __future__ import annotations

from tests.providers.conformance import Conformance


class TestVault(Conformance):
    """All of them."""
