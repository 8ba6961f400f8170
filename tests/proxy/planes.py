"""A data plane for the tests of the control plane: remembers what it was told, and keeps keys where tests may look."""

import time
from dataclasses import dataclass, field

from fastpath.dataplane import CacheFull


@dataclass
class Slot:
    scope: str
    purpose: int
    key: bytes
    until: float
    index_bits: int
    budget: int = 0


@dataclass
class RecordingPlane:
    """Behaves as fastpath/dataplane.pyi says of the same methods; `log` holds the calls that change something."""

    log: list[tuple[object, ...]] = field(default_factory=list)
    slots: dict[int, Slot] = field(default_factory=dict)
    active: dict[tuple[str, int], int] = field(default_factory=dict)
    refused_keys: dict[tuple[int, str], int] = field(default_factory=dict)
    refused_scopes: dict[tuple[str, int], int] = field(default_factory=dict)
    completed: list[int] = field(default_factory=list)
    full: bool = False

    def install(self, key_id: int, scope: str, purpose: int, key: bytearray, *, ttl: int, index_bits: int = 0) -> None:
        copied = bytes(key)
        key[:] = bytes(len(key))
        if self.full:
            raise CacheFull("full")
        assert len(copied) == 32
        budget = self.slots[key_id].budget if key_id in self.slots else 0
        self.slots[key_id] = Slot(scope, purpose, copied, time.monotonic() + ttl / 1000, index_bits, budget)
        self.log.append(("install", key_id, scope, purpose))

    def activate(self, key_id: int, budget: int) -> bool:
        if key_id not in self.slots:
            return False
        slot = self.slots[key_id]
        slot.budget += budget
        self.active[slot.scope, slot.purpose] = key_id
        self.log.append(("activate", key_id, budget))
        return True

    def add_budget(self, key_id: int, budget: int) -> bool:
        if key_id not in self.slots:
            return False
        self.slots[key_id].budget += budget
        self.log.append(("add_budget", key_id, budget))
        return True

    def evict(self, key_id: int) -> bool:
        self.log.append(("evict", key_id))
        self.active = {scope: active for scope, active in self.active.items() if active != key_id}
        return self.slots.pop(key_id, None) is not None

    def contains(self, key_id: int) -> bool:
        return key_id in self.slots

    def expiring(self, within: int, limit: int = 256) -> list[tuple[int, str, int]]:
        until = time.monotonic() + within / 1000
        found = [(key_id, slot.scope, slot.purpose) for key_id, slot in self.slots.items() if slot.until <= until]
        return found[:limit]

    def sweep(self) -> int:
        ended = [key_id for key_id, slot in self.slots.items() if slot.until <= time.monotonic()]
        for key_id in ended:
            self.evict(key_id)
        return len(ended)

    def refuse_key(self, key_id: int, scope: str, code: int, ttl: int) -> None:
        self.refused_keys[key_id, scope] = code
        self.log.append(("refuse_key", key_id, scope, int(code), ttl))

    def refuse_scope(self, scope: str, purpose: int, code: int, ttl: int) -> None:
        self.refused_scopes[scope, purpose] = code
        self.log.append(("refuse_scope", scope, purpose, int(code), ttl))

    def complete(self, token: int) -> None:
        self.completed.append(token)
        self.log.append(("complete", token))
