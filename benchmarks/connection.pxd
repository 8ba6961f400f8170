"""One connection of the load generator: a ring of prepared requests, and the check of every answer."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from benchmarks.histogram cimport Counts

cdef enum Framing:
    KEYSIDE = 0                # docs/spec/wire.md
    LIMIT = 1                  # u32 of the machine's byte order, payload; answers in order, without an id

cdef enum:                     # failures; below 256: a status or an item's code of the protocol
    CLOSED = 256               # the peer closed with requests unanswered
    MALFORMED = 257            # bytes that are not an answer; the connection is dropped
    MISMATCH = 258             # a well-formed answer with a wrong id, count, length or value
    TIMEOUT = 259              # no answer within the patience of the run
    REFUSED = 260              # could not connect
    FAILURES = 261

cdef enum:
    FIRST_ID = 65536           # from here on every id takes five bytes in MessagePack, at a fixed place
    ID_OFFSET = 6              # u32 length, array header, uint32 marker
    SAMPLES = 24
    MAX_REPLY = 1 << 28

cdef struct Exchange:
    const uint8_t* request     # a whole frame
    size_t request_bytes
    const uint8_t* reply       # the expected items one after another, or NULL: envelopes, checked by shape
    uint32_t items
    uint32_t item_bytes        # of every item in the answer

cdef struct Sample:
    uint32_t exchange
    uint32_t length
    uint8_t* body              # owned: the answer without its length

cdef struct Tally:
    # Of a whole run; one thread.
    Framing framing
    const Exchange* exchanges
    uint32_t exchange_count
    uint64_t good
    uint64_t good_items
    uint64_t failures[FAILURES]
    Counts* latency
    uint64_t next_sample       # the value of `good` at which an answer is kept: 1, 2, 4, 8 ...
    uint32_t sample_count
    Sample samples[SAMPLES]

cdef struct Connection:
    int fd                     # -1 once closed
    uint32_t number
    uint32_t window            # requests that may be unanswered at once
    uint8_t* ring              # `window` requests, one after another
    size_t ring_bytes
    size_t* offsets            # of each request in the ring; window + 1 of them
    uint8_t* pending           # a byte a request of the ring: 1 while unanswered
    size_t tail                # next byte of the ring to write
    size_t unsent              # bytes from there on that may be written
    uint64_t issued            # requests handed to the socket so far
    uint64_t settled           # and answered, well or badly
    uint64_t base_ns           # request i was due at base_ns + i * step_ns
    uint64_t step_ns
    uint64_t finished_ns
    uint8_t* inbox
    size_t inbox_bytes
    size_t received

cdef uint64_t clock_ns() noexcept nogil
cdef int open_connection(
    Connection* c, const Tally* tally, const char* path, uint32_t number, uint32_t window
) noexcept nogil                                         # 0; -1 with errno
cdef void close_connection(Connection* c) noexcept nogil
cdef void issue(Connection* c, const Tally* tally) noexcept nogil
cdef int flush(Connection* c) noexcept nogil             # 1: all written; 0: the socket is full; -1: closed
# 1: got something; 0: nothing there; -1: closed or broken
cdef int receive(Connection* c, Tally* tally, int flags) noexcept nogil
# counts what is unanswered as `failure` and closes
cdef void abandon(Connection* c, Tally* tally, int failure) noexcept nogil
