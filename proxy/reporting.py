"""The two views of the sidecar for operators: the status document and the Prometheus metrics."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy import __version__
from proxy.frames import Status
from proxy.metrics import Family, Kind, histogram, render
from proxy.status import Reading
from proxy.watch import HEALTHS, PartHealth

if TYPE_CHECKING:
    from fastpath.memory import MemoryReport
    from providers import Description, PoolUsage

# powers of two of nanoseconds, 1 us to 17 s: the data plane's own finer buckets end there too
LATENCY_BOUNDS: Final = tuple(1 << power for power in range(10, 35))

# name in fastpath/stats.pyi: (metric, kind, meaning)
_PLANE: Final[Mapping[str, tuple[str, Kind, str]]] = {
    "keys_cached": ("keyside_cached_keys", "gauge", "Data keys in locked memory."),
    "key_capacity": ("keyside_cached_keys_capacity", "gauge", "Data keys that fit in locked memory."),
    "key_hits": ("keyside_key_cache_hits_total", "counter", "Lookups of a data key that was cached."),
    "key_misses": ("keyside_key_cache_misses_total", "counter", "Lookups of a data key that was not cached."),
    "coalesced": ("keyside_key_cache_coalesced_total", "counter", "Misses that joined one already under way."),
    "keys_evicted": ("keyside_key_cache_evictions_total", "counter", "Data keys removed to make room."),
    "keys_expired": ("keyside_key_cache_expired_total", "counter", "Data keys removed because their time was up."),
    "parked_now": ("keyside_parked_requests", "gauge", "Requests that wait for a data key."),
    "parked_bytes": ("keyside_parked_bytes", "gauge", "Bytes of requests that wait for a data key."),
    "parked_total": ("keyside_parked_requests_total", "counter", "Requests that had to wait for a data key."),
    "park_timeouts": ("keyside_park_timeouts_total", "counter", "Requests that waited for a data key for too long."),
    "connections": ("keyside_connections", "gauge", "Open connections on the data socket."),
    "blocked": ("keyside_connections_blocked", "gauge", "Connections whose peer does not read its answers."),
    "buffer_bytes": ("keyside_buffer_bytes", "gauge", "Half-received requests and unread answers."),
    "accepted": ("keyside_connections_accepted_total", "counter", "Connections accepted."),
    "refused_connections": ("keyside_connections_refused_total", "counter", "Connections over the limit."),
    "http_connections": ("keyside_http_connections_total", "counter", "Connections that speak HTTP."),
    "bytes_in": ("keyside_received_bytes_total", "counter", "Bytes received by workers."),
    "bytes_out": ("keyside_sent_bytes_total", "counter", "Bytes sent by workers."),
}
_CLOSED: Final = ("idle", "stalled", "garbage", "buffers")


@dataclass(frozen=True)
class Facts:
    """What both views need besides the data plane's counters."""

    uptime_seconds: float
    state: str
    provider: "Description"
    provider_health: PartHealth
    pool: "PoolUsage"
    memory: "MemoryReport"
    workers: int
    http: Mapping[str, int]
    keys: Mapping[str, int]  # KeyService.stats()
    provider_calls: Sequence[tuple[float, int]]  # Latency.buckets()
    store: Mapping[str, int]  # Keystore.stats()
    warnings: tuple[str, ...]


def status(facts: Facts, now: Reading, recent: dict[str, object]) -> dict[str, object]:
    """What `keyside status` shows, for `GET /v1/status`."""
    numbers, memory = now.numbers, facts.memory
    return {
        "version": __version__,
        "pid": os.getpid(),
        "state": facts.state,
        "uptime_seconds": round(facts.uptime_seconds, 3),
        "workers": facts.workers,
        "provider": {"name": facts.provider.provider, "kek": facts.provider.kek, "pool": asdict(facts.pool)},
        "memory": {
            "kind": memory.kind,
            "locked_bytes": memory.locked_bytes,
            "limit_bytes": None if memory.limit_bytes < 0 or memory.privileged else memory.limit_bytes,
            "bytes_per_key": memory.bytes_per_key,
            "resident_bytes": resident_bytes(),
        },
        "keys": {
            "cached": numbers["keys_cached"],
            "capacity": numbers["key_capacity"],
            "hits": numbers["key_hits"],
            "misses": numbers["key_misses"],
            "evicted": numbers["keys_evicted"],
            "expired": numbers["keys_expired"],
        },
        "recent": recent,
        "operations": {name: {"requests": now.requests[name], "items": now.items[name]} for name in now.requests},
        "waiting": {
            name: numbers[name] for name in ("parked_now", "parked_bytes", "parked_total", "park_timeouts", "coalesced")
        },
        "connections": {
            "open": numbers["connections"],
            "accepted": numbers["accepted"],
            "refused": numbers["refused_connections"],
            "http": facts.http["open"],
        },
        "errors": _errors(now),
        "key_service": dict(facts.keys),
        "keystore": dict(facts.store),
        "warnings": list(facts.warnings),
    }


def metrics(facts: Facts, now: Reading) -> str:
    """The text for `GET /metrics`."""
    return render([*_process(facts), *_plane(now), *_requests(now), *_control(facts)])


