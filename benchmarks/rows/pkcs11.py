"""A token's unwraps through the provider, beside a bare loop of the same mechanism in as many threads; and a long run.

The token is SoftHSM: it answers in microseconds, so what is measured is what the provider adds. The bare loop is the
same library, initialised for threads, the same key and the same bytes, with nothing around them. The provider runs
where the sidecar has it run, on the CPUs that are left to Python; the bare loop on all of them, and once more on those.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import uvloop
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass

from benchmarks.processes import placed_on
from benchmarks.stage import Stage, in_turns, median_ratio
from benchmarks.table import Row
from providers import ProviderError, WrapContext, WrappedKey, create
from providers.pkcs11.library import shared
from providers.pkcs11.provider import Pkcs11Provider
from providers.wiping import wipe
from proxy.startup import place, usable_cpus
from tests.servers.softhsm import serve

CALLERS = 8
CONTEXT = WrapContext(42, "users", None, "field")
MECHANISMS = {"AES-256-GCM": 1_500, "AES-KEY-WRAP-PAD": 400}  # unwraps of each caller in a round
SOAK_SECONDS = 60.0
GROWTH_MIB = 8


def measure(stage: Stage) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="keyside-softhsm-") as folder, serve(Path(folder)) as served:
        os.environ.update(served.environment)
        rows: list[Row] = []
        for mechanism, calls in MECHANISMS.items():
            rows += beside_bare_loop(stage, served.hsm, mechanism, calls)
        return rows + soak(stage, served.hsm)


@contextmanager
def opened(hsm: dict[str, Any], mechanism: str) -> Iterator[tuple[asyncio.Runner, Pkcs11Provider, WrappedKey]]:
    section = {**hsm, "mechanism": mechanism, "performance": {"connectionPoolSize": CALLERS}}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        provider = create(section, Path("/"))
        assert isinstance(provider, Pkcs11Provider)
        wrapped = runner.run(provider.wrap_key(os.urandom(32), CONTEXT))
        try:
            yield runner, provider, wrapped
        finally:
            runner.run(provider.close())


def beside_bare_loop(stage: Stage, hsm: dict[str, Any], mechanism: str, calls: int) -> list[Row]:
    times = stage.times(calls)
    everywhere, left_to_python = os.sched_getaffinity(0), python_cpus()
    with placed_on(left_to_python), opened(hsm, mechanism) as (runner, provider, wrapped):

        def bare(cpus: set[int]) -> float:
            with placed_on(cpus):  # its threads take that over
                return bare_loop(hsm, wrapped, times)

        measured = in_turns(
            stage.rounds,
            {
                "Keyside": lambda: runner.run(through_provider(provider, wrapped, times)),
                "bare": lambda: bare(everywhere),
                "bare, same CPUs": lambda: bare(left_to_python),
            },
        )
    ours = measured["Keyside"]
    ratio = median_ratio(ours, measured["bare"])
    what = f"PKCS #11 unwraps on SoftHSM, {mechanism}, {CALLERS} at once"
    loop = f"bare loop, {CALLERS} threads"
    beside = median(measured["bare, same CPUs"])
    return [
        Row(what, "/s", median(ours), median(measured["bare"]), loop, ratio, "ratio >= 0.7", ratio >= 0.7),
        Row(
            what,
            "/s",
            median(ours),
            beside,
            f"{loop}, on {len(left_to_python)} of {len(everywhere)} CPUs as Keyside",
            median_ratio(ours, measured["bare, same CPUs"]),
        ),
    ]


def python_cpus() -> set[int]:
    """Where the sidecar's control plane runs on this machine: not where its workers are."""
    return set(place("auto", True, usable_cpus()).control_cpus) or os.sched_getaffinity(0)


async def through_provider(provider: Pkcs11Provider, wrapped: WrappedKey, times: int) -> float:
    async def caller() -> None:
        for _ in range(times):
            await provider.unwrap_key(wrapped, CONTEXT)

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return CALLERS * times / (perf_counter() - began)


def bare_loop(hsm: dict[str, Any], wrapped: WrappedKey, times: int) -> float:
    """Nothing but python-pkcs11, each thread with a session and a key of its own."""
    library = shared(str(Path(hsm["connection"]["libraryPath"]).resolve()))
    token = library.native.get_token(token_label=hsm["connection"]["partition"])
    label, _, identity = wrapped.kek.rpartition("#")
    sessions = [token.open() for _ in range(CALLERS)]
    try:
        keys = [session.get_key(label=label, id=bytes.fromhex(identity)) for session in sessions]
        bare = BARE[wrapped.mechanism]
        workers = [threading.Thread(target=bare, args=(key, wrapped.blob, times)) for key in keys]
        began = perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return CALLERS * times / (perf_counter() - began)
    finally:
        for session in sessions:
            session.close()


def bare_gcm(key: Any, blob: bytes, times: int) -> None:
    iv, sealed, associated = blob[1:13], blob[13:], CONTEXT.authenticated()
    for _ in range(times):
        key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(iv, associated, 128))


def bare_key_wrap(key: Any, blob: bytes, times: int) -> None:
    template = {Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
    for _ in range(times):
        carrier = key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            blob,
            mechanism=Mechanism.AES_KEY_WRAP_PAD,
            capabilities=MechanismFlag(0),
            template=template,
        )
        carrier[Attribute.VALUE]
        carrier.destroy()


BARE: Final[dict[str, Callable[[Any, bytes, int], None]]] = {
    "AES-256-GCM": bare_gcm,
    "AES-KEY-WRAP-PAD": bare_key_wrap,
}


def soak(stage: Stage, hsm: dict[str, Any]) -> list[Row]:
    """Unwraps by every caller for a minute: errors, and what the process holds more at the end than after a tenth."""
    seconds = stage.seconds(SOAK_SECONDS)
    with opened(hsm, "AUTO") as (runner, provider, wrapped):
        warm, _ = runner.run(for_a_while(provider, wrapped, seconds / 10))
        before = resident_mib()
        done, failed = runner.run(for_a_while(provider, wrapped, seconds * 0.9))
        growth = resident_mib() - before
    what = f"PKCS #11, {CALLERS} callers for {seconds:.3g} s"
    note = f"{warm + done:,} unwraps"
    return [
        Row(f"{what}: errors", "", failed, target="0", met=failed == 0, note=note),
        Row(f"{what}: memory grown", "MiB", growth, target=f"<= {GROWTH_MIB}", met=growth <= GROWTH_MIB, note=note),
    ]


async def for_a_while(provider: Pkcs11Provider, wrapped: WrappedKey, seconds: float) -> tuple[int, int]:
    end, done, failed = perf_counter() + seconds, 0, 0

    async def caller() -> None:
        nonlocal done, failed
        while perf_counter() < end:
            try:
                wipe(await provider.unwrap_key(wrapped, CONTEXT))
                done += 1
            except ProviderError:
                failed += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done, failed


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
