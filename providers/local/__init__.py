"""The embedded back end: a root key in a 0600 file, a systemd credential, or derived from a passphrase."""

from __future__ import annotations

from pathlib import Path

from providers.local.options import LocalOptions, root_key_file, source_problems
from providers.local.passphrase import create_passphrase_key
from providers.local.provider import LocalProvider
from providers.local.root_key import create_root_key

__all__ = ["OPTIONS", "LocalProvider", "build", "create_passphrase_key", "create_root_key", "problems", "root_key_file"]

OPTIONS = LocalOptions
problems = source_problems


def build(options: LocalOptions, base: Path) -> LocalProvider:
    """Make the provider; the key is read by `initialize`."""
    return LocalProvider(options, base)
