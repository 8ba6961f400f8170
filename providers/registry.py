"""From a name in the configuration to a provider, importing that provider's module and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from providers.errors import ConfigurationInvalid, Problem
from providers.interface import Provider
from providers.options import SECTION, HsmOptions, read, without_nulls


class Loaded(Protocol):
    """What the module of a back end exposes."""

    OPTIONS: type[HsmOptions]

    def problems(self, hsm: Mapping[str, object]) -> list[Problem]:
        """What is wrong beyond each setting's own type, found without opening anything."""

    def build(self, options: Any, base: Path) -> Provider:
        """Make the provider. Opens nothing yet."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One back end of this release."""

    module: str
    acts_on: frozenset[str]  # shared settings that it obeys; its own settings it obeys all


_CALL_BOUNDS: Final = frozenset(
    {
        "performance.connectionPoolSize",
        "performance.requestTimeout",
        "performance.retryPolicy.maxRetries",
        "performance.retryPolicy.backoffMultiplier",
    }
)

_OVER_TLS: Final = frozenset(
    {
        "connection.endpoint",
        "connection.region",
        "connection.tls.caFile",
        "connection.tls.certificateFile",
        "connection.tls.keyFile",
        "connection.tls.minimumVersion",
        "credentials.type",
        "credentials.data",
        "performance.connectionMaxAge",
    }
)
_TOKEN: Final = frozenset(
    {
        "connection.libraryPath",
        "connection.partition",
        "connection.slot",
        "credentials.data",
        "credentials.type",
        "highAvailability.haGroupName",
        "performance.connectionMaxAge",
    }
)

BUILT: Final[Mapping[str, Entry]] = {
    "LOCAL": Entry("providers.local", acts_on=_CALL_BOUNDS),
    "AWS_KMS": Entry("providers.aws", acts_on=_CALL_BOUNDS | _OVER_TLS),
    "AZURE_KEY_VAULT": Entry("providers.azure", acts_on=_CALL_BOUNDS | (_OVER_TLS - {"connection.region"})),
    "GCP_KMS": Entry("providers.gcp", acts_on=_CALL_BOUNDS | _OVER_TLS | {"connection.partition"}),
    "LUNA_HSM": Entry("providers.pkcs11", acts_on=_CALL_BOUNDS | _TOKEN),
    "THALES_HSM": Entry("providers.pkcs11", acts_on=_CALL_BOUNDS | _TOKEN),
    "VAULT_TRANSIT": Entry("providers.vault", acts_on=_CALL_BOUNDS | _OVER_TLS - {"connection.region"}),
}

_PLACEHOLDER: Final = re.compile(r"<[A-Z]+(-[A-Z]+)*>")

_SHARED_SECTIONS: Final = ("connection", "credentials", "performance", "highAvailability", "monitoring")


def create(hsm: Mapping[str, object], base: Path) -> Provider:
    """Make the provider that the `hsm` section names; relative paths in it are relative to `base`.

    Raises ConfigurationInvalid with every problem. Nothing is opened or read before the provider's `initialize`.
    """
    loaded, options, problems = _read(hsm)
    if loaded is None or options is None or problems:
        raise ConfigurationInvalid(problems)
    return loaded.build(options, base)


def options_problems(hsm: Mapping[str, object], base: Path) -> list[Problem]:
    """Every problem of the `hsm` section, each with its path in the file (`hsm.performance.requestTimeout`).

    Nothing is opened, so `base`, which relative paths are relative to, is not looked at yet.
    """
    return _read(hsm)[2]


def unbuilt(hsm: Mapping[str, object]) -> list[str]:
    """One line for each setting in `hsm` that is understood and that this release does not act on yet."""
    entry = BUILT.get(str(hsm.get("provider")))
    acts_on = entry.acts_on if entry else frozenset()
    return [
        f"{SECTION}.{path}: accepted, but this release does not act on it with provider {hsm.get('provider')}"
        for section in _SHARED_SECTIONS
        for path in _leaves(section, without_nulls(hsm).get(section))
        if path not in acts_on
    ]


def _read(hsm: Mapping[str, object]) -> tuple[Loaded | None, HsmOptions | None, list[Problem]]:
    entry = BUILT.get(name) if isinstance(name := hsm.get("provider"), str) else None
    if entry is None:
        return None, None, [*_provider_problems(name), *_shared_problems(hsm)]
    if unfilled := list(_unfilled(SECTION, hsm)):
        return None, None, unfilled
    loaded = cast("Loaded", import_module(entry.module))
    options, problems = read(loaded.OPTIONS, hsm)
    return loaded, options, [*problems, *loaded.problems(without_nulls(hsm))]


def _provider_problems(name: object) -> Iterator[Problem]:
    path, built = f"{SECTION}.provider", ", ".join(BUILT)
    if name is None:
        yield Problem(path, f"is required: this release has {built}")
    else:
        yield Problem(path, f"no such provider (names are in capitals): this release has {built}")


def _shared_problems(hsm: Mapping[str, object]) -> Iterator[Problem]:
    """The sections whose shape does not depend on the provider; the others cannot be judged without it."""
    known = {key: value for key, value in hsm.items() if key in _SHARED_SECTIONS}
    yield from read(HsmOptions, {**known, "provider": ""})[1]


def _unfilled(path: str, value: object) -> Iterator[Problem]:
    """What `keyside init` left to be filled in."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unfilled(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unfilled(f"{path}[{index}]", item)
    elif isinstance(value, str) and (found := _PLACEHOLDER.search(value)):
        yield Problem(path, f"still has the placeholder {found[0]}: fill it in")


def _leaves(path: str, value: object) -> Iterator[str]:
    if path == "credentials.data":
        yield path  # one line for all of it: the names inside are nobody's business
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    elif value is not None:
        yield path
