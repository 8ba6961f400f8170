"""Bringing data keys into the data plane: made or unwrapped, with messages to spend.

The order that loses no acknowledged field, whenever the process dies: a data key is made, wrapped, stored and committed
together with its first lease, then installed, then made active; only after that does anybody encrypt with it.
"""

import time
from collections import Counter, OrderedDict
from typing import Final

from fastpath.dataplane import CacheFull
from providers.wiping import wipe
from proxy.keyring import DataKey, Keyring, KeyState, Purpose, Scope, utc_now
from proxy.keys.flights import SingleFlight
from proxy.keys.leases import LeaseSizes
from proxy.keys.options import KeyOptions
from proxy.keys.plane import Plane
from proxy.keys.refusals import Code, Refused
from proxy.keys.turns import step_aside
from proxy.keys.wrapping import Wrapping, random_key, random_key_id
from proxy.keystore import AlreadyActive, KeyIdTaken, Keystore

ATTEMPTS: Final = 4
"""How often a change that another writer, or an eviction, overtook is begun anew."""

REMEMBERED_INSTALLS: Final = 16_384


class KeySupply:
    """Makes, unwraps, installs and activates data keys, and leases messages for them."""

    def __init__(self, plane: Plane, store: Keystore, wrapping: Wrapping, options: KeyOptions) -> None:
        self._plane = plane
        self._store = store
        self._wrapping = wrapping
        self.options = options
        self.counters: Counter[str] = Counter()
        self.flights = SingleFlight()
        self._leases = LeaseSizes()
        self._keyrings: dict[str, Keyring] = {}  # nothing changes or removes a keyring once it is made
        self._cached_until: OrderedDict[int, float] = OrderedDict()  # by key id; before then only an eviction ends it

    async def keyring_for(self, scope: Scope, purpose: Purpose) -> Keyring:
        """The keyring that serves `scope`. Raises Refused (UNKNOWN_KEYRING) when none does, or only the other form."""
        keyring = self._keyrings.get(scope.keyring) or await self._store.keyring(scope.keyring)
        if keyring is None or not keyring.serves(scope, purpose):
            raise Refused(Code.UNKNOWN_KEYRING, f"no keyring serves {scope}")
        self._keyrings[scope.keyring] = keyring
        return keyring

    async def install(self, key: DataKey, keyring: Keyring, *, renew: bool = False) -> None:
        """Leave `key` in the plane's cache, unwrapped unless it surely is there. `renew`: unwrap it anyway.

        Raises Refused for a key whose state forbids it, ProviderError, CacheFull.
        """
        _refuse_unusable(key)
        # two workers miss the same key at the same time, and the second event is often read after the first was settled
        if renew or not self._is_cached(key.id):
            await self.flights.run(("install", key.id), lambda: self._unwrap(key, keyring))

    async def provide(self, scope: Scope, purpose: Purpose, wanted: int, retiring: int | None = None) -> None:
        """Leave the scope with an active data key in the plane, good for `wanted` messages and not the one `retiring`.

        Raises Refused, ProviderError, KeystoreError, CacheFull.
        """
        keyring = await self.keyring_for(scope, purpose)
        for _ in range(ATTEMPTS):
            latest = await self._store.latest_key(scope, purpose)
            if latest is not None and latest.id != retiring and await self._activate(latest, keyring, wanted):
                return
            if await self._create(scope, purpose, keyring, latest.generation + 1 if latest else 1, wanted):
                return
        raise Refused(Code.OVERLOADED, f"other writers kept making data keys for {scope} first")

    async def top_up(self, key_id: int, scope: Scope) -> bool:
        """Lease another block for an active key. False when its budget ends here: a fresh key has to take over."""
        block = self._block(scope, 0)
        granted = await self._lease(key_id, scope, block)
        if granted:
            self._plane.add_budget(key_id, granted)  # False: evicted in the meantime, and the lease is forfeit
        return granted == block

    async def _activate(self, key: DataKey, keyring: Keyring, wanted: int) -> bool:
        """Install and activate a stored key; False when it may not encrypt, or not so many messages."""
        _refuse_unusable(key)
        if key.state is KeyState.DECRYPT_ONLY:
            return False
        left = self.options.messages_per_key - key.messages_leased
        if key.purpose is Purpose.FIELD and left < wanted:
            return False
        await self.install(key, keyring)
        step_aside()
        granted = 0  # the plane counts no messages of index keys
        if key.purpose is Purpose.FIELD:
            granted = await self._lease(key.id, key.scope, self._block(key.scope, wanted))
            if granted < wanted:
                return False
        for _ in range(ATTEMPTS):
            if self._plane.activate(key.id, granted):
                return True
            await self.install(key, keyring, renew=True)
        raise CacheFull("data keys are evicted faster than they are installed: raise cache.keys and the lock limit")

    async def _create(self, scope: Scope, purpose: Purpose, keyring: Keyring, generation: int, wanted: int) -> bool:
        """Make the scope's next data key, durably, then use it; False when another writer was first or took its id."""
        leased = 0 if purpose is Purpose.INDEX else self._block(scope, wanted)
        secret, key_id = random_key(), random_key_id()
        try:
            wrap = await self._wrapping.wrap(secret, key_id, scope, purpose, self.options.patience / 1000)
            step_aside()  # the keystore's writer takes all who wait at once
            key = DataKey(key_id, scope, purpose, KeyState.ACTIVE, generation, leased, (wrap,), utc_now())
            try:
                await self._store.insert_active(key)
            except (AlreadyActive, KeyIdTaken):
                return False
            self.counters["created"] += 1
            self._count_lease(scope, leased)
            self._put(key, secret, keyring)
        finally:
            wipe(secret)
        if not self._plane.activate(key_id, leased):
            raise CacheFull("data keys are evicted faster than they are installed: raise cache.keys and the lock limit")
        return True

    async def _unwrap(self, key: DataKey, keyring: Keyring) -> None:
        secret = await self._wrapping.unwrap(key, self.options.patience / 1000)
        try:
            self._put(key, secret, keyring)
        finally:
            wipe(secret)

    def _put(self, key: DataKey, secret: bytearray, keyring: Keyring) -> None:
        until = time.monotonic() + self.options.ttl / 1000
        index_bits = keyring.index_bits if key.purpose is Purpose.INDEX else 0
        self._plane.install(
            key.id, str(key.scope), int(key.purpose), secret, ttl=self.options.ttl, index_bits=index_bits
        )
        self._cached_until.pop(key.id, None)
        self._cached_until[key.id] = until
        if len(self._cached_until) > REMEMBERED_INSTALLS:
            self._cached_until.popitem(last=False)

    def _is_cached(self, key_id: int) -> bool:
        return self._cached_until.get(key_id, 0.0) > time.monotonic() and self._plane.contains(key_id)

    def _block(self, scope: Scope, wanted: int) -> int:
        options = self.options
        block = self._leases.next(scope, options.lease, options.lease_max)
        return min(max(block, wanted), options.messages_per_key)

    async def _lease(self, key_id: int, scope: Scope, messages: int) -> int:
        granted = await self._store.lease(key_id, messages, self.options.messages_per_key)
        self._count_lease(scope, granted)
        return granted

    def _count_lease(self, scope: Scope, granted: int) -> None:
        if granted:
            self._leases.granted(scope, granted)
            self.counters["leases"] += 1
            self.counters["leased_messages"] += granted


def _refuse_unusable(key: DataKey) -> None:
    if key.state in (KeyState.DISABLED, KeyState.DESTROYED):
        raise Refused(Code.KEY_DISABLED, f"data key {key.id:016x} is {key.state}")
