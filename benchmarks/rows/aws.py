"""Unwraps by AWS KMS through the provider, beside the SDKs' own calls; and many cold keys, by a service that is late.

The service is ours (tests/fakes/aws): it answers in less time than a client takes to ask, so what is measured is the
client. The bare calls are what the SDKs' documentation shows, with retries off.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import boto3
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config

from benchmarks.stage import Stage, in_turns, median_ratio
from benchmarks.table import Row
from providers import Provider, WrapContext, WrappedKey, create
from providers.wiping import wipe
from tests.servers.aws import REGION, ServedAws, serve

CONTEXT: Final = WrapContext(42, "users", None, "field")
CALLERS: Final = 8
CALLS: Final = 400  # of all callers together, in a round
COLD_KEYS: Final = 10_000
LATENCY: Final = 0.020  # seconds
POOL: Final = 20
WAITING: Final = 200  # misses at once


def measure(stage: Stage) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="keyside-aws-") as folder:
        with serve(Path(folder) / "quick", engine="fake") as served:
            rows = [*beside_aiobotocore(stage, served), *beside_threads(stage, served)]
        with serve(Path(folder) / "late", engine="fake", latency=LATENCY) as served:
            return [*rows, cold_keys(stage, served)]


@contextmanager
def opened(served: ServedAws, pool: int) -> Iterator[tuple[asyncio.Runner, Provider, WrappedKey]]:
    section = {**served.hsm, "performance": {"connectionPoolSize": pool, "requestTimeout": 60_000}}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        provider = create(section, Path("/"))
        wrapped = runner.run(provider.wrap_key(os.urandom(32), CONTEXT))
        try:
            yield runner, provider, wrapped
        finally:
            runner.run(provider.close())


def beside_aiobotocore(stage: Stage, served: ServedAws) -> list[Row]:
    """One call at a time: the median of each round."""
    times = stage.times(CALLS)
    with opened(served, 1) as (runner, provider, wrapped), bare_client(runner, served, 1) as bare:
        measured = in_turns(
            stage.rounds,
            {
                "Keyside": lambda: runner.run(middle(lambda: unwrapped(provider, wrapped), times)),
                "bare": lambda: runner.run(middle(lambda: bare(wrapped), times)),
            },
        )
    ratio = median_ratio(measured["Keyside"], measured["bare"])
    ours, theirs = (median(measured[name]) * 1e6 for name in ("Keyside", "bare"))
    what = "AWS_KMS unwrap, one at a time, p50"
    return [Row(what, "us", ours, theirs, "bare aiobotocore call", ratio, "ratio <= 1.10", ratio <= 1.10)]


def beside_threads(stage: Stage, served: ServedAws) -> list[Row]:
    """Eight at once: unwraps a second."""
    times = stage.times(CALLS)
    with (
        opened(served, CALLERS) as (runner, provider, wrapped),
        bare_client(runner, served, CALLERS) as bare,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        client = blocking_client(served)
        measured = in_turns(
            stage.rounds,
            {
                "Keyside": lambda: runner.run(rate(lambda: unwrapped(provider, wrapped), times, CALLERS)),
                "aiobotocore": lambda: runner.run(rate(lambda: bare(wrapped), times, CALLERS)),
                "boto3": lambda: threaded(threads, client, wrapped, times),
            },
        )
    what = f"AWS_KMS unwraps, {CALLERS} at once"
    ours = median(measured["Keyside"])
    return [
        Row(
            what,
            "/s",
            ours,
            median(measured[name]),
            f"bare {name}{said}",
            median_ratio(measured["Keyside"], measured[name]),
        )
        for name, said in (("aiobotocore", ""), ("boto3", f", {CALLERS} threads"))
    ]


def cold_keys(stage: Stage, served: ServedAws) -> Row:
    """Many misses at once, by a pool that bounds how many of them wait for the service."""
    keys = stage.times(COLD_KEYS)
    ideal = keys * LATENCY / POOL
    with opened(served, POOL) as (runner, provider, wrapped):
        runner.run(rate(lambda: unwrapped(provider, wrapped), POOL, POOL))
        took = keys / runner.run(rate(lambda: unwrapped(provider, wrapped), keys, WAITING))
    ratio = took / ideal
    what = f"AWS_KMS, {keys:,} cold keys, service {LATENCY * 1000:g} ms late, pool {POOL}"
    return Row(what, "s", took, ideal, "ideal", ratio, "ratio <= 1.2", ratio <= 1.2, f"{WAITING} misses at once")


async def unwrapped(provider: Provider, wrapped: WrappedKey) -> None:
    wipe(await provider.unwrap_key(wrapped, CONTEXT))


@contextmanager
def bare_client(runner: asyncio.Runner, served: ServedAws, pool: int) -> Iterator[Callable[[WrappedKey], Any]]:
    config = AioConfig(max_pool_connections=pool, retries={"total_max_attempts": 1})
    context = CONTEXT.as_strings()
    opening = get_session().create_client("kms", **address(served), config=config)
    client = runner.run(opening.__aenter__())
    try:
        yield lambda wrapped: client.decrypt(KeyId=wrapped.kek, CiphertextBlob=wrapped.blob, EncryptionContext=context)
    finally:
        runner.run(opening.__aexit__(None, None, None))


def blocking_client(served: ServedAws) -> Any:
    config = Config(max_pool_connections=CALLERS, retries={"total_max_attempts": 1})
    return boto3.client("kms", **address(served), config=config)


def address(served: ServedAws) -> dict[str, str]:
    return {
        "region_name": REGION,
        "endpoint_url": served.endpoint,
        "aws_access_key_id": served.access_key,
        "aws_secret_access_key": served.secret_key,
    }


async def middle(call: Callable[[], Any], times: int) -> float:
    """The median time of a call, one after another, in seconds."""
    took = []
    for _ in range(times):
        began = perf_counter()
        await call()
        took.append(perf_counter() - began)
    return median(took)


async def rate(call: Callable[[], Any], times: int, callers: int) -> float:
    """Calls a second, `callers` at once."""
    turns = iter(range(times))

    async def caller() -> None:
        for _ in turns:
            await call()

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return times / (perf_counter() - began)


def threaded(threads: ThreadPoolExecutor, client: Any, wrapped: WrappedKey, times: int) -> float:
    context = CONTEXT.as_strings()

    def call(_turn: int) -> None:
        client.decrypt(KeyId=wrapped.kek, CiphertextBlob=wrapped.blob, EncryptionContext=context)

    began = perf_counter()
    list(threads.map(call, range(times)))
    return times / (perf_counter() - began)
