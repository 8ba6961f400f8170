"""Counters of all workers as one dictionary; the keys are listed in stats.pyi."""

from libc.stdint cimport uint32_t, uint64_t

from fastpath.atomics cimport load_relaxed_u32, load_relaxed_u64
from fastpath.plane cimport BUCKETS, Counters, Plane

OPERATIONS = ("hello", "encrypt", "decrypt", "blind_index", "reencrypt")


cdef uint64_t total(Plane* plane, size_t offset) noexcept:
    """One counter, by its place in Counters, summed over workers."""
    cdef uint64_t n = 0
    cdef uint32_t i
    for i in range(plane.n_workers):
        n += load_relaxed_u64(<uint64_t*>(<char*>&plane.workers[i].counters + offset))
    return n


cdef size_t place(uint64_t* field, Counters* base) noexcept:
    return <char*>field - <char*>base


cdef dict by_code(Plane* plane, Counters* base, uint64_t* first):
    return {code: n for code in range(32) if (n := total(plane, place(first + code, base)))}


cdef dict histogram(Plane* plane, Counters* base, uint64_t* first):
    """Counts by upper bound in nanoseconds, empty buckets left out, in order."""
    cdef int i
    counts = {}
    for i in range(64, BUCKETS):
        n = total(plane, place(first + i, base))
        if n:
            counts[((17 + i % 16) << (i // 16)) >> 4] = n
    return counts


cdef dict collect(Plane* plane):
    cdef Counters shape
    cdef Counters* c = &shape
    scalars = {
        "key_hits": place(&c.key_hits, c),
        "key_misses": place(&c.key_misses, c),
        "coalesced": place(&c.coalesced, c),
        "parked_total": place(&c.parked_total, c),
        "park_timeouts": place(&c.park_timeouts, c),
        "accepted": place(&c.accepted, c),
        "refused_connections": place(&c.refused_connections, c),
        "closed_idle": place(&c.closed_idle, c),
        "closed_stalled": place(&c.closed_stalled, c),
        "closed_garbage": place(&c.closed_garbage, c),
        "closed_buffers": place(&c.closed_buffers, c),
        "http_connections": place(&c.http_connections, c),
        "bytes_in": place(&c.bytes_in, c),
        "bytes_out": place(&c.bytes_out, c),
        "parked_now": place(&c.parked_now, c),
        "parked_bytes": place(&c.parked_bytes, c),
        "buffer_bytes": place(&c.buffer_bytes, c),
        "blocked": place(&c.blocked, c),
    }
    result = {name: total(plane, offset) for name, offset in scalars.items()}
    result["workers"] = plane.n_workers
    result["connections"] = load_relaxed_u64(&plane.connections.used)
    result["requests"] = {name: total(plane, place(&c.requests[op], c)) for op, name in enumerate(OPERATIONS)}
    result["items"] = {name: total(plane, place(&c.items[op], c)) for op, name in enumerate(OPERATIONS)}
    result["failed_items"] = by_code(plane, c, c.failed_items)
    result["failed_requests"] = by_code(plane, c, c.failed_requests)
    result["latency_ns"] = histogram(plane, c, c.latency)
    result["parked_latency_ns"] = histogram(plane, c, c.parked_latency)
    result["keys_cached"] = load_relaxed_u32(&plane.cache.live)
    result["key_capacity"] = plane.cache.capacity
    result["keys_evicted"] = load_relaxed_u64(&plane.cache.evicted)
    result["keys_expired"] = load_relaxed_u64(&plane.cache.expired)
    return result
