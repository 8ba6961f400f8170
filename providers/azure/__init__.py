"""Azure Key Vault and Managed HSM, by azure-keyvault-keys; imported when the provider opens, not before."""

from __future__ import annotations

from pathlib import Path

from providers.azure.options import AzureOptions, vault_problems
from providers.azure.provider import AzureKeyVaultProvider

__all__ = ["OPTIONS", "AzureKeyVaultProvider", "build", "problems"]

OPTIONS = AzureOptions
problems = vault_problems


def build(options: AzureOptions, base: Path) -> AzureKeyVaultProvider:
    """Make the provider; nothing is read or connected before `initialize`."""
    return AzureKeyVaultProvider(options, base)
