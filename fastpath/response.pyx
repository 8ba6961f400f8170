"""The response buffer of a worker, and the responses that carry no items."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen

from fastpath.arena cimport secret_wipe
from fastpath.atomics cimport bump_u64
from fastpath.msgpack cimport put_array, put_be32, put_str, put_uint32
from fastpath.plane cimport Worker
from fastpath.protocol cimport (
    BAD_REQUEST, DENIED, INTERNAL, KMS_UNAVAILABLE, OVERLOADED, RATE_LIMITED, SHUTTING_DOWN, UNKNOWN_KEYRING,
)


cdef bint reserve(Worker* w, size_t n) noexcept nogil:
    """Room for n more bytes in w.out; False without memory."""
    cdef size_t room = w.out_room
    cdef uint8_t* larger
    if w.out_room - w.out_n >= n:
        return True
    while room - w.out_n < n:
        room *= 2
    larger = <uint8_t*>malloc(room)
    if larger == NULL:
        return False
    memcpy(larger, w.out, w.out_n)
    secret_wipe(w.out, w.out_n)
    free(w.out)
    w.out = larger
    w.out_room = room
    return True


cdef void rewind(Worker* w, size_t n) noexcept nogil:
    secret_wipe(w.out + n, w.out_n - n)
    w.out_n = n


cdef void finish_frame(Worker* w, size_t start) noexcept nogil:
    put_be32(w.out + start, <uint32_t>(w.out_n - start - 4))


cdef bint reply_error(Worker* w, uint32_t request_id, int code) noexcept nogil:
    """Append [id, code, message]; False without memory."""
    cdef const char* message = code_message(code)
    cdef uint32_t n = <uint32_t>strlen(message)
    cdef size_t start = w.out_n
    if not reserve(w, HEAD_BYTES + 2 + n):
        return False
    w.out_n += 4
    w.out_n += put_array(w.out + w.out_n, 3)
    w.out_n += put_uint32(w.out + w.out_n, request_id)
    w.out_n += put_uint32(w.out + w.out_n, code)
    w.out_n += put_str(w.out + w.out_n, n)
    memcpy(w.out + w.out_n, message, n)
    w.out_n += n
    finish_frame(w, start)
    bump_u64(&w.counters.failed_requests[code], 1)
    return True


cdef const char* code_message(int code) noexcept nogil:
    """What to do next; under 256 bytes each, the same for everybody."""
    if code == BAD_REQUEST:
        return b"malformed keyring name or request, or a limit exceeded: compare it with docs/spec/wire.md"
    if code == DENIED:
        return b"this peer may not do this on this keyring: extend policy.peers in the sidecar's configuration"
    if code == UNKNOWN_KEYRING:
        return b"no such keyring, or a partition is missing or not allowed: see 'keyside keyring list'"
    if code == RATE_LIMITED:
        return b"over this peer's rate: slow down, or raise the rate in policy.peers"
    if code == OVERLOADED:
        return (b"too many requests wait for data keys, or this one needs more of them than the cache holds at once: "
                b"try again after a pause, or raise cache.keys")
    if code == KMS_UNAVAILABLE:
        return b"the data key is not cached and the key service did not answer in time: try again"
    if code == SHUTTING_DOWN:
        return b"the sidecar is shutting down: try again on a new connection"
    if code == INTERNAL:
        return b"a defect or damaged key record: the sidecar's log has the details"
    return b"the data key that is needed cannot be used: see the status code in docs/spec/wire.md"


cdef bint reply_hello(Worker* w, uint32_t request_id) noexcept nogil:
    cdef size_t start = w.out_n
    if not reserve(w, HEAD_BYTES + w.plane.hello_n):
        return False
    w.out_n += 4
    w.out_n += put_array(w.out + w.out_n, 3)
    w.out_n += put_uint32(w.out + w.out_n, request_id)
    w.out[w.out_n] = 0
    w.out_n += 1
    memcpy(w.out + w.out_n, w.plane.hello, w.plane.hello_n)
    w.out_n += w.plane.hello_n
    finish_frame(w, start)
    return True
