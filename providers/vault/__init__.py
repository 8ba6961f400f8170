"""VAULT_TRANSIT: the transit engine of HashiCorp Vault and OpenBao, through their HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from providers.vault.options import VaultOptions, contradictions

if TYPE_CHECKING:
    from providers.vault.provider import VaultProvider

__all__ = ["OPTIONS", "build", "problems"]

OPTIONS = VaultOptions
problems = contradictions


def build(options: VaultOptions, base: Path) -> VaultProvider:
    """Make the provider; nothing is connected before `initialize`."""
    from providers.vault.provider import VaultProvider  # not above: checking a configuration needs no HTTP client

    return VaultProvider(options, base)
