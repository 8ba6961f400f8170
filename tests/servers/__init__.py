"""The services that back ends speak to, started for tests, the demo and the benchmarks on free loopback ports.

Each module has `serve(folder)`, a context manager: while it lasts the service runs and its key-encryption key exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast


@dataclass(frozen=True)
class Served:
    """A running service, as a sidecar has to be told of it."""

    hsm: dict[str, Any]  # the whole `hsm` section
    environment: Mapping[str, str] = field(default_factory=dict)  # for the sidecar's process


LAUNCHERS: Final[Mapping[str, str]] = {
    "AWS_KMS": "tests.servers.aws",
    "AZURE_KEY_VAULT": "tests.servers.azure",
    "GCP_KMS": "tests.servers.gcp",
    "LUNA_HSM": "tests.servers.softhsm",
    "THALES_HSM": "tests.servers.softhsm",
    "VAULT_TRANSIT": "tests.servers.openbao",
}
"""The module of each provider's service."""


def launch(provider: str, folder: Path) -> AbstractContextManager[Served]:
    """Start the service of `provider`, with its files in `folder`. Raises KeyError for one without a service."""
    module = import_module(LAUNCHERS[provider])
    serves_several = sum(module.__name__ == name for name in LAUNCHERS.values()) > 1
    named = {"provider": provider} if serves_several else {}
    return cast("AbstractContextManager[Served]", module.serve(folder, **named))
