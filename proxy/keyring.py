"""The words of the key hierarchy: keyrings, scopes, data keys and their wraps.

A keyring is a named series of data keys; a partition is a sub-name of a partitioned keyring (`users/42`); the two
together are a scope. A data key belongs for ever to one scope and one purpose and is stored only wrapped.

    KeyringError(ValueError)
    ├── InvalidName     a keyring or partition name that docs/spec/wire.md does not allow
    └── InvalidKeyring  a property of a keyring out of its range
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final, Self

SUITE_AES_256_GCM: Final = 0x01
"""Envelope suite of every keyring made by this release (docs/spec/envelope.md)."""

DEFAULT_INDEX_BITS: Final = 128
MAX_PARTITION_BYTES: Final = 128

_KEYRING_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def utc_now() -> datetime:
    """This instant, aware, in UTC: every timestamp that is stored."""
    return datetime.now(UTC)


class KeyringError(ValueError):
    """Base of what this module refuses."""


class InvalidName(KeyringError):
    """The name breaks the rules of docs/spec/wire.md; the message says which."""


class InvalidKeyring(KeyringError):
    """A property of the keyring is out of its range; the message says which."""


class Purpose(IntEnum):
    """What a data key is used for; the numbers are those of the data plane."""

    FIELD = 0
    INDEX = 1

    @property
    def label(self) -> str:
        """The word that every wrap authenticates: `field` or `index`."""
        return self.name.lower()


class KeyState(StrEnum):
    """What a data key may still do."""

    ACTIVE = "active"
    """Encrypts and decrypts; at most one a scope and purpose."""
    DECRYPT_ONLY = "decrypt_only"
    """A former active key."""
    DISABLED = "disabled"
    """Refused until enabled again."""
    DESTROYED = "destroyed"
    """Its wraps are gone: what it encrypted is lost for ever."""


def check_keyring_name(name: str) -> str:
    """Return `name`; raise InvalidName unless it is 1 to 64 of `a-z A-Z 0-9 _ . -` starting with a letter or digit."""
    if not _KEYRING_NAME.fullmatch(name):
        raise InvalidName(
            "a keyring name is 1 to 64 characters of a-z A-Z 0-9 _ . - and starts with a letter or digit: "
            "choose another name"
        )
    return name


def check_partition(partition: str) -> str:
    """Return `partition`; raise InvalidName unless it is 1 to 128 bytes of UTF-8 without control characters."""
    try:
        size = len(partition.encode())
    except UnicodeEncodeError as error:
        raise InvalidName("a partition is valid UTF-8: remove the lone surrogate from it") from error
    if not 1 <= size <= MAX_PARTITION_BYTES:
        raise InvalidName(f"a partition is 1 to {MAX_PARTITION_BYTES} bytes of UTF-8, this one has {size}")
    if _CONTROL.search(partition):
        raise InvalidName("a partition has no control characters (U+0000 to U+001F, U+007F): remove them")
    return partition


@dataclass(frozen=True, slots=True)
class Scope:
    """A keyring, or one partition of it: what a request names and a data key belongs to.

    Raises InvalidName when made of names that docs/spec/wire.md does not allow.
    """

    keyring: str
    partition: str | None = None

    def __post_init__(self) -> None:
        check_keyring_name(self.keyring)
        if self.partition is not None:
            check_partition(self.partition)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name/partition`; the partition is everything after the first `/`. Raises InvalidName."""
        keyring, slash, partition = text.partition("/")
        return cls(keyring, partition if slash else None)

    def __str__(self) -> str:
        return self.keyring if self.partition is None else f"{self.keyring}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Keyring:
    """A named series of data keys.

    `index_bits` is the length of its blind indexes: 8 to 256, a multiple of 8. Raises InvalidName, InvalidKeyring.
    """

    name: str
    partitioned: bool
    index_bits: int
    suite: int
    created_at: datetime

    def __post_init__(self) -> None:
        check_keyring_name(self.name)
        if not 8 <= self.index_bits <= 256 or self.index_bits % 8:
            raise InvalidKeyring("index_bits is a multiple of 8 from 8 to 256")
        if self.suite != SUITE_AES_256_GCM:
            raise InvalidKeyring("suite is 1 (AES-256-GCM), the only one of this release")

    def serves(self, scope: Scope, purpose: Purpose) -> bool:
        """Whether the scope's form fits this keyring (docs/spec/wire.md, Operations).

        Fields of a partitioned keyring belong to a partition, those of another to the keyring itself. Blind indexes may
        span all partitions of a partitioned keyring, so both forms fit there.
        """
        if self.partitioned and purpose is Purpose.INDEX:
            return True
        return self.partitioned is (scope.partition is not None)


@dataclass(frozen=True, slots=True)
class Wrap:
    """A data key encrypted under one KEK of one provider. `blob` is opaque to all but that provider."""

    provider: str
    kek: str
    mechanism: str
    blob: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DataKey:
    """What the keystore knows of a data key; never the key itself.

    `id` is 64 random bits, never 0. `generation` counts the keys of one scope and purpose from 1. `messages_leased` is
    how many messages sidecars were ever granted under it, used or not.
    """

    id: int
    scope: Scope
    purpose: Purpose
    state: KeyState
    generation: int
    messages_leased: int
    wraps: tuple[Wrap, ...]
    created_at: datetime
