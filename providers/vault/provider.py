"""VAULT_TRANSIT: the key-encryption key lives in the transit engine of Vault or OpenBao."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final, TypeVar

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
from providers.errors import ConfigurationInvalid, Denied, InputRefused, KeyDisabled, NotFound, Problem, Tampered
from providers.interface import DATA_KEY_BYTES, HealthStatus, Probe, WrappedKey
from providers.options import SECTION
from providers.pool import PoolUsage
from providers.vault.answers import not_vault
from providers.vault.engine import Engine, creates, updates
from providers.vault.identity import Identity
from providers.vault.keys import Keys
from providers.vault.login import login_for
from providers.vault.options import VaultOptions, is_key_name
from providers.vault.server import Server
from providers.vault.transit import (
    AES_256_GCM,
    KEY_TYPE,
    OVERHEAD_BYTES,
    KeyVersion,
    TransitKey,
    require_mechanism,
)
from providers.wiping import wipe
from providers.wrap_context import WrapContext

Result = TypeVar("Result")

_VALUE: Final = b"KSV\x01"  # in front of a value's associated data; a wrap's begins with KSW (docs/spec/wrap.md)
_OTHER: Final = b"keyside:no wrap\x00"  # nothing that is wrapped has a context with this in front
_FIPS_BUILD: Final = re.compile(r"fips(140)([23])")

_log = logging.getLogger(__name__)


class VaultProvider(
    Backend, Encrypts, Signs, GeneratesKeys, ImportsKeys, DeletesKeys, KeepsAuditLogs, ReportsCompliance
):
    """Wraps by `encrypt` with the context as associated data; never by `rewrap`, which ignores it."""

    name: ClassVar[str] = "VAULT_TRANSIT"
    capabilities: Capability = (
        Capability.GENERATE_KEY
        | Capability.IMPORT_KEY
        | Capability.DELETE_KEY
        | Capability.ENCRYPT
        | Capability.SIGN
        | Capability.AUDIT_LOGS
        | Capability.COMPLIANCE_INFO
    )
    lacks: Mapping[Capability, str] = {
        Capability.SESSIONS: "the API has no sessions: every request stands alone, and carries a token that is renewed"
    }

    def __init__(self, options: VaultOptions, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._server = Server(options, base)
        login = login_for(options.credentials, self._server, base)
        self._identity = Identity(self._server, login, options.performance.request_timeout / 1000)
        self._engine = Engine(self._server, self._identity, options.mount)
        self._keys = Keys(self._engine)
        self._kek: str | None = None
        self._binds = False  # whether the server has been seen to hold a wrap to its context

    # the core

    async def _open(self) -> None:
        key = await self._found()
        for warning in key.warnings:
            _log.warning("VAULT_TRANSIT: %s/%s: %s", self._options.mount, key.name, warning)
        _log.info("VAULT_TRANSIT: key %s", self._kek)

    async def _found(self) -> TransitKey:
        """The key-encryption key, fit for use. Reading comes first: encrypting to a key that is not there makes it."""
        key = await self._engine.read_key(self._options.kek)
        path = f"{self._options.mount}/keys/{key.name}"
        if key.type != KEY_TYPE or key.derived:
            kind = f"{key.type}, derived" if key.derived else key.type
            raise ConfigurationInvalid(
                [Problem(f"{SECTION}.kek", f"{path} is of type {kind}: name a key of type {KEY_TYPE}, not derived")]
            )
        if key.soft_deleted:
            raise KeyDisabled(f"{path} is soft-deleted: restore it (bao write -f {path}/soft-delete-restore)")
        self._kek = str(KeyVersion(self._options.mount, key.name, key.latest))
        return key

    async def _check(self) -> tuple[HealthStatus, str]:
        version = await self._engine.server_version()
        key = await self._found()
        try:
            encrypting, decrypting = await self._engine.capabilities(key.name)
        except Denied as error:
            return HealthStatus.DEGRADED, f"serving, but a lost permission would not be noticed: {error}"
        if not updates(decrypting):
            raise Denied(self._grant("decrypt"))
        if not updates(encrypting):
            return HealthStatus.DEGRADED, f"unwrapping, but no data key can be made: {self._grant('encrypt')}"
        return HealthStatus.OK, f"{self._kek}, server {version}"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        version, blob = await self._engine.encrypt(self._options.kek, key, context.authenticated())
        if len(blob) != DATA_KEY_BYTES + OVERHEAD_BYTES:
            raise not_vault(f"wrapping under {version}")
        if not self._binds:
            await self._see_it_bind(version, blob, context)
        self._kek = str(version)
        return WrappedKey(self.name, self._kek, AES_256_GCM, blob)

    async def _see_it_bind(self, version: KeyVersion, blob: bytes, context: WrapContext) -> None:
        """Raise InputRefused when a wrap opens without its context: releases before 1.13 ignore `associated_data`."""
        try:
            wipe(await self._engine.decrypt(version, blob, _OTHER + context.authenticated()))
        except Tampered:
            self._binds = True
            return
        raise InputRefused(
            f"{self._options.connection.endpoint} ignores associated_data, so anybody could swap data keys: "
            "Vault 1.13 or newer, or OpenBao, is needed"
        )

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        require_mechanism(wrapped.mechanism)
        key = KeyVersion.parse(wrapped.kek, self._options.mount)
        if key is None or key.key not in (self._options.kek, *self._options.retired_keks):
            raise NotFound(
                f"this was wrapped under {wrapped.kek!r} and the key in use is {self._kek}: name its key in "
                "hsm.retiredKeks, or correct hsm.mount"
            )
        if len(wrapped.blob) != DATA_KEY_BYTES + OVERHEAD_BYTES:
            raise Tampered(
                f"a data key wrapped by {self.name} has {DATA_KEY_BYTES + OVERHEAD_BYTES} bytes, this has "
                f"{len(wrapped.blob)}: restore that keystore row from a backup"
            )
        return await self._engine.decrypt(key, wrapped.blob, context.authenticated())

    async def _close(self) -> None:
        await self._identity.close()
        await self._server.close()

    # the rest

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")

        async def call() -> Ciphertext:
            name = self._named(key)
            if name != self._options.kek:
                await self._engine.read_key(name)  # encrypting to a key that is not there would make it
            version, blob = await self._engine.encrypt(name, plaintext, _VALUE + associated_data)
            return Ciphertext(str(version), AES_256_GCM, blob)

        return await self.bounded("encrypt", call)

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""
        require_mechanism(ciphertext.mechanism)

        async def call() -> bytearray:
            if len(ciphertext.blob) < OVERHEAD_BYTES:
                raise Tampered(f"what {self.name} encrypted has at least {OVERHEAD_BYTES} bytes: this was cut short")
            return await self._engine.decrypt(self._version(ciphertext.kek), ciphertext.blob, _VALUE + associated_data)

        return await self.bounded("decrypt", call)

    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign with the key's latest version: ECDSA over SHA-2 in DER, or Ed25519. Raises NotFound, InputRefused."""
        return await self.bounded("sign", lambda: self._keys.sign(self._named(key), data))

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Return when `signature` is good. Raises Tampered, NotFound, ForeignWrap."""
        await self.bounded("verify", lambda: self._keys.verify(self._version(signature.key), data, signature))

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make a key that cannot be exported: `AES-256`, `EC-P256`, `EC-P384`, `ED25519`. Raises InputRefused."""
        making = self._doubtful(specification)
        return await self.bounded("generate_key", lambda: self._keys.generate(specification), making)

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in 32 bytes of AES-256, or a private key as PKCS#8 DER; wiped in any case. Raises InputRefused."""
        making = self._doubtful(specification)
        try:
            return await self.bounded("import_key", lambda: self._keys.bring_in(specification, material), making)
        finally:
            wipe(material)

    async def delete_key(self, key: str) -> None:
        """Soft-delete a key (OpenBao), or delete it where `deletion_allowed` is set. Raises NotFound, Denied.

        Refuses the keys that data keys are wrapped under.
        """
        name = self._named(key)
        if name in (self._options.kek, *self._options.retired_keks):
            raise InputRefused(f"data keys are wrapped under {name}: without it their data is lost")
        await self.bounded("delete_key", lambda: self._keys.delete(name))

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """What this process asked for: the server's own audit devices have no API to read them."""
        return self.recorded(since, until, limit)

    async def get_compliance_info(self) -> ComplianceInfo:
        """What the server says of the key and of itself."""
        return await self.bounded("get_compliance_info", self._compliance)

    async def _compliance(self) -> ComplianceInfo:
        version, key = await self._engine.server_version(), await self._found()
        fips = _FIPS_BUILD.search(version)
        notes = [
            f"type {key.type}, {'imported' if key.imported else 'made by the server'}, version {key.latest}, usable "
            f"from version {key.oldest_usable}",
            f"rotates every {key.rotates_every}" if key.rotates_every else "rotated by hand",
            f"deletion {'allowed' if key.deletable else 'not allowed'}",
            *key.warnings,
        ]
        return ComplianceInfo(
            key_storage=f"transit engine of server {version}: its barrier is encrypted under the server's seal",
            validated_to=f"FIPS 140-{fips[2]} level 1, by the name of the server's build" if fips else None,
            extractable=key.exportable or key.plaintext_backup,
            mechanisms=(AES_256_GCM,),
            notes=tuple(notes),
        )

    # what it says of itself

    def _wraps_with(self) -> tuple[str | None, str]:
        return self._kek, AES_256_GCM

    def pool_usage(self) -> PoolUsage:
        return self._server.usage

    def probes(self) -> Sequence[Probe]:
        return (
            Probe("server", self._within(self._probe_server)),
            Probe("credentials", self._within(self._engine.who)),
            Probe("key-encryption key", self._within(self._probe_key)),
            Probe("permission to encrypt and decrypt", self._within(self._probe_permissions)),
        )

    def _within(self, call: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        """Bounded and not opened first: each step says what it misses itself."""
        return lambda: self._calls.run("probe", call)

    async def _probe_server(self) -> str:
        return f"{self._options.connection.endpoint}, release {await self._engine.server_version()}, unsealed"

    async def _probe_key(self) -> str:
        key = await self._found()
        return "; ".join([f"{self._kek}, {key.type}", *(f"warning: {warning}" for warning in key.warnings)])

    async def _probe_permissions(self) -> str:
        encrypting, decrypting = await self._engine.capabilities(self._options.kek)
        for operation, granted in (("encrypt", encrypting), ("decrypt", decrypting)):
            if not updates(granted):
                raise Denied(self._grant(operation))
        if creates(encrypting):
            return "both; warning: the token may also create keys by encrypting: grant `update` alone"
        return "both, and to make no key by encrypting"

    def _grant(self, operation: str) -> str:
        path = f"{self._options.mount}/{operation}/{self._options.kek}"
        return f'the token may not {operation}: grant `update` on "{path}" in its policy'

    def _doubtful(self, specification: KeySpecification) -> str:
        return f"{self._options.mount}/keys/{specification.label}"

    def _named(self, key: str | None) -> str:
        """The name of a key that a caller means: as in a KeyReference, or bare. Raises NotFound."""
        if key is None:
            return self._options.kek
        version = KeyVersion.parse(key, self._options.mount)
        name = version.key if version is not None else key
        if not is_key_name(name):
            raise NotFound(f"{self._options.mount} can have no key of the name {key!r}")
        return name

    def _version(self, name: str) -> KeyVersion:
        if (version := KeyVersion.parse(name, self._options.mount)) is None:
            raise NotFound(f"{name!r} is no key version of the mount {self._options.mount}: see hsm.mount")
        return version
