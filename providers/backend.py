"""What all back ends share: life cycle, checks of arguments and results, bounded calls.

A back end subclasses Backend and fills in the abstract methods whose names start with an underscore; those that are
coroutines speak to the back end once, and turn what goes wrong into the errors of `providers.errors`.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar, final

from providers.bounded import BoundedCalls
from providers.capabilities import AuditRecord
from providers.errors import Closed, CredentialsInvalid, ForeignWrap, InputRefused, ProviderError, Tampered
from providers.interface import DATA_KEY_BYTES, Description, Health, HealthStatus, Probe, Provider, WrappedKey
from providers.journal import Journal
from providers.options import HsmOptions
from providers.refused import Refused
from providers.secrets import fingerprint
from providers.wiping import wipe
from providers.wrap_context import WrapContext

Result = TypeVar("Result")


class Backend(Provider):
    """Base of every provider."""

    def __init__(self, options: HsmOptions, base: Path) -> None:
        """`base`: the folder that relative paths in `options` are relative to."""
        self.__options = options
        self.__base = base
        self._calls = BoundedCalls(self.name, options.performance)
        self._journal = Journal(self.name)
        self._opening = asyncio.Lock()
        self._opened = False
        self._closed = False
        self._generation = 0  # how often it was opened
        self._used = ""  # fingerprint of the credentials that it was opened with
        self._refused = Refused()

    @abstractmethod
    async def _open(self) -> None:
        """Connect and find the key-encryption key; leave nothing half open when it raises.

        Called again after `_invalidate`, while calls that began before may still run on what it made the last time.
        """

    @abstractmethod
    async def _check(self) -> tuple[HealthStatus, str]:
        """Ask the open back end how it is."""

    @abstractmethod
    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey: ...

    @abstractmethod
    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray: ...

    @abstractmethod
    async def _close(self) -> None:
        """Wipe and disconnect. Called once, whether or not `_open` succeeded."""

    @abstractmethod
    def _wraps_with(self) -> tuple[str | None, str]:
        """The key-encryption key in use, None until it is known, and the mechanism."""

    @final
    def describe(self) -> Description:
        """Return what this provider is, without asking the back end."""
        kek, mechanism = self._wraps_with()
        performance = self.__options.performance
        return Description(
            provider=self.name,
            kek=kek,
            mechanism=mechanism,
            capabilities=self.capabilities,
            lacks=self.lacks,
            options=self.__options.model_dump(
                mode="json", by_alias=True, exclude_unset=True, exclude={"credentials": {"data"}}
            ),
            concurrent_calls=performance.connection_pool_size,
            timeout_seconds=performance.request_timeout / 1000,
        )

    def probes(self) -> Sequence[Probe]:
        return [Probe("open", self._opens)]

    @final
    async def initialize(self) -> None:
        await self.bounded("initialize", _nothing)

    @final
    async def health_check(self) -> Health:
        started = time.monotonic()
        try:
            status, detail = await self.bounded("health_check", self._check)
        except ProviderError as error:
            status, detail = HealthStatus.DOWN, str(error)
        return Health(status, detail, time.monotonic() - started)

    @final
    async def wrap_key(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        if len(key) != DATA_KEY_BYTES:
            raise InputRefused(f"a data key has {DATA_KEY_BYTES} bytes")
        return await self.bounded("wrap_key", lambda: self._wrap(key, context))

    @final
    async def unwrap_key(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        if wrapped.provider != self.name:
            raise ForeignWrap(
                f"this data key was wrapped by {wrapped.provider!r} and {self.name} cannot unwrap it: "
                "configure the provider that wrapped it"
            )
        key = await self.bounded("unwrap_key", lambda: self._unwrap(wrapped, context))
        if len(key) != DATA_KEY_BYTES:
            wipe(key)
            raise Tampered(f"{self.name} unwrapped something that is not a data key of {DATA_KEY_BYTES} bytes")
        return key

    @final
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        async with (
            self._opening
        ):  # an opening that is under way finishes first, so that nothing it makes is left behind
            await self._close()

    @final
    async def bounded(self, operation: str, call: Callable[[], Awaitable[Result]], making: str | None = None) -> Result:
        """Run one operation on the open back end, opening it first where needed, within the time and retry policy.

        `making`: the key that it makes, which is named when the time is over.
        """
        started = time.monotonic()
        outcome: BaseException | None = None
        try:
            return await self._calls.run(operation, lambda: self._on_open(call), making)
        except BaseException as error:
            outcome = error
            raise
        finally:
            self._journal.record(operation, outcome, time.monotonic() - started)

    @final
    def recorded(self, since: datetime, until: datetime, limit: int) -> list[AuditRecord]:
        """What this process recorded of its own calls; for back ends whose service gives no log."""
        return self._journal.between(since, until, limit)

    @final
    def _invalidate(self) -> None:
        """Open anew before the next operation: connections or credentials are of no use any more."""
        self._opened = False

    async def _opens(self) -> str:
        await self.initialize()
        return f"key-encryption key {self.describe().kek}"

    async def _on_open(self, call: Callable[[], Awaitable[Result]]) -> Result:
        if not self._opened:
            async with self._opening:
                if not (self._opened or self._closed):
                    await self._open_with_good_credentials()
                    self._opened = True
        if self._closed:
            raise Closed(f"{self.name} was closed: make a new provider")
        before, used = self._generation, self._used
        try:
            return await call()
        except CredentialsInvalid as error:
            if self._generation == before:  # else somebody has opened with others meanwhile
                self._invalidate()
                self._refused.note(used, error)
            raise

    async def _open_with_good_credentials(self) -> None:
        """Open; credentials that were refused a moment ago are not sent again, or every miss would send them."""
        using = fingerprint(self.__options, self.__base)
        self._refused.check(using)
        try:
            await self._open()
        except CredentialsInvalid as error:
            self._refused.note(using, error)
            raise
        # together, and last: calls that fail meanwhile were made with the ones before
        self._used = using
        self._generation += 1


async def _nothing() -> None:
    """Opening is the whole of `initialize`."""
