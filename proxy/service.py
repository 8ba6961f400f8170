"""The running sidecar: its life from the first request to the last, reload, and what operators may ask of it.

Everything here runs on one event loop in one thread, below the data plane: while this is busy, or stuck, data keys that
are cached go on serving.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from providers import HealthStatus, Provider, ProviderError
from proxy import log, reporting
from proxy.admin.access import AdminPeers, AdminRule
from proxy.admin.app import serve_admin
from proxy.admin.errors import ConfigRefused, Conflict, Invalid, NotFound, NotNow
from proxy.config import Config, ConfigError, load
from proxy.deadline import within
from proxy.events import EventPump, EventSource, every
from proxy.footprint import give_back
from proxy.http_data import HttpData, HttpLimits
from proxy.http_data import Plane as HttpPlane
from proxy.keyring import Keyring, KeyringError
from proxy.keys import KeyOptions, KeyService
from proxy.keystore import KeyringExists, Keystore, KeystoreError
from proxy.listener import Listener
from proxy.opening import ReplacementRefused, open_replacement
from proxy.policy import compile_policy
from proxy.startup import Placement, stand_back
from proxy.status import SAMPLE_SECONDS, Reading, Recent
from proxy.systemd import Notifier
from proxy.watch import PartHealth, ProviderWatch

if TYPE_CHECKING:
    from fastpath.dataplane import Rule
    from fastpath.memory import MemoryReport

DRAIN_SECONDS: Final = 20.0
DRAIN_POLL_SECONDS: Final = 0.02
CLOSE_SECONDS: Final = 5.0
ASK_SECONDS: Final = 1.0
"""How long whoever asks on the admin socket waits for the provider: readiness probes give up after a second."""

MOST_HTTP_CONNECTIONS: Final = (
    1024  # each costs Python tens of kilobytes; frames cost a fraction and are not bounded by this
)


class Plane(EventSource, HttpPlane, Protocol):
    """What the service asks of the data plane (fastpath/dataplane.pyi)."""

    def start(self, listen_fd: int) -> None: ...

    def drain(self, timeout: float) -> bool: ...

    def stop(self) -> None: ...

    def set_policy(self, rules: "Sequence[Rule]") -> None: ...

    def stats(self) -> dict[str, object]: ...


@dataclass(frozen=True)
class Parts:
    """What the service runs; made by proxy.assembly, closed by the service."""

    plane: Plane
    keys: KeyService
    store: Keystore
    provider: Provider
    data: Listener
    admin: Listener
    memory: "MemoryReport"
    placement: Placement
    notifier: Notifier
    warnings: tuple[str, ...]


class Service:
    """The sidecar once its parts exist. Also what the admin socket asks (proxy.admin.app.Sidecar)."""

    def __init__(self, path: Path, config: Config, parts: Parts) -> None:
        self._path = path
        self._booted = config  # what is in force until the next start
        self._config = config
        self._parts = parts
        self._provider = parts.provider
        limits = config.limits
        self._http = HttpData(
            parts.plane,
            HttpLimits(
                max_frame=limits.max_frame,
                connections=min(limits.max_connections, MOST_HTTP_CONNECTIONS),
                buffer_bytes=limits.buffer_bytes,
                idle_timeout=limits.idle_timeout / 1000,
                stall_timeout=limits.stall_timeout / 1000,
            ),
        )
        self._events = EventPump(parts.plane, parts.keys.handle, self._http.adopt)
        self._admin_peers = AdminPeers(admin_rules(config))
        self._started_at = time.monotonic()
        self._recent = Recent(Reading.of(parts.plane.stats()))
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._aside: set[asyncio.Task[None]] = set()
        self._watch = ProviderWatch(parts.provider)
        self._unbuilt = config.unbuilt()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. A second signal ends the draining."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            self._handle_signals()
            await self._http.start()
            self._parts.plane.set_policy(compile_policy(self._config))
            self._events.start()
            admin = await serve_admin(self, self._admin_peers, self._parts.admin.socket)
            stack.push_async_callback(admin.cleanup)
            self._parts.plane.start(self._parts.data.socket.fileno())
            stand_back(self._parts.placement.control_cpus)
            async with asyncio.TaskGroup() as background:
                tasks = [background.create_task(work) for work in self._background()]
                give_back(keep="/fastpath/")
                await self._announce()
                await self._stopping.wait()
                await self._drain()
                for task in tasks:
                    task.cancel()

    def stop(self) -> None:
        """Begin to drain; asked again, stop waiting for those who do not read."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    # what the admin socket asks

    async def missing(self) -> list[str]:
        if self._stopping.is_set():
            return ["draining: the sidecar is stopping"]
        missing = []
        try:
            await self._parts.store.check()
        except KeystoreError as error:
            missing.append(f"keystore: {error}")
        if not self._watch.answered:
            health = await self._watch.ask(ASK_SECONDS)
            if not self._watch.answered:
                missing.append(f"provider: {health.detail}")
        return missing

    async def status(self) -> dict[str, object]:
        now = Reading.of(self._parts.plane.stats())
        await self._look_at_provider()
        found = reporting.status(self._facts(), now, self._recent.until(now))
        keystore = await self._keystore_health()
        return found | {"health": {"provider": self._watch.health._asdict(), "keystore": keystore._asdict()}}

    async def metrics(self) -> str:
        await self._look_at_provider()
        return reporting.metrics(self._facts(), Reading.of(self._parts.plane.stats()))

    async def keyrings(self) -> list[dict[str, object]]:
        try:
            counts = await self._parts.store.data_key_counts()
            return [keyring_view(found, counts.get(found.name, 0)) for found in await self._parts.store.keyrings()]
        except KeystoreError as error:
            raise NotNow(str(error)) from error

    async def keyring(self, name: str) -> dict[str, object]:
        try:
            found = await self._parts.store.keyring(name)
            if found is None:
                raise NotFound("no such keyring; list them with: keyside keyring list")
            return keyring_view(found, (await self._parts.store.data_key_counts()).get(name, 0))
        except KeystoreError as error:
            raise NotNow(str(error)) from error

    async def create_keyring(self, name: str, partitioned: bool, index_bits: int | None) -> dict[str, object]:
        create = partial(self._parts.store.create_keyring, name, partitioned=partitioned)
        try:
            made = await (create() if index_bits is None else create(index_bits=index_bits))
        except KeyringExists as error:
            raise Conflict(str(error)) from error
        except KeyringError as error:
            raise Invalid(str(error)) from error
        except KeystoreError as error:
            raise NotNow(str(error)) from error
        log.event(logging.INFO, "keyring created", keyring=made.name, partitioned=made.partitioned)
        return keyring_view(made, 0)

    async def reload(self) -> dict[str, object]:
        if self._stopping.is_set():
            raise NotNow("the sidecar is stopping")
        async with self._reloading:
            self._parts.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self._parts.notifier.ready(self._headline())

    # inside

    async def _reload(self) -> dict[str, object]:
        try:
            # reading account names may ask a directory server: not on the loop
            new = await asyncio.to_thread(load, self._path)
            self._parts.plane.set_policy(compile_policy(new))
        except ConfigError as error:
            for problem in error.problems:
                log.event(logging.ERROR, "configuration not reloaded", problem=str(problem))
            raise ConfigRefused([(problem.path, problem.message) for problem in error.problems]) from error
        waiting = needs_restart(self._booted, new)
        self._parts.keys.reconfigure(KeyOptions.of(new))
        self._admin_peers.replace(admin_rules(new))
        log.configure(new.log.level, new.log.format)
        self._config = new
        kept = await self._replace_provider(new)
        log.event(logging.INFO, "configuration reloaded", restart_needed_for=waiting)
        return {"restart_needed_for": waiting, "provider_kept": kept}

    async def _replace_provider(self, new: Config) -> str | None:
        """Let a provider made of the new configuration, its secrets read anew, take over; or say why it does not."""
        self._unbuilt = new.unbuilt()
        for line in self._unbuilt:
            log.event(logging.WARNING, line)
        old = self._provider
        try:
            opened = await open_replacement(self._parts.store, new, old.name)
        except ReplacementRefused as error:
            log.event(logging.ERROR, f"the provider in use stays: hsm was not put into force: {error}")
            return str(error)
        if opened.trouble:
            log.event(logging.WARNING, opened.trouble)
        self._provider = opened.provider
        self._watch.replace(opened.provider)
        self._retire(old, self._parts.keys.use(opened.provider))
        log.event(logging.INFO, f"provider {opened.provider.name} took over", kek=opened.provider.describe().kek)
        return None

    def _retire(self, provider: Provider, calls_ended: Awaitable[None]) -> None:
        """Close a provider that was replaced, once nothing is under way there; nobody waits for that."""

        async def retire() -> None:
            await calls_ended
            await _close_provider(provider)

        self._run_aside(retire())

    def _background(self) -> list[Coroutine[None, None, None]]:
        work = [
            self._parts.keys.refresh_loop(),
            self._watch.run(),
            every(SAMPLE_SECONDS, "reading the counters", self._sample),
        ]
        if self._parts.notifier.watchdog_interval is not None:
            work.append(every(self._parts.notifier.watchdog_interval, "the watchdog", self._show_life))
        return work

    def _sample(self) -> None:
        self._recent.add(Reading.of(self._parts.plane.stats()))

    def _show_life(self) -> None:
        # reading the counters takes the plane's locks: a plane that is stuck is not reported alive
        self._parts.plane.stats()
        self._parts.notifier.alive()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)

    def _reload_by_signal(self) -> None:
        self._run_aside(self._reload_and_say())

    def _run_aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _reload_and_say(self) -> None:
        try:
            await self.reload()
        except ConfigRefused:
            return  # every problem is in the log
        except Exception as error:  # whatever it is, the old configuration goes on serving
            log.defect("reloading failed", error)

    async def _announce(self) -> None:
        missing = await self.missing()
        for line in missing:
            log.event(logging.WARNING, "not ready yet", missing=line)
        log.event(
            logging.INFO,
            "serving",
            data=self._parts.data.path,
            admin=self._parts.admin.path,
            workers=self._parts.placement.workers,
            pid=os.getpid(),
        )
        self._parts.notifier.ready(self._headline())

    def _headline(self) -> str:
        return f"serving on {self._parts.data.path}"

    async def _look_at_provider(self) -> None:
        if self._provider.health_is_free:
            await self._watch.ask(ASK_SECONDS)

    async def _keystore_health(self) -> PartHealth:
        try:
            await self._parts.store.check()
        except KeystoreError as error:
            return PartHealth(HealthStatus.DOWN.value, str(error))
        return PartHealth(HealthStatus.OK.value, "")

    async def _drain(self) -> None:
        self._http.drain()
        drained = self._parts.plane.drain(0)
        self._parts.data.unlink()
        self._parts.notifier.stopping("draining")
        log.event(logging.INFO, "draining", waiting_at_most_seconds=DRAIN_SECONDS)
        deadline = time.monotonic() + DRAIN_SECONDS
        while not drained:
            if time.monotonic() > deadline or self._hurry.is_set():
                log.event(logging.WARNING, "stopping with requests unanswered or answers unread")
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)
            drained = self._parts.plane.drain(0)

    async def _close(self) -> None:
        """In the order of who depends on whom; each part goes even when another fails to."""
        parts = self._parts
        async with AsyncExitStack() as stack:
            stack.callback(parts.data.close)
            stack.callback(parts.admin.close)
            stack.push_async_callback(_close_provider, self._provider)
            stack.push_async_callback(parts.store.close)
            stack.callback(parts.plane.stop)
            stack.push_async_callback(parts.keys.close)
            stack.push_async_callback(self._watch.close)
            stack.push_async_callback(self._events.stop)
            stack.push_async_callback(self._http.stop)
        log.event(logging.INFO, "stopped")

    def _facts(self) -> reporting.Facts:
        parts = self._parts
        return reporting.Facts(
            uptime_seconds=time.monotonic() - self._started_at,
            state="draining" if self._stopping.is_set() else "serving",
            provider=self._provider.describe(),
            provider_health=self._watch.health,
            pool=parts.keys.usage(),
            memory=parts.memory,
            workers=parts.placement.workers,
            http=self._http.stats(),
            keys=parts.keys.stats(),
            provider_calls=parts.keys.latency.buckets(),
            store=parts.store.stats(),
            warnings=(*self._unbuilt, *parts.warnings),
        )


