"""The frame codec of docs/spec/wire.md: request parsing. Responses are written in place by the worker."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastpath.msgpack cimport is_array, is_str, read_array, read_blob, read_uint
from fastpath.protocol cimport CONTEXT_MAX, ITEMS_MAX, KEYRING_MAX, NAME_MAX, OP_COUNT, OP_HELLO, PARTITION_MAX


cdef int parse_request(const uint8_t* body, size_t n, Request* request) noexcept nogil:
    """Parse one frame body of n bytes. Looks at every byte of its structure, so that later passes need no checks."""
    cdef const uint8_t* p = body
    cdef const uint8_t* end = body + n
    cdef uint32_t fields
    cdef uint64_t value
    cdef bint good = True
    memset(request, 0, sizeof(Request))
    request.end = end
    p = read_array(p, end, &fields)
    if p == NULL or fields != 5:
        return REFUSED_CLOSE
    p = read_uint(p, end, &value)
    if p == NULL or value > 0xFFFFFFFFu:
        return REFUSED_CLOSE
    request.id = <uint32_t>value
    p = read_uint(p, end, &value)
    if p == NULL:
        return REFUSED_CLOSE
    if value >= OP_COUNT:
        good = False
    request.op = <uint32_t>value if good else OP_COUNT
    if p == end or not is_str(p[0]):
        return REFUSED_CLOSE
    p = read_blob(p, end, &request.name, &request.name_len)
    if p == NULL:
        return REFUSED_CLOSE
    if request.name_len > NAME_MAX:
        good = False
    cdef uint32_t n_contexts = 0
    p = read_context(p, end, request, &n_contexts, &good)
    if p == NULL:
        return REFUSED_CLOSE
    p = read_items(p, end, request)
    if p == NULL or p != end:
        return REFUSED_CLOSE
    if request.op == OP_HELLO:
        # its shape had to be right, its values count for nothing
        return PARSED
    if request.n_items > ITEMS_MAX:
        good = False
    if request.context_kind == CONTEXT_EACH and n_contexts != request.n_items:
        good = False
    return PARSED if good else REFUSED


cdef const uint8_t* read_context(const uint8_t* p, const uint8_t* end, Request* request,
                                 uint32_t* count, bint* good) noexcept nogil:
    cdef const uint8_t* data
    cdef uint32_t length, _i
    if p == end:
        return NULL
    if not is_array(p[0]):
        p = read_blob(p, end, &request.context, &request.context_len)
        if p == NULL:
            return NULL
        request.context_kind = CONTEXT_NONE if request.context == NULL else CONTEXT_ONE
        if request.context_len > CONTEXT_MAX:
            good[0] = False
        return p
    p = read_array(p, end, count)
    if p == NULL or count[0] > <size_t>(end - p):
        return NULL
    request.context_kind = CONTEXT_EACH
    request.context = p
    for _i in range(count[0]):
        p = read_blob(p, end, &data, &length)
        if p == NULL:
            return NULL
        if length > CONTEXT_MAX:
            good[0] = False
    return p


cdef const uint8_t* read_items(const uint8_t* p, const uint8_t* end, Request* request) noexcept nogil:
    cdef const uint8_t* data
    cdef uint32_t length, _i, present = 0
    p = read_array(p, end, &request.n_items)
    # an item takes at least a byte: a count that lies is refused before anything is done with it
    if p == NULL or request.n_items > <size_t>(end - p):
        return NULL
    request.items = p
    for _i in range(request.n_items):
        p = read_blob(p, end, &data, &length)
        if p == NULL:
            return NULL
        present += data != NULL
    request.n_present = present
    return p


cdef bint valid_name(const uint8_t* name, uint32_t n) noexcept nogil:
    """Whether name is `keyring` or `keyring/partition` as docs/spec/wire.md allows them."""
    cdef uint32_t i, slash = n
    for i in range(n):
        if name[i] == c'/':
            slash = i
            break
        if not name_byte(name[i]):
            return False
    if slash == 0 or slash > KEYRING_MAX or name[0] in (c'_', c'.', c'-'):
        return False
    if slash == n:
        return True
    return valid_partition(name + slash + 1, n - slash - 1)


cdef inline bint name_byte(uint8_t c) noexcept nogil:
    return (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9'
            or c == c'_' or c == c'.' or c == c'-')


cdef bint valid_partition(const uint8_t* s, uint32_t n) noexcept nogil:
    """1 to 128 bytes of UTF-8 (RFC 3629: no surrogates, no overlong forms) without control characters."""
    cdef uint32_t i = 0, more, low
    cdef uint32_t c
    if n < 1 or n > PARTITION_MAX:
        return False
    while i < n:
        c = s[i]
        i += 1
        if c < 0x20 or c == 0x7F:
            return False
        if c < 0x80:
            continue
        if 0xC2 <= c <= 0xDF:
            more = 1
            low = 0x80
            c &= 0x1F
        elif 0xE0 <= c <= 0xEF:
            more = 2
            low = 0x800
            c &= 0x0F
        elif 0xF0 <= c <= 0xF4:
            more = 3
            low = 0x10000
            c &= 0x07
        else:
            return False
        while more:
            if i == n or s[i] & 0xC0 != 0x80:
                return False
            c = c << 6 | (s[i] & 0x3F)
            i += 1
            more -= 1
        if c < low or c > 0x10FFFF or 0xD800 <= c <= 0xDFFF:
            return False
    return True


def parse(bytes body not None):
    """The request in `body` as a tuple (id, op, keyring, context, items), HELLO's values left out; or (refusal, id).

    A refusal is REFUSED (1) or REFUSED_CLOSE (2). For tests against the plain-Python twin; goes through the same
    function as the workers.
    """
    cdef Request request
    cdef const uint8_t* base = body
    cdef int outcome = parse_request(base, len(body), &request)
    if outcome == PARSED and request.op == OP_HELLO:
        return request.id, OP_HELLO, b"", None, []
    if outcome == PARSED and not valid_name(request.name, request.name_len):
        outcome = REFUSED
    if outcome != PARSED:
        return outcome, request.id
    if request.context_kind == CONTEXT_EACH:
        context = blobs(request.context, request.end, request.n_items)
    else:
        context = None if request.context == NULL else request.context[:request.context_len]
    return (request.id, request.op, request.name[:request.name_len], context,
            blobs(request.items, request.end, request.n_items))


cdef list blobs(const uint8_t* p, const uint8_t* end, uint32_t count):
    cdef const uint8_t* data
    cdef uint32_t length, _i
    values = []
    for _i in range(count):
        p = read_blob(p, end, &data, &length)
        values.append(None if data == NULL else data[:length])
    return values
