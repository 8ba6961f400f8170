"""The core that every back end has: initialize, health_check, wrap_key, unwrap_key, describe, close.

The rest of the sixteen operations are interfaces in `providers.capabilities`; `export_key` is here, once, and refuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final, NoReturn, TypeVar, cast, final

from providers.capabilities import INTERFACES, Capability
from providers.errors import ExportRefused
from providers.pool import PoolUsage
from providers.wrap_context import WrapContext

DATA_KEY_BYTES: Final = 32

Interface = TypeVar("Interface")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key encrypted under one key-encryption key. All four fields are stored; only `blob` came from the key."""

    provider: str  # `LOCAL`, `AWS_KMS`, ...
    kek: str  # the key-encryption key's name in that provider, its version included
    mechanism: str  # `AES-256-GCM`, ...
    blob: bytes = field(repr=False)


class HealthStatus(Enum):
    """OK: serving. DEGRADED: serving, and somebody should act before it stops. DOWN: not serving."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Health:
    """How a provider is."""

    status: HealthStatus
    detail: str  # for people: what is wrong and what to do
    seconds: float  # how long finding out took


@dataclass(frozen=True, slots=True)
class Description:
    """What a provider is, without secrets: for status pages and start-up lines."""

    provider: str
    kek: str | None  # None until the provider has been opened
    mechanism: str
    capabilities: Capability
    lacks: Mapping[Capability, str]  # why each of the others is not there
    options: Mapping[str, object]  # as in the configuration, secrets left out
    concurrent_calls: int  # how many calls at once the back end is configured for
    timeout_seconds: float  # the bound on every call, retries included


@dataclass(frozen=True, slots=True)
class Probe:
    """One step of finding out whether a configuration works, for `keyside provider check`."""

    title: str  # `credentials`, `key-encryption key`, `permission to unwrap`
    call: Callable[[], Awaitable[str]]  # answers with a line for people, or raises ProviderError: what to do


class Provider(ABC):
    """One place that holds key-encryption keys. Used from one event loop; safe for concurrent tasks of it."""

    name: ClassVar[str]
    health_is_free: ClassVar[bool] = False  # whether a health check costs neither money nor a call to another machine
    capabilities: Capability
    lacks: Mapping[Capability, str]

    @abstractmethod
    async def initialize(self) -> None:
        """Open connections and find the key-encryption key. Does nothing when that is done.

        Raises ProviderError. After a failure it may be called again; wrapping and unwrapping try it by themselves.
        """

    @abstractmethod
    async def health_check(self) -> Health:
        """Say how the back end is. Problems of the back end are in the answer, not raised."""

    @abstractmethod
    async def wrap_key(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        """Encrypt a data key of 32 bytes and bind it to `context`. `key` stays the caller's. Raises ProviderError."""

    @abstractmethod
    async def unwrap_key(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        """Return the 32 bytes of a data key; the caller wipes them.

        Raises Tampered for changed bytes or another context, ForeignWrap for another provider's wrap, NotFound for an
        unknown key-encryption key, KeyDisabled, Denied, CredentialsInvalid, or a RetryableError once retries are spent.
        """

    @abstractmethod
    def describe(self) -> Description:
        """Return what this provider is, without asking the back end."""

    def probes(self) -> Sequence[Probe]:
        """The steps, in order, that show what a configuration lacks. They change nothing in the back end."""
        return ()

    def pool_usage(self) -> PoolUsage | None:
        """How busy the connections to the back end are; None when there is nothing to connect to."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Wipe keys and end connections. May be called again; every other operation then raises Closed."""

    @final
    def capability(self, interface: Callable[..., Interface]) -> Interface | None:
        """Return this provider as `interface` (a class of `providers.capabilities`), or None when it is not offered.

        Typed as a callable because type checkers refuse abstract classes for `type[Interface]`.
        """
        offered = any(
            wanted is interface and flag in self.capabilities and isinstance(self, wanted)
            for flag, wanted in INTERFACES.items()
        )
        return cast("Interface", self) if offered else None

    @final
    async def export_key(self, key: str | None = None) -> NoReturn:
        """Refuse. No key leaves a back end: to move data to another one, rewrap the data keys under both."""
        raise ExportRefused(
            f"{self.name} never exports {key or 'a key-encryption key'}: to move to another back end, "
            "wrap the data keys under both"
        )
