"""A back end for tests of what is built on providers: it does what `SCRIPT` says, with real cryptography below."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from providers import (
    AuditRecord,
    Capability,
    DeletesKeys,
    GeneratesKeys,
    HealthStatus,
    ImportsKeys,
    KeepsAuditLogs,
    KeyReference,
    KeySpecification,
    PoolUsage,
    Probe,
    Problem,
    Tampered,
    WrapContext,
    WrappedKey,
    registry,
)
from providers.backend import Backend
from providers.options import HsmOptions
from providers.wiping import wipe

OFFERED = Capability.GENERATE_KEY | Capability.IMPORT_KEY | Capability.DELETE_KEY | Capability.AUDIT_LOGS


@dataclass
class Script:
    """What goes wrong, by operation, and what was asked."""

    faults: dict[str, Exception] = field(default_factory=dict)
    delay: float = 0.0
    health: tuple[HealthStatus, str] = (HealthStatus.OK, "well")
    binds: bool = True
    asked: list[str] = field(default_factory=list)
    specifications: list[KeySpecification] = field(default_factory=list)
    materials: list[bytes] = field(default_factory=list)
    kek: bytes = field(default_factory=lambda: os.urandom(32))


SCRIPT = Script()


class ScriptedOptions(HsmOptions):
    """No settings of its own."""


class ScriptedBackend(Backend, GeneratesKeys, ImportsKeys, DeletesKeys, KeepsAuditLogs):
    """Another machine, as far as the rest of the product can tell."""

    name: ClassVar[str] = "SCRIPTED"
    capabilities = OFFERED
    lacks: Mapping[Capability, str] = {flag: "no test needs it" for flag in Capability if flag not in OFFERED}

    async def _open(self) -> None:
        await self._asked("open")

    async def _check(self) -> tuple[HealthStatus, str]:
        await self._asked("health")
        return SCRIPT.health

    def probes(self) -> Sequence[Probe]:
        return [Probe(title, partial(self._probe, title)) for title in ("reach", "key", "permission")]

    async def _probe(self, title: str) -> str:
        await self.bounded(title, lambda: self._asked(title))
        return f"{title} [is] fine"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        await self._asked("wrap")
        nonce = os.urandom(12)
        blob = nonce + AESGCM(SCRIPT.kek).encrypt(nonce, bytes(key), self._bound(context))
        return WrappedKey(self.name, "kek-1", "AES-256-GCM", blob)

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        await self._asked("unwrap")
        try:
            return bytearray(AESGCM(SCRIPT.kek).decrypt(wrapped.blob[:12], wrapped.blob[12:], self._bound(context)))
        except InvalidTag as error:
            raise Tampered("the wrap does not authenticate") from error

    def _bound(self, context: WrapContext) -> bytes:
        return context.authenticated() if SCRIPT.binds else b""

    async def _close(self) -> None:
        SCRIPT.asked.append("close")

    def pool_usage(self) -> PoolUsage:
        return PoolUsage(size=5, active=1, idle=2, waiting=0)

    def _wraps_with(self) -> tuple[str | None, str]:
        return "kek-1", "AES-256-GCM"

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        await self._asked("generate")
        SCRIPT.specifications.append(specification)
        return KeyReference(f"key/{specification.label}", specification.algorithm, datetime(2026, 1, 2, tzinfo=UTC))

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        SCRIPT.materials.append(bytes(material))
        wipe(material)
        return await self.generate_key(specification)

    async def delete_key(self, key: str) -> None:
        await self._asked(f"delete {key}")

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        await self._asked("log")
        return [AuditRecord(until, "Decrypt", "arn:role", False, {"why": "[denied]"})][:limit]

    async def _asked(self, what: str) -> None:
        SCRIPT.asked.append(what)
        await asyncio.sleep(SCRIPT.delay)
        if what in SCRIPT.faults:
            raise SCRIPT.faults[what]


OPTIONS = ScriptedOptions


def problems(hsm: Mapping[str, object]) -> list[Problem]:
    return []


def build(options: Any, base: Path) -> ScriptedBackend:
    return ScriptedBackend(options, base)


def register(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Make `provider: SCRIPTED` one of this release, with a script of its own, for one test."""
    bounds = registry.BUILT["LOCAL"].acts_on
    built = {**registry.BUILT, "SCRIPTED": registry.Entry(__name__, acts_on=bounds)}
    monkeypatch.setattr(registry, "BUILT", built)
    script = Script()
    monkeypatch.setattr(f"{__name__}.SCRIPT", script)
    return script
