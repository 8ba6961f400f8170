"""Luna, Thales and every other hardware security module that speaks PKCS #11, through python-pkcs11."""

from __future__ import annotations

from pathlib import Path

from providers.pkcs11.options import Pkcs11Options, token_problems
from providers.pkcs11.provider import LunaProvider, Pkcs11Provider, ThalesProvider

__all__ = ["OPTIONS", "LunaProvider", "Pkcs11Provider", "ThalesProvider", "build", "problems"]

OPTIONS = Pkcs11Options
problems = token_problems

_BUILT: dict[str, type[Pkcs11Provider]] = {provider.name: provider for provider in (LunaProvider, ThalesProvider)}


def build(options: Pkcs11Options, base: Path) -> Pkcs11Provider:
    """Make the provider; the library is loaded and the token found by `initialize`."""
    return _BUILT[options.provider](options, base)
