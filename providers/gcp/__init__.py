"""Google Cloud KMS. Importing this package imports no SDK: the provider does when it opens."""

from __future__ import annotations

from pathlib import Path

from providers.gcp.options import GcpOptions, setting_problems
from providers.gcp.provider import GcpProvider

__all__ = ["OPTIONS", "GcpProvider", "build", "problems"]

OPTIONS = GcpOptions
problems = setting_problems


def build(options: GcpOptions, base: Path) -> GcpProvider:
    """Make the provider; nothing is read or connected before `initialize`."""
    return GcpProvider(options, base)
