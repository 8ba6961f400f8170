"""The data plane's misses, answered; and the keys in its cache, kept fresh."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from providers import PoolUsage, Provider
from proxy.keyring import KeyState, Purpose, Scope
from proxy.keys.complaints import Complaints
from proxy.keys.latency import Latency
from proxy.keys.options import KeyOptions
from proxy.keys.plane import Plane
from proxy.keys.refusals import Code, Refused, judge
from proxy.keys.supply import KeySupply
from proxy.keys.turns import FairFlights
from proxy.keys.wrapping import Wrapping
from proxy.keystore import Keystore

if TYPE_CHECKING:
    from fastpath.dataplane import KeyMiss, LowBudget, ScopeMiss

TICK_SECONDS: Final = 1.0
REFRESH_BATCH: Final = 256
LONGEST_PAUSE_SECONDS: Final = 60.0
FEWEST_MISSES_AT_ONCE: Final = 16

_COUNTERS: Final = ("created", "leases", "leased_messages", "negative", "refreshed", "rotations")

_log = logging.getLogger(__name__)


class KeyService:
    """Answers misses. Used from one event loop: the one that drains the plane's events."""

    def __init__(self, plane: Plane, store: Keystore, provider: Provider, options: KeyOptions) -> None:
        self._plane = plane
        self._store = store
        self._wrapping = Wrapping(provider)
        self._supply = KeySupply(plane, store, self._wrapping, options)
        self._flights = self._supply.flights
        # as many again as the provider takes read the keystore: more would only stand in line there, whosever they are
        self._fair = FairFlights(self._flights, lambda: max(FEWEST_MISSES_AT_ONCE, 2 * self._wrapping.concurrent_calls))
        self._counters = self._supply.counters
        self._failures: Counter[str] = Counter()
        self._complaints = Complaints(_log)
        self._owed: dict[Scope, int] = {}  # rotations that failed, by scope: the key that has to go
        self._unhurried = self._half_of_the_calls()
        self._pause = 0.0
        self._paused_until = 0.0

    def reconfigure(self, options: KeyOptions) -> None:
        """Use other options from now on; keys that are cached keep the time they were given."""
        self._supply.options = options

    async def use(self, provider: Provider) -> None:
        """Wrap and unwrap with another provider from now on. Returns once no call is under way to the one before."""
        old = self._wrapping.replace(provider)
        self._unhurried = self._half_of_the_calls()
        self._pause, self._paused_until = 0.0, 0.0  # what failed with the old one may succeed now
        await old.finished()

    async def handle(self, event: "KeyMiss | ScopeMiss | LowBudget") -> None:
        """Settle one event of the data plane. What goes wrong becomes a refusal and a log line, never an exception."""
        try:
            match event.kind:
                case "key":
                    await self._serve_key(event.key_id, event.scope, event.uid)
                case "scope":
                    await self._serve_scope(event.scope, Purpose(event.purpose), event.wanted, event.uid)
                case "low":
                    await self._top_up(event.key_id, event.scope)
        finally:
            if event.token:
                self._plane.complete(event.token)

    async def refresh_loop(self) -> None:
        """Every second: sweep the cache, refresh keys in use, make up for failed rotations. Runs until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.refresh()
            except Exception as error:
                self._complain(error, "refreshing data keys")

    async def refresh(self) -> None:
        """One round of `refresh_loop`."""
        self._plane.sweep()
        if time.monotonic() < self._paused_until:
            return
        expiring = self._plane.expiring(self._supply.options.refresh_within, REFRESH_BATCH)
        settled = await asyncio.gather(
            *(self._rotate(scope, retiring) for scope, retiring in self._owed.items()),
            *(self._renew(key_id, Scope.parse(scope)) for key_id, scope, _ in expiring),
        )
        if all(settled):
            self._pause = 0.0
            return
        # the same keys come up every round: ask a provider that is down less and less often
        longest = min(LONGEST_PAUSE_SECONDS, self._supply.options.refresh_within / 4000)
        self._pause = min(self._pause * 2 or TICK_SECONDS, longest)
        self._paused_until = time.monotonic() + self._pause

    async def close(self) -> None:
        """Give up what is under way. Nothing that a request was answered from is lost by it."""
        await self._flights.close()

    def stats(self) -> dict[str, int]:
        """Counters since the start; `failed_*` by kind of failure."""
        return {
            **{name: self._counters[name] for name in _COUNTERS},
            "wraps": self._wrapping.wraps,
            "unwraps": self._wrapping.unwraps,
            "coalesced": self._flights.joined,
            "given_up": self._fair.given_up,
            **{f"failed_{kind}": count for kind, count in sorted(self._failures.items())},
        }

    def usage(self) -> PoolUsage:
        """How busy the provider is, and how many wait for it: misses that were not begun yet among them."""
        usage = self._wrapping.usage()
        return replace(usage, waiting=usage.waiting + self._fair.waiting)

    @property
    def latency(self) -> Latency:
        """How long the provider took to answer."""
        return self._wrapping.latency

    def _half_of_the_calls(self) -> asyncio.Semaphore:
        # refreshing early is never urgent: the other half stays free for requests that wait
        return asyncio.Semaphore(max(1, self._wrapping.concurrent_calls // 2))

    async def _serve_key(self, key_id: int, scope: str, uid: int) -> None:
        await self._in_turn(("key", key_id, scope), uid, lambda: self._find_key(key_id, scope))

    async def _find_key(self, key_id: int, text: str) -> None:
        try:
            scope = Scope.parse(text)
            keyring = await self._supply.keyring_for(scope, Purpose.FIELD)
            key = await self._store.key(key_id)
            if key is None:
                raise Refused(Code.UNKNOWN_KEY, f"no data key {key_id:016x}")
            # an index key must never decrypt: its id in an envelope is somebody's forgery
            if key.scope != scope or key.purpose is not Purpose.FIELD:
                raise Refused(Code.INVALID_CIPHERTEXT, f"data key {key_id:016x} is not one of {scope}")
            await self._supply.install(key, keyring)
        except Exception as error:
            code = self._complain(error, f"data key {key_id:016x} for {text}")
            self._plane.refuse_key(key_id, text, code, self._supply.options.negative_ttl)
            self._counters["negative"] += 1

    async def _serve_scope(self, scope: str, purpose: Purpose, wanted: int, uid: int) -> None:
        await self._in_turn(("scope", scope, purpose), uid, lambda: self._find_active(scope, purpose, wanted))

    async def _in_turn(self, name: Hashable, uid: int, work: Callable[[], Awaitable[None]]) -> None:
        await self._fair.run(name, uid, self._supply.options.patience / 1000, work)

    async def _find_active(self, text: str, purpose: Purpose, wanted: int) -> None:
        try:
            await self._supply.provide(Scope.parse(text), purpose, wanted)
        except Exception as error:
            code = self._complain(error, f"an active data key for {text}")
            self._plane.refuse_scope(text, int(purpose), code, self._supply.options.negative_ttl)
            self._counters["negative"] += 1

    async def _top_up(self, key_id: int, scope: str) -> None:
        await self._flights.run(("low", key_id), lambda: self._extend(key_id, Scope.parse(scope)))

    async def _extend(self, key_id: int, scope: Scope) -> None:
        try:
            enough = await self._supply.top_up(key_id, scope)
        except Exception as error:
            # half of the last lease is left; once that is spent a request asks again
            self._complain(error, f"a lease for data key {key_id:016x} of {scope}")
            return
        if not enough:
            await self._rotate(scope, key_id)

    async def _rotate(self, scope: Scope, retiring: int) -> bool:
        """Let a fresh key, or the one that another sidecar made, take over from one whose budget ends. Nobody waits.

        False when that failed: `refresh` tries again.
        """
        async with self._unhurried:
            try:
                await self._flights.run(
                    ("rotate", scope), lambda: self._supply.provide(scope, Purpose.FIELD, 1, retiring=retiring)
                )
            except Exception as error:
                self._complain(error, f"a fresh data key for {scope}")
                self._owed[scope] = retiring
                return False
        self._owed.pop(scope, None)
        self._counters["rotations"] += 1
        return True

    async def _renew(self, key_id: int, scope: Scope) -> bool:
        """Unwrap a cached key anew, or evict it when it may serve no more. False: provider or keystore failed."""
        async with self._unhurried:
            try:
                key = await self._store.key(key_id)
                if key is None or key.scope != scope or key.state in (KeyState.DISABLED, KeyState.DESTROYED):
                    self._plane.evict(key_id)
                    return True
                keyring = await self._supply.keyring_for(scope, key.purpose)
                await self._supply.install(key, keyring, renew=True)
            except Exception as error:
                self._complain(error, f"data key {key_id:016x} of {scope}, to be refreshed")
                return False
        self._counters["refreshed"] += 1
        return True

    def _complain(self, error: Exception, wanted: str) -> Code:
        verdict = judge(error)
        self._failures[verdict.kind] += 1
        self._complaints.log(verdict.level, verdict.kind, f"{wanted}: {verdict.code.name}: {describe(error)}")
        if verdict.kind == "defect":
            _log.error("traceback of the defect", exc_info=error)
        return verdict.code


def describe(error: Exception) -> str:
    """An error for the log: its message when it is one of ours, which hold no secrets, otherwise its type alone."""
    ours = type(error).__module__.partition(".")[0] in ("providers", "proxy", "fastpath")
    return str(error) if ours else type(error).__name__
