"""What to say when the package that speaks to a back end is not installed."""

from __future__ import annotations

from providers.errors import ConfigurationInvalid, Problem
from providers.options import SECTION


def sdk_missing(provider: str, extra: str, error: ImportError) -> ConfigurationInvalid:
    """The error for a provider whose SDK could not be imported; `extra` of `keyside-proxy` brings it."""
    return ConfigurationInvalid(
        [
            Problem(
                f"{SECTION}.provider",
                f"{provider} needs the package {error.name}, which is not installed: "
                f"pip install 'keyside-proxy[{extra}]'",
            )
        ]
    )
