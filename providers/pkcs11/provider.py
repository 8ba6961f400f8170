"""LUNA_HSM and THALES_HSM: the key-encryption key lives in a PKCS #11 token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from providers.backend import Backend
from providers.capabilities import (
    MAX_PLAINTEXT_BYTES,
    AuditRecord,
    Capability,
    Ciphertext,
    ComplianceInfo,
    DeletesKeys,
    Encrypts,
    GeneratesKeys,
    ImportsKeys,
    KeepsAuditLogs,
    KeepsSessions,
    KeyReference,
    KeySpecification,
    ReportsCompliance,
    Session,
    Signature,
    Signs,
)
from providers.errors import InputRefused, NotFound, ProviderError
from providers.interface import HealthStatus, Probe, WrappedKey
from providers.pkcs11.material import Material
from providers.pkcs11.names import KeyName, canonical
from providers.pkcs11.options import Pkcs11Options
from providers.pkcs11.vendors import Mechanism
from providers.pkcs11.workers import Seat, Workers
from providers.pool import PoolUsage
from providers.sdk import sdk_missing
from providers.wiping import wipe
from providers.wrap_context import WrapContext

if TYPE_CHECKING:
    from providers.pkcs11.device import Device, Held
    from providers.pkcs11.opening import Opening

T = TypeVar("T")

CLOSING_SECONDS: Final = 2.0
_VALUES: Final = b"KSV\x01"
"""In front of the associated data of direct encryption, so that what it makes is never taken for a wrap (`KSW`)."""


class Pkcs11Provider(
    Backend,
    Encrypts,
    GeneratesKeys,
    ImportsKeys,
    DeletesKeys,
    Signs,
    KeepsSessions,
    KeepsAuditLogs,
    ReportsCompliance,
):
    """One token of one library. Calls run on threads of their own, each with its session."""

    health_is_free = False
    capabilities: Capability = ~Capability(0)
    lacks: Mapping[Capability, str] = {}

    def __init__(self, options: Pkcs11Options, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._base = base
        self._workers: Workers[Held] = Workers(self.name, options.performance.connection_pool_size, _discard, _retire)
        self._opener: Opening | None = None
        self._device: Device | None = None
        self._under_way: asyncio.Task[Device] | None = None
        self._held_sessions: dict[str, tuple[Device, Any]] = {}

    async def _open(self) -> None:
        # an opening may take longer than one caller has time: it goes on, and the next caller finds it further on
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._workers.run(self._open_device))
            self._under_way.add_done_callback(_retrieved)
        self._device = await asyncio.shield(self._under_way)

    def _open_device(self, _: Seat[Held]) -> Device:
        return self._opens_with().open()

    def _opens_with(self) -> Opening:
        if self._opener is None:
            try:
                from providers.pkcs11.opening import Opening
            except ImportError as error:
                raise sdk_missing(self.name, "pkcs11", error) from error
            self._opener = Opening(self._options, self._base)
        return self._opener

    async def _check(self) -> tuple[HealthStatus, str]:
        def check(device: Device, held: Held) -> str:
            device.check(held)
            return f"token {device.token.label!r}, key {device.kek}, {device.sealing.name}"

        return HealthStatus.OK, await self.on_session(check)

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        def wrap(device: Device, held: Held) -> WrappedKey:
            blob = device.seal(held, device.kek, key, associated)
            return WrappedKey(self.name, device.kek, device.sealing.name, blob)

        associated = context.authenticated()
        return await self.on_session(wrap)

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        name = KeyName.parse(wrapped.kek)
        if not self._options.unwraps(name):
            # whoever may encrypt under another key of the token, and write the keystore, would choose our data keys
            raise NotFound(
                f"this was wrapped under {str(name)!r}, which is neither a key of hsm.kek's label nor one of "
                "hsm.retiredKeks: name it there if it is yours"
            )
        associated = context.authenticated()
        return await self.on_session(
            lambda device, held: device.open(held, str(name), wrapped.mechanism, wrapped.blob, associated)
        )

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes inside the token. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")

        def call(device: Device, held: Held) -> Ciphertext:
            name = canonical(key) if key else device.kek
            return Ciphertext(name, device.sealing.name, device.seal(held, name, plaintext, _VALUES + associated_data))

        return await self.bounded("encrypt", lambda: self.on_session(call))

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""

        def call(device: Device, held: Held) -> bytearray:
            name = canonical(ciphertext.kek)
            return device.open(held, name, ciphertext.mechanism, ciphertext.blob, _VALUES + associated_data)

        return await self.bounded("decrypt", lambda: self.on_session(call))

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make a key that never leaves: `AES-256` for wrapping, `EC-P256` or `EC-P384` for signing."""

        def make(session: Any, mechanism: Mechanism) -> str:
            from providers.pkcs11 import keys

            if specification.use == "sign":
                return keys.generate_signing_key(session, specification.label, specification.algorithm)
            return keys.generate_wrapping_key(session, specification.label, mechanism)

        if specification.use == "wrap":
            _require_aes(specification)
        return await self._made("generate_key", specification, make)

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in the 32 bytes of an AES-256 key, encrypted to a key that the token makes for it."""

        def bring(session: Any, mechanism: Mechanism) -> str:
            from providers.pkcs11 import keys

            with own.in_use() as secret:
                return keys.import_wrapping_key(session, specification.label, mechanism, secret)

        own = Material(material)
        try:
            if specification.use != "wrap":
                raise InputRefused("keys for wrapping can be brought in: make signing keys in the token")
            _require_aes(specification)
            return await self._made("import_key", specification, bring)
        finally:
            wipe(material)
            own.give_up()

    async def delete_key(self, key: str) -> None:
        """Destroy a key at once and for good; those in use and retired are refused. Raises NotFound, InputRefused."""

        def destroy(device: Device, session: Any) -> None:
            from providers.pkcs11 import keys

            name = KeyName.parse(key)
            if self._options.is_retired(name):
                raise InputRefused(f"data keys are wrapped under {name}: without it their data is lost")
            device.guard(session, name)
            keys.destroy(session, name)

        await self.bounded("delete_key", lambda: self._writing(destroy))

    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign by ECDSA; the signature is in DER. Raises NotFound, KeyDisabled."""

        def call(_: Device, held: Held) -> Signature:
            from providers.pkcs11.signing import sign

            return sign(held.session, canonical(key), data)

        return await self.bounded("sign", lambda: self.on_session(call))

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Return when the token finds the signature good. Raises Tampered, NotFound."""

        def call(_: Device, held: Held) -> None:
            from providers.pkcs11.signing import verify

            verify(held.session, data, signature)

        await self.bounded("verify", lambda: self.on_session(call))

    async def create_session(self) -> Session:
        """Open a session on the token beside the pool's. Raises Throttled when the token has no more."""

        def call(device: Device, _: Held) -> tuple[Device, Any]:
            return device, device.token.open()

        device, session = await self.bounded("create_session", lambda: self.on_session(call))
        handle = f"{device.generation}:{session.handle}"
        self._held_sessions[handle] = device, session
        return Session(handle, datetime.now(UTC))

    async def close_session(self, session: Session) -> None:
        """Close it. One that the token ended meanwhile is closed already."""
        if (held := self._held_sessions.pop(session.handle, None)) is None:
            return
        device, native = held

        def call(_: Device, __: Held) -> None:
            device.end_session(native)

        await self.bounded("close_session", lambda: self.on_session(call))

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """What this process asked of the token: PKCS #11 has no call that reads a token's own log."""
        return self.recorded(since, until, limit)

    async def get_compliance_info(self) -> ComplianceInfo:
        """What the token says of itself and of the key, and what it cannot say."""

        def call(device: Device, held: Held) -> ComplianceInfo:
            from providers.pkcs11.compliance import compliance

            return compliance(device, held)

        return await self.bounded("get_compliance_info", lambda: self.on_session(call))

    def probes(self) -> Sequence[Probe]:
        """The library; what is read before the token is spoken to; token, login, key and mechanism; permissions."""
        return [
            Probe("library", lambda: self._before_opening(lambda: self._opens_with().try_library())),
            Probe("credentials", lambda: self._before_opening(lambda: self._opens_with().try_credentials())),
            Probe("token, login and key", self._opens),
            Probe("permission to wrap and unwrap", self._permitted),
        ]

    async def _before_opening(self, call: Callable[[], str]) -> str:
        return await self._calls.run("probe", lambda: self._workers.run(lambda _: call()))

    async def _permitted(self) -> str:
        return (await self.bounded("check", self._check))[1]

    def _wraps_with(self) -> tuple[str | None, str]:
        if self._device is None:
            return None, self._options.mechanism
        return self._device.kek, self._device.sealing.name

    def pool_usage(self) -> PoolUsage:
        """Threads, each with a session: one that hangs in the token counts as active."""
        return self._workers.usage

    async def _close(self) -> None:
        self._workers.close()
        if self._opener is not None:
            # by a thread of its own, since all of the workers' may hang; what hangs is left to the process's end
            closer: Workers[None] = Workers(self.name, 1, _discard, _retire)
            parting = asyncio.create_task(closer.run(lambda _: self._part()))
            await asyncio.wait({parting}, timeout=CLOSING_SECONDS)
            closer.close()
        self._device = None

    def _part(self) -> None:
        assert self._opener is not None
        self._workers.join(CLOSING_SECONDS / 2)
        self._opener.close()

    async def on_session(self, call: Callable[[Device, Held], T]) -> T:
        device = self._in_use()
        try:
            return await self._workers.run(lambda seat: device.serve(seat, lambda held: call(device, held)))
        except ProviderError:
            self._reopen_if_broken(device)
            raise

    async def _writing(self, call: Callable[[Device, Any], T]) -> T:
        device = self._in_use()
        try:
            return await self._workers.run(lambda _: device.write(lambda session: call(device, session)))
        except ProviderError:
            self._reopen_if_broken(device)
            raise

    async def _made(
        self, operation: str, specification: KeySpecification, make: Callable[[Any, Mechanism], str]
    ) -> KeyReference:
        def call(device: Device, session: Any) -> str:
            return make(session, device.sealing.name)

        def call_on_empty_token(_: Seat[Held]) -> str:
            assert self._opener is not None  # by the attempt to open
            return self._opener.make_first_key(make)

        doubtful = f"a key labelled {specification.label!r}"
        try:
            name = await self.bounded(operation, lambda: self._writing(call), doubtful)
        except NotFound:  # there is no key-encryption key to open the token with: this may be the one
            name = await self._calls.run(operation, lambda: self._workers.run(call_on_empty_token), doubtful)
        return KeyReference(name, specification.algorithm, datetime.now(UTC))

    def _reopen_if_broken(self, device: Device) -> None:
        if device.broken and self._device is device:
            self._invalidate()

    def _in_use(self) -> Device:
        assert self._device is not None  # operations run on an open back end
        return self._device


class LunaProvider(Pkcs11Provider):
    """Thales Luna: Network, PCIe and USB HSMs, partitions of them and HA groups."""

    name: ClassVar[str] = "LUNA_HSM"


class ThalesProvider(Pkcs11Provider):
    """Thales ProtectServer and other HSMs with a PKCS #11 library."""

    name: ClassVar[str] = "THALES_HSM"


def _require_aes(specification: KeySpecification) -> None:
    if specification.algorithm != "AES-256":
        raise InputRefused(f"a token wraps with AES-256 here, not {specification.algorithm!r}")


def _discard(result: object) -> None:
    if isinstance(result, bytearray):
        wipe(result)


def _retire(seat: Seat[Any]) -> None:
    if seat.holding is not None:
        seat.holding.retire(seat)


def _retrieved(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # said by whoever waited; with nobody waiting, the next opening says it again