def _errors(now: Reading) -> dict[str, int]:
    counts: dict[str, int] = {}
    for by_code in (now.failed_requests, now.failed_items):
        for code, count in by_code.items():
            counts[_name(code)] = counts.get(_name(code), 0) + count
    return counts


def _name(code: int) -> str:
    return Status(code).name if code in set(Status) else str(code)


def _process(facts: Facts) -> Iterator[Family]:
    yield Family("keyside_info", "gauge", "What runs; always 1.").add(
        1, version=__version__, provider=facts.provider.provider, memory=facts.memory.kind
    )
    yield Family("keyside_uptime_seconds", "gauge", "Time since the sidecar began to serve.").add(facts.uptime_seconds)
    yield Family("keyside_draining", "gauge", "1 while stopping.").add(facts.state == "draining")
    yield Family("keyside_workers", "gauge", "Native threads that serve.").add(facts.workers)
    yield Family("keyside_locked_memory_bytes", "gauge", "Locked memory for keys.").add(facts.memory.locked_bytes)
    if facts.memory.limit_bytes >= 0 and not facts.memory.privileged:
        limit = Family("keyside_locked_memory_limit_bytes", "gauge", "RLIMIT_MEMLOCK; absent: no limit.")
        yield limit.add(facts.memory.limit_bytes)
    yield Family("process_resident_memory_bytes", "gauge", "Resident memory.").add(resident_bytes())


def _plane(now: Reading) -> Iterator[Family]:
    for name, (metric, kind, meaning) in _PLANE.items():
        yield Family(metric, kind, meaning).add(now.numbers[name])
    closed = Family("keyside_connections_closed_total", "counter", "Connections that the sidecar closed, by reason.")
    for reason in _CLOSED:
        closed.add(now.numbers[f"closed_{reason}"], reason=reason)
    yield closed


def _requests(now: Reading) -> Iterator[Family]:
    requests = Family("keyside_requests_total", "counter", "Requests, by operation.")
    items = Family("keyside_items_total", "counter", "Items of requests, by operation.")
    for name in now.requests:
        requests.add(now.requests[name], operation=name)
        items.add(now.items[name], operation=name)
    yield from (requests, items)
    for metric, meaning, by_code in (
        ("keyside_failed_requests_total", "Requests that failed as a whole, by error.", now.failed_requests),
        ("keyside_failed_items_total", "Items that failed, by error.", now.failed_items),
    ):
        failed = Family(metric, "counter", meaning)
        for code in Status:
            if code >= Status.BAD_REQUEST:
                failed.add(by_code.get(code, 0), error=code.name)
        yield failed
    for metric, meaning, observed in (
        (
            "keyside_request_duration_seconds",
            "Bytes read to answer written, of requests that had their keys.",
            now.latency,
        ),
        ("keyside_waited_request_duration_seconds", "The same, of requests that waited for a data key.", now.waited),
    ):
        buckets = [(bound * 1e-9, observed.at_most(bound)) for bound in LATENCY_BOUNDS]
        yield histogram(metric, meaning, buckets, observed.total)


def _control(facts: Facts) -> Iterator[Family]:
    http = Family("keyside_http_requests_total", "counter", "Requests over HTTP, by outcome.")
    yield http.add(facts.http["requests"] - facts.http["failed"], outcome="ok").add(
        facts.http["failed"], outcome="failed"
    )
    keystore = Family("keyside_keystore_operations_total", "counter", "Keystore reads and writes, and transactions.")
    for name, count in facts.store.items():
        keystore.add(count, operation=name)
    yield keystore
    work = Family(
        "keyside_key_service_total", "counter", "Work on data keys: unwraps, wraps, creations, leases and so on."
    )
    failures = Family(
        "keyside_key_service_failures_total", "counter", "Data keys that could not be had, by kind of failure."
    )
    for name, count in facts.keys.items():
        if name.startswith("failed_"):
            failures.add(count, kind=name.removeprefix("failed_"))
        else:
            work.add(count, work=name)
    yield from (work, failures)
    yield from _provider(facts)


def _provider(facts: Facts) -> Iterator[Family]:
    pool = Family("keyside_provider_pool", "gauge", "Connections to the HSM or KMS, and calls that wait for one.")
    for state in ("active", "idle", "waiting"):
        pool.add(getattr(facts.pool, state), state=state)
    yield pool
    size = Family("keyside_provider_pool_size", "gauge", "The most connections to the HSM or KMS.")
    yield size.add(facts.pool.size)
    health = Family("keyside_provider_health", "gauge", "1 for what the last health check of the provider found.")
    for status in HEALTHS:
        health.add(status == facts.provider_health.status, status=status)
    yield health
    *buckets, (_, total) = facts.provider_calls
    yield histogram(
        "keyside_provider_call_duration_seconds",
        "Wraps and unwraps by the HSM or KMS, with retries and the wait for a connection, without the wait for a turn.",
        buckets,
        total,
    )


def resident_bytes(status_file: Path = Path("/proc/self/status")) -> int:
    """Resident memory of this process."""
    for line in status_file.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
