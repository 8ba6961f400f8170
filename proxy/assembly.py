"""Making the parts of a sidecar from its configuration, in an order in which failing is cheap and undoes itself."""

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final

import uvloop

from proxy import __version__, log, startup
from proxy.config import Config
from proxy.exits import Exit
from proxy.keys import KeyOptions, KeyService
from proxy.keystore import AnotherInstance, Keystore, KeystoreError
from proxy.listener import Listener, adopt, check_free, listen
from proxy.opening import open_provider, try_unwrapping
from proxy.service import Parts, Service
from proxy.startup import Placement, StartupError
from proxy.systemd import ActivationError, Notifier, listen_sockets

if TYPE_CHECKING:
    from fastpath.dataplane import Options
    from fastpath.memory import MemoryReport

PRODUCT: Final = f"keyside/{__version__}"


def run(path: Path, config: Config) -> None:
    """Serve until told to stop. Raises StartupError."""
    log.configure(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(_log_stray)
        runner.run(_serve(path, config))


async def _serve(path: Path, config: Config) -> None:
    async with AsyncExitStack() as undo:
        service = Service(path, config, await _assemble(config, undo))
        undo.pop_all()  # from here on the service closes its parts
        await service.run()


async def _assemble(config: Config, undo: AsyncExitStack) -> Parts:
    from fastpath.dataplane import DataPlane

    for line in config.unbuilt():
        log.event(logging.WARNING, line)
    notifier = Notifier(os.environ)
    warnings = _harden()
    activated = _activated(config)
    paths = {"data": config.socket.path, "admin": config.admin.path}
    for role, path in paths.items():
        if role not in activated:
            check_free(path)
    startup.raise_descriptor_limit()
    placement = startup.place(config.workers.count, config.workers.pin, startup.usable_cpus())
    memory, shortage = _lock_memory(config, placement)
    warnings += [shortage] if shortage else []

    store = await asyncio.to_thread(_open_keystore, config)
    undo.push_async_callback(store.close)
    provider, trouble = await open_provider(config)
    undo.push_async_callback(provider.close)
    trouble = trouble or await try_unwrapping(store, provider, config)

    plane = DataPlane(_plane_options(config, placement, memory.key_capacity))
    undo.callback(plane.stop)
    data = _listener(activated.get("data"), config.socket.path, config.socket.mode, config.socket.group)
    undo.callback(data.close)
    admin = _listener(activated.get("admin"), config.admin.path, config.admin.mode, None)
    undo.callback(admin.close)
    for warning in (*warnings, *([trouble] if trouble else [])):
        log.event(logging.WARNING, warning)
    keys = KeyService(plane, store, provider, KeyOptions.of(config))
    return Parts(plane, keys, store, provider, data, admin, memory, placement, notifier, tuple(warnings))


def _harden() -> list[str]:
    from fastpath import memory

    return memory.harden()


def _lock_memory(config: Config, placement: Placement) -> "tuple[MemoryReport, str | None]":
    """Open the secret arena and say what it holds. Raises StartupError."""
    from fastpath import memory

    limit = -1 if startup.may_lock_without_limit() else startup.raise_lock_limit()
    capacity = startup.decide_key_capacity(
        config.cache.keys, config.cache.on_low_lock_limit, limit, placement.workers, memory
    )
    try:
        report = memory.open(capacity.keys, placement.workers)
    except memory.MemoryLimit as error:
        raise startup.LowLockLimit(str(error), Exit.SYSTEM) from error
    except OSError as error:
        raise StartupError(f"cannot lock memory for data keys: {error.strerror or error}", Exit.SYSTEM) from error
    log.event(logging.INFO, startup.memory_line(report, config.cache.keys, placement.workers, memory))
    return report, capacity.warning


def _open_keystore(config: Config) -> Keystore:
    try:
        return Keystore.open(config.keystore.location)
    except AnotherInstance as error:
        raise StartupError(str(error), Exit.TRY_LATER) from error
    except KeystoreError as error:
        raise StartupError(str(error), Exit.STORAGE) from error


def _activated(config: Config) -> dict[str, socket]:
    try:
        return listen_sockets(os.environ, {"data": config.socket.path, "admin": config.admin.path})
    except ActivationError as error:
        raise StartupError(str(error), Exit.CONFIG) from error


def _listener(activated: socket | None, path: Path, mode: int, group: int | None) -> Listener:
    return listen(path, mode, group) if activated is None else adopt(activated, path)


def _plane_options(config: Config, placement: Placement, key_capacity: int) -> "Options":
    from fastpath.dataplane import Options

    limits = config.limits
    return Options(
        workers=placement.workers,
        cpus=placement.worker_cpus,
        key_capacity=key_capacity,
        max_frame=limits.max_frame,
        max_connections=limits.max_connections,
        idle_timeout=limits.idle_timeout,
        stall_timeout=limits.stall_timeout,
        park_timeout=limits.park_timeout,
        park_requests=limits.park_requests,
        park_bytes=limits.park_bytes,
        buffer_bytes=limits.buffer_bytes,
        product=PRODUCT,
    )


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited: asyncio would print objects as they are, and some hold plaintext."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        log.defect("an unexpected failure in the event loop", error)
    else:
        log.event(logging.ERROR, "an unexpected event in the loop", what=context.get("message", ""))
