"""Keys of `DataPlane.stats()`. Counters only grow, from the start of the workers; gauges are marked.

key_hits, key_misses, coalesced (misses that joined one already asked for), parked_total, park_timeouts, accepted,
refused_connections, closed_idle, closed_stalled, closed_garbage, closed_buffers, http_connections, bytes_in,
bytes_out: int.
Gauges: parked_now, parked_bytes, buffer_bytes, blocked, connections, workers, keys_cached, key_capacity: int.
keys_evicted, keys_expired: int.
requests, items: {operation: int}. failed_items, failed_requests: {error code: int}.
latency_ns: {upper bound in ns: requests}, in order, empty buckets left out; from bytes read to response written,
requests that had their keys. parked_latency_ns: the same for requests that waited for a key.
"""

OPERATIONS: tuple[str, ...]
