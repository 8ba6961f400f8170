"""LOCAL: the key-encryption key lives in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from providers.backend import Backend
from providers.capabilities import (
    MAX_PLAINTEXT_BYTES,
    Capability,
    Ciphertext,
    ComplianceInfo,
    Encrypts,
    ReportsCompliance,
)
from providers.errors import ForeignWrap, InputRefused, NotFound, ProviderError
from providers.interface import HealthStatus, WrappedKey
from providers.local.kek import AES_256_GCM, MECHANISMS, Kek
from providers.local.options import LocalOptions
from providers.local.sources import current_id, load_kek, load_retired
from providers.wrap_context import WrapContext

_log = logging.getLogger(__name__)

_ROOT_KEY_IS_A_FILE: Final = "the one key is the root key, made by `keyside init` and deleted by deleting its file"


class LocalProvider(Backend, Encrypts, ReportsCompliance):
    """Wraps with keys derived from one root key; unwraps with those of retired root keys too.

    Wrapping takes microseconds and is done on the event loop; reading files and scrypt are done on a thread.
    """

    name: ClassVar[str] = "LOCAL"
    health_is_free = True
    capabilities: Capability = Capability.ENCRYPT | Capability.COMPLIANCE_INFO
    lacks: Mapping[Capability, str] = {
        Capability.GENERATE_KEY: _ROOT_KEY_IS_A_FILE,
        Capability.IMPORT_KEY: _ROOT_KEY_IS_A_FILE,
        Capability.DELETE_KEY: _ROOT_KEY_IS_A_FILE,
        Capability.SIGN: "a signature by a key that lies in a file proves nothing about who made it",
        Capability.SESSIONS: "there is nothing to connect to",
        Capability.AUDIT_LOGS: "there is no second party that keeps a log of its own",
    }

    def __init__(self, options: LocalOptions, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._base = base
        self._keks: dict[str, Kek] = {}
        self._current: Kek | None = None

    async def _open(self) -> None:
        current, retired = await asyncio.to_thread(self._load)
        self._keks = {kek.id: kek for kek in (*retired, current)}
        self._current = current
        _log.info("LOCAL: root key %s, %d retired", current.id, len(self._keks) - 1)

    def _load(self) -> tuple[Kek, list[Kek]]:
        return load_kek(self._options, self._base), load_retired(self._options, self._base)

    async def _check(self) -> tuple[HealthStatus, str]:
        current = self._in_use()
        try:
            found = await asyncio.to_thread(current_id, self._options, self._base)
        except ProviderError as error:
            return HealthStatus.DEGRADED, f"serving with {current.id} from memory, but a restart would fail: {error}"
        if found != current.id:
            return HealthStatus.DEGRADED, (
                f"serving with {current.id}, but a restart would find {found}: restart, with the old root key's "
                "file in hsm.retiredKeyFiles, or restore it"
            )
        return HealthStatus.OK, f"root key {current.id}"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        kek, mechanism = self._in_use(), self._options.mechanism
        return WrappedKey(self.name, kek.id, mechanism, kek.wrap(mechanism, key, context.authenticated()))

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        return self._named(wrapped.kek).unwrap(wrapped.mechanism, wrapped.blob, context.authenticated())

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes under a key derived for this alone. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")

        async def call() -> Ciphertext:
            kek = self._in_use() if key is None else self._named(key)
            return Ciphertext(kek.id, AES_256_GCM, kek.encrypt(plaintext, associated_data))

        return await self.bounded("encrypt", call)

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""
        if ciphertext.mechanism != AES_256_GCM:
            raise ForeignWrap(f"LOCAL encrypts with {AES_256_GCM} alone: this came from elsewhere")

        async def call() -> bytearray:
            return self._named(ciphertext.kek).decrypt(ciphertext.blob, associated_data)

        return await self.bounded("decrypt", call)

    async def get_compliance_info(self) -> ComplianceInfo:
        """Say that nothing is claimed: a root key in a file is no HSM."""
        return ComplianceInfo(
            key_storage="a file or passphrase on this machine; in use, this process's memory",
            validated_to=None,
            extractable=True,
            mechanisms=MECHANISMS,
            notes=("for development and small installations: whoever can read the root key can unwrap every data key",),
        )

    def _wraps_with(self) -> tuple[str | None, str]:
        return self._current.id if self._current else None, self._options.mechanism

    async def _close(self) -> None:
        for kek in self._keks.values():
            kek.wipe()
        self._keks = {}
        self._current = None

    def _in_use(self) -> Kek:
        assert self._current is not None  # operations run on an open back end
        return self._current

    def _named(self, name: str) -> Kek:
        if (kek := self._keks.get(name)) is None:
            raise NotFound(
                f"the root key in use is {self._in_use().id} and this was wrapped under {name!r}: restore the root key "
                "file of that name (its third line), or name it in hsm.retiredKeyFiles"
            )
        return kek
