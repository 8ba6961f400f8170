"""AZURE_KEY_VAULT: the key-encryption key lives in a Key Vault or a Managed HSM."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from providers.azure.names import KeyName
from providers.azure.options import AzureOptions
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
from providers.errors import (
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
)
from providers.interface import HealthStatus, Probe, WrappedKey
from providers.pool import PoolUsage
from providers.sdk import sdk_missing
from providers.wiping import wipe
from providers.wrap_context import WrapContext

if TYPE_CHECKING:
    from providers.azure.service import Service

Answer = TypeVar("Answer")

_SESSIONLESS: Final = "the service is spoken to over HTTPS: every request stands alone"


class AzureKeyVaultProvider(
    Backend, Encrypts, Signs, GeneratesKeys, ImportsKeys, DeletesKeys, KeepsAuditLogs, ReportsCompliance
):
    """Wraps, unwraps and signs inside the service; nothing is ever done with a local copy of a key.

    Keys are named by a name, by `name/version`, or by the whole URL.
    """

    name: ClassVar[str] = "AZURE_KEY_VAULT"
    capabilities: Capability = ~Capability.SESSIONS
    lacks: Mapping[Capability, str] = {Capability.SESSIONS: _SESSIONLESS}

    def __init__(self, options: AzureOptions, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._base = base
        self._service: Service | None = None

    async def _open(self) -> None:
        connecting = await asyncio.to_thread(_loaded, "service")
        fresh: Service = await connecting.connect(self._options, self._base)
        before, self._service = self._service, fresh
        if before is not None:
            await before.close()

    async def _close(self) -> None:
        if self._service is not None:
            await self._service.close()
            self._service = None

    async def _check(self) -> tuple[HealthStatus, str]:
        return await self._ask(lambda service: service.check())

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        async def call(service: Service) -> WrappedKey:
            kek, mechanism = service.kek, service.mechanism
            try:
                blob = await service.wraps.seal(mechanism, kek, key, context.authenticated())
            except (KeyDisabled, NotFound):
                if not await service.find_keys():
                    raise
                kek = service.kek  # rotated, and the versions that we knew are not to be used any more
                blob = await service.wraps.seal(mechanism, kek, key, context.authenticated())
            return WrappedKey(self.name, str(kek), mechanism, blob)

        return await self._ask(call)

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        return await self._ask(lambda service: service.unwrap(wrapped.kek, wrapped.mechanism, wrapped.blob, context))

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes; docs/spec/wrap.md says how. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")

        async def call(service: Service) -> Ciphertext:
            kek, mechanism = service.kek, str(service.mechanism)
            if key is not None:
                found = await service.find(self._named(key))
                kek, mechanism = found.name, service.mechanism_of(found)
            values = _loaded("values")
            mechanism, blob = await values.encrypt(service.wraps, mechanism, kek, plaintext, associated_data)
            return Ciphertext(str(kek), mechanism, blob)

        return await self.bounded("encrypt", lambda: self._ask(call))

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""

        async def call(service: Service) -> bytearray:
            named, asked = service.at_this_vault(ciphertext.kek)
            plaintext: bytearray = await _loaded("values").decrypt(
                service.wraps, ciphertext.mechanism, named, asked, ciphertext.blob, associated_data
            )
            return plaintext

        return await self.bounded("decrypt", lambda: self._ask(call))

    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign by ECDSA or PSS, as the key's type says; the digest is sent. Raises NotFound, InputRefused."""

        async def call(service: Service) -> Signature:
            found = await service.find(self._named(key))
            signature: Signature = await _loaded("signing").sign(service.vault, found, data)
            return signature

        return await self.bounded("sign", lambda: self._ask(call))

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Let the service verify. Raises Tampered, ForeignWrap, NotFound."""

        async def call(service: Service) -> None:
            _, asked = service.at_this_vault(signature.key)
            await _loaded("signing").verify(service.vault, asked, data, signature)

        await self.bounded("verify", lambda: self._ask(call))

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make AES-256 (Managed HSM), RSA-2048 to -4096, EC-P256 to -P521, in the HSM. Raises InputRefused, Denied."""

        async def call(service: Service) -> KeyReference:
            made = await _loaded("administration").generate(service.vault, self._options, specification)
            return KeyReference(str(made.name), specification.algorithm, made.created)

        return await self.bounded("generate_key", lambda: self._ask(call), making=self._doubtful(specification))

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in an AES key as it is, RSA and EC as PKCS#8 DER, by the service's BYOK protocol; wipes `material`."""

        async def call(service: Service) -> KeyReference:
            made = await _loaded("administration").bring(service.vault, self._options, specification, material)
            return KeyReference(str(made.name), specification.algorithm, made.created)

        try:
            return await self.bounded("import_key", lambda: self._ask(call), making=self._doubtful(specification))
        finally:
            wipe(material)

    async def delete_key(self, key: str) -> None:
        """Delete all versions of a key. The service keeps them recoverable for a time: the log says until when.

        Raises InputRefused for one version, and for the keys that this configuration serves with.
        """

        async def call(service: Service) -> None:
            await _loaded("administration").delete(service.vault, self._options, self._named(key))

        await self.bounded("delete_key", lambda: self._ask(call))

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """What this process recorded; the service's own log is in Azure Monitor, which has an API of its own."""
        return self.recorded(since, until, limit)

    async def get_compliance_info(self) -> ComplianceInfo:
        """What the service says of the key-encryption key, now."""

        async def call(service: Service) -> ComplianceInfo:
            info: ComplianceInfo = await _loaded("claims").claims(service)
            return info

        return await self.bounded("get_compliance_info", lambda: self._ask(call))

    def probes(self) -> Sequence[Probe]:
        """Credentials, keys, and the permissions that serving needs."""
        return [
            Probe("credentials", self._credentials_accepted),
            Probe("key-encryption key", lambda: self.bounded("get", lambda: self._ask(_key_found))),
            Probe("permission to wrap", lambda: self.bounded("wrap_key", lambda: self._ask(_may_wrap))),
            Probe("permission to unwrap", lambda: self.bounded("unwrap_key", lambda: self._ask(_may_unwrap))),
        ]

    def pool_usage(self) -> PoolUsage | None:
        """How busy the HTTPS connections are."""
        if self._service is None:
            return PoolUsage(self._options.performance.connection_pool_size, 0, 0, 0)
        return self._service.vault.usage

    def _wraps_with(self) -> tuple[str | None, str]:
        return str(self._service.kek) if self._service else None, self._options.wraps_with

    async def _ask(self, call: Callable[[Service], Awaitable[Answer]]) -> Answer:
        service = self._service
        assert service is not None  # operations run on an open back end
        try:
            return await call(service)
        except CredentialsInvalid:
            if service is self._service:
                self._invalidate()  # secrets are read anew before the next operation
            raise

    async def _credentials_accepted(self) -> str:
        try:
            await self.initialize()
        except (NotFound, KeyDisabled, Denied, ConfigurationInvalid, InputRefused):
            return f"{self._options.vault} knows us"  # what is wrong is said by the next step
        return f"{self._options.vault} knows us"

    def _doubtful(self, specification: KeySpecification) -> str:
        return f"{self._options.vault}/keys/{specification.label}"

    def _named(self, key: str) -> KeyName:
        try:
            named = KeyName.parse(key, self._options.vault)
        except ValueError:
            raise NotFound(f"{key!r} is not the name of a key of Azure Key Vault") from None
        if named.vault != self._options.vault:
            raise NotFound(f"{key} is in another vault than {self._options.vault}")
        return named


async def _key_found(service: Service) -> str:
    found = await service.look()
    return f"{found.name}, {found.kty}, {found.validated_to or 'no FIPS level'}"


async def _may_wrap(service: Service) -> str:
    await service.wrap_probe()
    return f"{service.mechanism} with {service.kek}"


async def _may_unwrap(service: Service) -> str:
    await service.unwrap_probe()
    return f"{service.mechanism} with {service.kek}"


def _loaded(module: str) -> ModuleType:
    """A module of this package that needs the SDK. Raises ConfigurationInvalid where it is not installed."""
    try:
        return import_module(f"providers.azure.{module}")
    except ImportError as error:
        raise sdk_missing(AzureKeyVaultProvider.name, "azure", error) from error
