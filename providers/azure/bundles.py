"""What the service says of a key: its type, its operations, its attributes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from providers.azure.key_vault import KeyVault, version_of
from providers.azure.names import KeyName
from providers.azure.options import A256GCM, A256KW, OAEP, SIGNED_OAEP
from providers.errors import ConfigurationInvalid, Problem

EXPIRES_SOON_SECONDS: Final = 30 * 86_400
OPERATIONS: Final = {
    A256GCM: ("encrypt", "decrypt"),
    A256KW: ("wrapKey", "unwrapKey"),
    SIGNED_OAEP: ("wrapKey", "unwrapKey"),
    OAEP: ("wrapKey", "unwrapKey"),
}
TYPES: Final = {A256GCM: "oct", A256KW: "oct", SIGNED_OAEP: "RSA", OAEP: "RSA"}
PLATFORMS: Final = {"1": "FIPS 140-2 level 2", "2": "FIPS 140-3 level 3"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of a key, without its public part."""

    name: KeyName  # version included
    kty: str
    curve: str | None
    operations: tuple[str, ...]
    expires: float | None  # Unix time
    created: datetime | None
    exportable: bool
    platform: str | None  # hsmPlatform: 0 software, 1 and 2 the HSM's generation
    recovery: str | None

    @property
    def validated_to(self) -> str | None:
        """The FIPS level that the service claims of the place where the key is."""
        return PLATFORMS.get(self.platform or "")

    @property
    def left(self) -> float | None:
        """Seconds until it may not wrap any more; None: no end."""
        return None if self.expires is None else self.expires - time.time()


async def look(vault: KeyVault, key: KeyName) -> Bundle:
    """Ask for a key, its current version where none is named. Raises NotFound, Denied, KeyDisabled."""
    return read(await vault.ask("GET", key.path, "get"), key)


def read(answer: dict[str, Any], key: KeyName) -> Bundle:
    """From the service's JSON, checked to be that of `key`."""
    name = version_of(answer, key)
    jwk, attributes = answer["key"], answer.get("attributes") or {}
    created = attributes.get("created")
    return Bundle(
        name=name,
        kty=str(jwk.get("kty")),
        curve=jwk.get("crv"),
        operations=tuple(str(operation) for operation in jwk.get("key_ops") or ()),
        expires=attributes.get("exp"),
        created=datetime.fromtimestamp(created, UTC) if isinstance(created, int | float) else None,
        exportable=bool(attributes.get("exportable")),
        platform=attributes.get("hsmPlatform"),
        recovery=attributes.get("recoveryLevel"),
    )


def require_fit(bundle: Bundle, mechanism: str) -> None:
    """Raise ConfigurationInvalid when a key cannot do what a mechanism needs."""
    family = bundle.kty.removesuffix("-HSM")
    if family != TYPES[mechanism]:
        raise ConfigurationInvalid(
            [
                Problem(
                    "hsm.mechanism",
                    f"{mechanism} needs a key of type {TYPES[mechanism]}, and {bundle.name} is {bundle.kty}",
                )
            ]
        )
    missing = [operation for operation in OPERATIONS[mechanism] if operation not in bundle.operations]
    if missing:
        raise ConfigurationInvalid(
            [
                Problem(
                    "hsm.kek",
                    f"{bundle.name} does not have the operations {', '.join(missing)}: add them to its key_ops",
                )
            ]
        )


def default_mechanism(bundle: Bundle, configured: str) -> str:
    """What a key that is not the configured one encrypts with."""
    family = bundle.kty.removesuffix("-HSM")
    return configured if TYPES[configured] == family else A256GCM if family == "oct" else SIGNED_OAEP
