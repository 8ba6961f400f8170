"""A request frame, parsed without copying: every pointer of a Request points into the frame's bytes."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum ContextKind:
    CONTEXT_NONE = 0
    CONTEXT_ONE = 1      # for all items
    CONTEXT_EACH = 2     # one an item

cdef enum Parsed:
    PARSED = 0
    REFUSED = 1          # BAD_REQUEST; the connection stays
    REFUSED_CLOSE = 2    # BAD_REQUEST; the frame's shape cannot be trusted, nor can what follows it

cdef struct Request:
    # Written by parse_request, read by the same worker, valid while the frame's bytes are.
    uint32_t id              # 0 when it could not be read
    uint32_t op
    const uint8_t* name
    uint32_t name_len
    uint32_t context_kind
    const uint8_t* context   # CONTEXT_ONE: the bytes; CONTEXT_EACH: the first element's head
    uint32_t context_len     # CONTEXT_ONE
    const uint8_t* items     # the first item's head
    uint32_t n_items
    uint32_t n_present       # items that are not nil
    const uint8_t* end       # one past the frame's last byte

cdef int parse_request(const uint8_t* body, size_t n, Request* request) noexcept nogil
cdef bint valid_name(const uint8_t* name, uint32_t n) noexcept nogil
