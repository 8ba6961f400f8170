"""What a back end may offer beside wrapping, each as an interface of its own.

A provider inherits the interfaces it serves, names them in `capabilities`, and gives a reason for each of the others in
`lacks`. Callers ask `provider.capability(Signs)` and get the interface or None; nothing fails later as unsupported.
Keys are named by a string of the back end's own; None is the key-encryption key that is configured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Flag, auto
from typing import Final, Literal

MAX_PLAINTEXT_BYTES: Final = 4096
"""The most that `Encrypts.encrypt` takes, in bytes: the smallest limit among the services (AWS KMS)."""


class Capability(Flag):
    """The optional part of the interface, as declared by a back end."""

    GENERATE_KEY = auto()
    IMPORT_KEY = auto()
    DELETE_KEY = auto()
    ENCRYPT = auto()
    SIGN = auto()
    SESSIONS = auto()
    AUDIT_LOGS = auto()
    COMPLIANCE_INFO = auto()


KeyUse = Literal["wrap", "sign"]


@dataclass(frozen=True, slots=True)
class KeySpecification:
    """A key to be made or brought in."""

    label: str
    use: KeyUse
    algorithm: str  # the back end's name for it: `AES-256`, `EC-P256`
    extractable: Literal[False] = False  # keys never leave
    tags: Mapping[str, str] = field(default_factory=dict)
    multi_region: bool = False  # may be replicated to other regions, where the service has them
    administrators: tuple[str, ...] = ()  # who may manage it, by the service's names; empty: whoever makes it
    users: tuple[str, ...] = ()  # who may wrap and unwrap with it; empty: whoever makes it


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A key that lives in a back end."""

    key: str  # its name there, version included
    algorithm: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """Bytes encrypted by a back end under a key of its own."""

    kek: str
    mechanism: str
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature made by a back end."""

    key: str
    algorithm: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """An open session of a back end that has them (PKCS#11)."""

    handle: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One entry of a log of operations."""

    at: datetime
    operation: str
    caller: str
    succeeded: bool
    details: Mapping[str, str]
    source: Literal["service", "sidecar"] = "service"  # whose record it is: the back end's, or this process's own


@dataclass(frozen=True, slots=True)
class ComplianceInfo:
    """What can be claimed of the place where the key-encryption keys live."""

    key_storage: str
    validated_to: str | None  # `FIPS 140-3 level 3`; None: no validation is claimed
    extractable: bool  # whether somebody with the right access can copy the key-encryption key
    mechanisms: tuple[str, ...]
    notes: tuple[str, ...]


class GeneratesKeys(ABC):
    """Makes keys that stay inside."""

    @abstractmethod
    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make a key and return its name."""


class ImportsKeys(ABC):
    """Takes keys made elsewhere."""

    @abstractmethod
    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in `material`, which is wiped whether or not this succeeds."""


class DeletesKeys(ABC):
    """Destroys keys."""

    @abstractmethod
    async def delete_key(self, key: str) -> None:
        """Destroy a key, or schedule it where the service insists on a delay. Raises NotFound."""


class Encrypts(ABC):
    """Encrypts small values inside the back end, without a data key."""

    @abstractmethod
    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most MAX_PLAINTEXT_BYTES. Raises InputRefused, NotFound."""

    @abstractmethod
    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Return the plaintext, which the caller wipes. Raises Tampered, NotFound, ForeignWrap."""


class Signs(ABC):
    """Signs with a key that stays inside."""

    @abstractmethod
    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign `data` (not a digest of it)."""

    @abstractmethod
    async def verify(self, data: bytes, signature: Signature) -> None:
        """Return when `signature` is good. Raises Tampered when it is not."""


class KeepsSessions(ABC):
    """Hands out sessions that a caller may hold."""

    @abstractmethod
    async def create_session(self) -> Session:
        """Open a session of its own, outside the pool."""

    @abstractmethod
    async def close_session(self, session: Session) -> None:
        """Close it; closing it again does nothing."""


class KeepsAuditLogs(ABC):
    """Has a log that can be read back: the service's own, or what this process recorded of its calls."""

    @abstractmethod
    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """Return at most `limit` records of that time, oldest first."""


class ReportsCompliance(ABC):
    """Says what may be claimed of it."""

    @abstractmethod
    async def get_compliance_info(self) -> ComplianceInfo:
        """Return the claims, and their limits."""


INTERFACES: Final[Mapping[Capability, type]] = {
    Capability.GENERATE_KEY: GeneratesKeys,
    Capability.IMPORT_KEY: ImportsKeys,
    Capability.DELETE_KEY: DeletesKeys,
    Capability.ENCRYPT: Encrypts,
    Capability.SIGN: Signs,
    Capability.SESSIONS: KeepsSessions,
    Capability.AUDIT_LOGS: KeepsAuditLogs,
    Capability.COMPLIANCE_INFO: ReportsCompliance,
}