async def _close_provider(provider: Provider) -> None:
    try:
        await within(provider.close(), CLOSE_SECONDS)
    except ProviderError as error:
        log.event(logging.WARNING, f"provider {provider.name} did not close cleanly: {error}")


def admin_rules(config: Config) -> list[AdminRule]:
    return [AdminRule(peer.uid, peer.gid) for peer in config.admin.peers]


def keyring_view(keyring: Keyring, data_keys: int) -> dict[str, object]:
    """A keyring as the admin socket shows it (docs/spec/http.md)."""
    return {
        "name": keyring.name,
        "partitioned": keyring.partitioned,
        "index_bits": keyring.index_bits,
        "suite": keyring.suite,
        "data_keys": data_keys,
        "created_at": keyring.created_at.isoformat(),
    }


def needs_restart(booted: Config, new: Config) -> list[str]:
    """Settings that differ and that a reload does not put into force."""
    sections = ("socket", "keystore", "workers", "limits")
    changed = [name for name in sections if getattr(booted, name) != getattr(new, name)]
    for section, setting in (("admin", "path"), ("admin", "mode"), ("cache", "keys"), ("cache", "on_low_lock_limit")):
        if getattr(getattr(booted, section), setting) != getattr(getattr(new, section), setting):
            changed.append(f"{section}.{setting}")
    return changed
