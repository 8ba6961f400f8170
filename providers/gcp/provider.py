"""GCP_KMS: the key-encryption key is a CryptoKey of Google Cloud KMS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

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
    KeyReference,
    KeySpecification,
    ReportsCompliance,
    Signature,
    Signs,
)
from providers.errors import Denied, ForeignWrap, InputRefused, KeyDisabled, NotFound
from providers.gcp import names
from providers.gcp.options import GcpOptions
from providers.interface import HealthStatus, Probe, WrappedKey
from providers.pool import PoolUsage
from providers.sdk import sdk_missing
from providers.wiping import wipe
from providers.wrap_context import WrapContext

if TYPE_CHECKING:
    from providers.gcp.lifecycle import KeyLifecycle
    from providers.gcp.service import CloudKms
    from providers.gcp.signing import Signing

_log = logging.getLogger(__name__)

MECHANISM: Final = "GOOGLE_SYMMETRIC_ENCRYPTION"  # AES-256-GCM, by the service's own name
_VALUE: Final = b"KSV\x01"  # in front of a value's associated data; a wrap's begins with KSW (docs/spec/wrap.md)
_PROBE: Final = b"keyside"


class GcpProvider(Backend, GeneratesKeys, ImportsKeys, DeletesKeys, Encrypts, Signs, KeepsAuditLogs, ReportsCompliance):
    """Wraps by Encrypt and unwraps by Decrypt, the context being additional authenticated data."""

    name: ClassVar[str] = "GCP_KMS"
    capabilities: Capability = ~Capability.SESSIONS
    lacks: Mapping[Capability, str] = {
        Capability.SESSIONS: "Cloud KMS has no sessions: each call carries an access token of its own",
    }

    def __init__(self, options: GcpOptions, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._base = base
        self._service: CloudKms | None = None
        self._ring = ""
        self._key = ""
        self._unwraps: frozenset[str] = frozenset()
        self._kek: str | None = None
        self._signing: Signing | None = None

    async def _open(self) -> None:
        service = await self._connect()
        try:
            await self._find_key(service)
        except BaseException:
            await service.close()
            raise
        former, self._service = self._service, service
        self._signing = None
        if former is not None:
            await former.close()

    async def _connect(self) -> CloudKms:
        try:
            module = await asyncio.to_thread(import_module, "providers.gcp.service")
        except ImportError as error:
            raise sdk_missing(self.name, "gcp", error) from error
        service: CloudKms = await asyncio.to_thread(module.CloudKms, self._options, self._base)
        return service

    async def _find_key(self, service: CloudKms) -> None:
        """Name the key, and learn its primary version by encrypting with it: that needs no further permission."""
        project = (await service.identity()).project
        self._ring = self._named_ring(project)
        self._key = names.crypto_key(self._options.kek, self._ring)
        self._unwraps = frozenset(
            {self._key, *(names.crypto_key(name, self._ring) for name in self._options.retired_keks)}
        )
        try:
            self._kek, _ = await service.encrypt(self._key, _PROBE, _VALUE + _PROBE)
        except (KeyDisabled, Denied) as error:
            if not await self._may_unwrap(service):
                raise
            self._kek = self._key
            _log.warning("GCP_KMS: unwraps, but cannot wrap: %s", error)

    async def _may_unwrap(self, service: CloudKms) -> bool:
        return names.DECRYPT in await service.permissions(self._key, names.DECRYPT)

    def _named_ring(self, project: str | None) -> str:
        options = self._options
        if names.is_full(options.kek):
            return names.ring_of(options.kek)
        return names.key_ring(options.project or project, options.location, options.ring)

    async def _check(self) -> tuple[HealthStatus, str]:
        """Ask IAM, which is free of charge; look at the key itself where that is permitted."""
        service, key = self._open_service(), self._key
        granted = await service.permissions(key, names.ENCRYPT, names.DECRYPT, names.GET_KEY)
        if names.DECRYPT not in granted:
            return HealthStatus.DOWN, (
                f"there is no key {key}, or the caller may not decrypt with it: "
                "grant roles/cloudkms.cryptoKeyEncrypterDecrypter on it"
            )
        if names.ENCRYPT not in granted:
            return HealthStatus.DEGRADED, (
                f"unwraps, but no new data key can be wrapped: grant {names.ENCRYPT} on {key} to the caller"
            )
        if names.GET_KEY in granted and (state := await service.primary_state(key)) != "ENABLED":
            return HealthStatus.DEGRADED, (
                f"no new data key can be wrapped: the primary version of {key} is {state}; enable it, or make another "
                "version primary"
            )
        return HealthStatus.OK, f"key {key}"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        version, blob = await self._open_service().encrypt(self._key, key, context.authenticated())
        self._kek = version
        return WrappedKey(self.name, version, MECHANISM, blob)

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        if wrapped.mechanism != MECHANISM:
            raise ForeignWrap(f"GCP_KMS knows no mechanism {wrapped.mechanism!r}: this wrap was made by something else")
        key = wrapped.kek.partition("/cryptoKeyVersions/")[0]
        # whoever can write the keystore could otherwise name a key of their own, and a data key that they know
        if key not in self._unwraps:
            raise NotFound(
                f"this data key was wrapped under {wrapped.kek!r}, which is neither hsm.kek nor one of "
                "hsm.retiredKeks: name it there if it is yours"
            )
        return await self._open_service().decrypt(key, wrapped.blob, context.authenticated())

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")

        async def call() -> Ciphertext:
            name = self._key if key is None else names.crypto_key(key, self._ring)
            version, blob = await self._open_service().encrypt(name, plaintext, _VALUE + associated_data)
            return Ciphertext(version, MECHANISM, blob)

        return await self.bounded("encrypt", call)

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""
        if ciphertext.mechanism != MECHANISM:
            raise ForeignWrap(f"GCP_KMS encrypts with {MECHANISM} alone: this came from elsewhere")

        async def call() -> bytearray:
            name = names.crypto_key(ciphertext.kek, self._ring)
            return await self._open_service().decrypt(name, ciphertext.blob, _VALUE + associated_data)

        return await self.bounded("decrypt", call)

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make a key in the configured key ring, of hsm.protectionLevel. Raises InputRefused, Denied."""
        return await (await self._lifecycle()).generate(specification)

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in 32 bytes (to wrap), or a P-256 key as PKCS #8 DER (to sign); `material` is wiped in any case."""
        try:
            return await (await self._lifecycle()).bring_in(specification, material)
        finally:
            wipe(material)

    async def delete_key(self, key: str) -> None:
        """Schedule the destruction of a version, or of all of a key's; until then it can be restored there."""
        await (await self._lifecycle()).destroy(key)

    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign SHA-256 of `data` with the version `key`. Raises NotFound, KeyDisabled, InputRefused."""

        async def call() -> Signature:
            return await self._signs().sign(data, names.key_version(key, self._ring))

        return await self.bounded("sign", call)

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Verify here, with the version's public key. Raises Tampered, ForeignWrap, NotFound."""

        async def call() -> None:
            await self._signs().verify(data, signature)

        await self.bounded("verify", call)

    async def get_compliance_info(self) -> ComplianceInfo:
        """Return what the service says of the key. Raises Denied without roles/cloudkms.viewer on it."""
        from providers.gcp.claims import compliance  # with the SDK, as all that speaks to the service

        return await self.bounded("get_compliance_info", lambda: compliance(self._open_service(), self._key, MECHANISM))

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """Return what this process recorded; the service's own are in Cloud Logging, which is another service."""
        return self.recorded(since, until, limit)

    def _wraps_with(self) -> tuple[str | None, str]:
        return self._kek, MECHANISM

    def probes(self) -> Sequence[Probe]:
        """Who we are, the key, and the permissions that serving needs."""
        return [
            Probe("credentials", self._who),
            Probe("key-encryption key", self._opens),
            Probe("permission to wrap", lambda: self._permitted(names.ENCRYPT)),
            Probe("permission to unwrap", lambda: self._permitted(names.DECRYPT)),
        ]

    def pool_usage(self) -> PoolUsage | None:
        """How busy the channels are; None before the first opening."""
        return None if self._service is None else self._service.usage

    async def _close(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            await service.close()

    async def _who(self) -> str:
        """Get an access token of its own, so that credentials are judged before the key is."""

        async def ask() -> str:
            service = await self._connect()
            try:
                issued = await service.identity()
            finally:
                await service.close()
            return issued.principal if issued.project is None else f"{issued.principal}, project {issued.project}"

        return await self._calls.run("credentials", ask)

    async def _permitted(self, permission: str) -> str:
        async def ask() -> str:
            if permission not in await self._open_service().permissions(self._key, permission):
                raise Denied(
                    f"the caller lacks {permission} on {self._key}: grant "
                    "roles/cloudkms.cryptoKeyEncrypterDecrypter on the key"
                )
            return permission

        return await self.bounded("test_iam_permissions", ask)

    async def _lifecycle(self) -> KeyLifecycle:
        await self.initialize()
        from providers.gcp.lifecycle import KeyLifecycle

        return KeyLifecycle(
            self._open_service(), self._ring, self._options, self.bounded, self._unwraps | {self._kek or ""}
        )

    def _signs(self) -> Signing:
        if self._signing is None:
            from providers.gcp.signing import Signing

            self._signing = Signing(self._open_service())
        return self._signing

    def _open_service(self) -> CloudKms:
        assert self._service is not None  # operations run on an open back end
        return self._service
