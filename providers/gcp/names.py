"""Resource names of Cloud KMS, how short ones are completed, and the permissions on them.

https://cloud.google.com/kms/docs/object-hierarchy: project, location, key ring, key, version.
"""

from __future__ import annotations

import re
from typing import Final

from providers.errors import ConfigurationInvalid, NotFound, Problem
from providers.options import SECTION

ENCRYPT: Final = "cloudkms.cryptoKeyVersions.useToEncrypt"
DECRYPT: Final = "cloudkms.cryptoKeyVersions.useToDecrypt"
GET_KEY: Final = "cloudkms.cryptoKeys.get"

_ID: Final = r"[a-zA-Z0-9_-]{1,63}"
_RING: Final = rf"projects/[a-z0-9.:-]{{1,128}}/locations/[a-z0-9-]{{1,63}}/keyRings/{_ID}"
_KEY: Final = re.compile(rf"(?P<key>(?P<ring>{_RING})/cryptoKeys/{_ID})(?P<version>/cryptoKeyVersions/[0-9]{{1,19}})?")


def is_full(name: str) -> bool:
    """Whether `name` says everything: project, location, key ring and key."""
    return _KEY.fullmatch(name) is not None


def is_short(name: str) -> bool:
    """Whether `name` is that of a key alone, to be completed."""
    return re.fullmatch(_ID, name) is not None


def key_ring(project: str | None, location: str, ring: str) -> str:
    """The key ring's resource name. Raises ConfigurationInvalid when the project is not known."""
    if project is None:
        raise ConfigurationInvalid(
            [
                Problem(
                    f"{SECTION}.kek",
                    "the credentials name no project: give the key's full resource name "
                    "(projects/.../locations/.../keyRings/.../cryptoKeys/...), or hsm.credentials.data.project",
                )
            ]
        )
    return f"projects/{project}/locations/{location}/keyRings/{ring}"


def crypto_key(name: str, ring: str) -> str:
    """The CryptoKey that `name` means: a version's key, a full name as it is, a short name in `ring`.

    Raises NotFound for what cannot be a key's name.
    """
    if (found := _KEY.fullmatch(name)) is not None:
        return found["key"]
    if is_short(name):
        return f"{ring}/cryptoKeys/{name}"
    raise NotFound(
        f"{name!r} names no key of Cloud KMS: give projects/.../locations/.../keyRings/.../cryptoKeys/NAME, "
        "or NAME alone for one of the configured key ring"
    )


def key_version(name: str, ring: str) -> str:
    """The CryptoKeyVersion that `name` means; of a key without a version the first one. Raises NotFound."""
    key = crypto_key(name, ring)
    return name if name.startswith(f"{key}/cryptoKeyVersions/") else f"{key}/cryptoKeyVersions/1"


def has_version(name: str) -> bool:
    """Whether `name` is that of a version."""
    return (found := _KEY.fullmatch(name)) is not None and found["version"] is not None


def ring_of(key: str) -> str:
    """The key ring of a key's full name."""
    return key.rpartition("/cryptoKeys/")[0]
