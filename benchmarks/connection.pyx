"""Sending prepared requests and checking each answer; see connection.pxd for the structs."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from benchmarks.histogram cimport count


cdef extern from "<sys/socket.h>" nogil:
    int AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    int socket(int, int, int)
    int connect(int, const sockaddr*, socklen_t)
    ssize_t send(int, const void*, size_t, int)
    ssize_t recv(int, void*, size_t, int)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t)
    uint32_t ntohl(uint32_t)

cdef enum:
    INBOX_BYTES = 262144


cdef uint64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef const Exchange* exchange_of(const Connection* c, const Tally* tally, uint32_t slot) noexcept nogil:
    return &tally.exchanges[(<uint64_t>c.number * c.window + slot) % tally.exchange_count]


cdef int prepare(Connection* c, const Tally* tally) noexcept nogil:
    """Lay out the ring of requests; -1 without memory."""
    cdef uint32_t slot
    cdef const Exchange* exchange
    c.offsets = <size_t*>malloc((<size_t>c.window + 1) * sizeof(size_t))
    c.pending = <uint8_t*>calloc(c.window, 1)
    c.inbox_bytes = INBOX_BYTES
    c.inbox = <uint8_t*>malloc(c.inbox_bytes)
    if c.offsets == NULL or c.pending == NULL or c.inbox == NULL:
        return -1
    c.ring_bytes = 0
    for slot in range(c.window):
        c.offsets[slot] = c.ring_bytes
        c.ring_bytes += exchange_of(c, tally, slot).request_bytes
    c.offsets[c.window] = c.ring_bytes
    c.ring = <uint8_t*>malloc(c.ring_bytes)
    if c.ring == NULL:
        return -1
    for slot in range(c.window):
        exchange = exchange_of(c, tally, slot)
        memcpy(c.ring + c.offsets[slot], exchange.request, exchange.request_bytes)
    return 0


cdef int open_connection(
    Connection* c, const Tally* tally, const char* path, uint32_t number, uint32_t window
) noexcept nogil:
    """0; -1 with errno when it cannot connect or has no memory. close_connection is due either way."""
    cdef sockaddr_un address
    memset(c, 0, sizeof(Connection))
    c.fd = -1
    c.number = number
    c.window = window
    if prepare(c, tally) < 0:
        return -1
    memset(&address, 0, sizeof(address))
    address.sun_family = AF_UNIX
    memcpy(address.sun_path, path, strlen(path))
    c.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if c.fd < 0:
        return -1
    return connect(c.fd, <sockaddr*>&address, sizeof(address))


cdef void close_connection(Connection* c) noexcept nogil:
    if c.fd >= 0:
        close(c.fd)
    c.fd = -1
    free(c.ring)
    free(c.offsets)
    free(c.pending)
    free(c.inbox)
    c.ring = c.pending = c.inbox = NULL
    c.offsets = NULL


cdef void abandon(Connection* c, Tally* tally, int failure) noexcept nogil:
    tally.failures[failure] += c.issued - c.settled
    c.settled = c.issued
    c.unsent = 0
    c.finished_ns = clock_ns()
    if c.fd >= 0:
        close(c.fd)
    c.fd = -1


cdef void issue(Connection* c, const Tally* tally) noexcept nogil:
    """Make the next request of the ring ready to be written. Its slot must be answered."""
    cdef uint32_t slot = c.issued % c.window
    cdef uint32_t wire_id
    if tally.framing == KEYSIDE:
        wire_id = htonl(<uint32_t>(FIRST_ID + c.issued))
        memcpy(c.ring + c.offsets[slot] + ID_OFFSET, &wire_id, 4)
    c.pending[slot] = 1
    c.unsent += c.offsets[slot + 1] - c.offsets[slot]
    c.issued += 1


cdef int flush(Connection* c) noexcept nogil:
    cdef size_t piece
    cdef ssize_t written
    while c.unsent:
        piece = min(c.unsent, c.ring_bytes - c.tail)
        written = send(c.fd, c.ring + c.tail, piece, MSG_DONTWAIT | MSG_NOSIGNAL)
        if written < 0:
            if errno == EINTR:
                continue
            return 0 if errno == EAGAIN else -1
        c.unsent -= written
        c.tail += written
        if c.tail == c.ring_bytes:
            c.tail = 0
    return 1


cdef bint read_uint(const uint8_t** at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """A MessagePack unsigned integer, any width; False when there is none."""
    cdef uint8_t marker
    cdef int width
    if at[0] >= end:
        return False
    marker = at[0][0]
    at[0] += 1
    if marker < 0x80:
        value[0] = marker
        return True
    if not 0xCC <= marker <= 0xCF:
        return False
    width = 1 << (marker - 0xCC)
    if end - at[0] < width:
        return False
    value[0] = 0
    while width:
        value[0] = value[0] << 8 | at[0][0]
        at[0] += 1
        width -= 1
    return True


cdef bint read_length(
    const uint8_t** at, const uint8_t* end, int narrow, int widest, uint64_t* length
) noexcept nogil:
    """A big-endian length of 1, 2 or 4 bytes behind the markers narrow..widest; False when there is none."""
    cdef int width, marker
    if at[0] >= end or not narrow <= at[0][0] <= widest:
        return False
    marker = at[0][0]
    width = 4 >> (widest - marker)
    at[0] += 1
    if end - at[0] < width:
        return False
    length[0] = 0
    while width:
        length[0] = length[0] << 8 | at[0][0]
        at[0] += 1
        width -= 1
    return True


cdef bint read_array(const uint8_t** at, const uint8_t* end, uint64_t* length) noexcept nogil:
    if at[0] < end and at[0][0] & 0xF0 == 0x90:
        length[0] = at[0][0] & 0x0F
        at[0] += 1
        return True
    return read_length(at, end, 0xDC, 0xDD, length)


cdef int check_items(const uint8_t* at, const uint8_t* end, const Exchange* want) noexcept nogil:
    """0 when every item is as expected, else the failure; the first failed item's code when there is one."""
    cdef uint64_t number = 0, length = 0
    cdef const uint8_t* expected = want.reply
    if not read_array(&at, end, &number):
        return MALFORMED
    if number != want.items:
        return MISMATCH
    while number:
        number -= 1
        if not read_length(&at, end, 0xC4, 0xC6, &length):
            if read_uint(&at, end, &length):
                return <int>length if 0 < length < 256 else MISMATCH
            return MALFORMED
        if length > <uint64_t>(end - at):
            return MALFORMED
        if length != want.item_bytes:
            return MISMATCH
        if expected != NULL:
            if memcmp(at, expected, length):
                return MISMATCH
            expected += length
        elif length < 2 or at[0] != 0xC1 or at[1] != 0x01:
            return MISMATCH
        at += length
    return 0 if at == end else MALFORMED


cdef int find_slot(const Connection* c, uint64_t index, uint32_t* slot) noexcept nogil:
    """0 when request number `index` is unanswered, else MISMATCH."""
    if index >= c.issued or c.issued - index > c.window:
        return MISMATCH
    slot[0] = index % c.window
    return 0 if c.pending[slot[0]] else MISMATCH


cdef int check_keyside(
    const Connection* c, const Tally* tally, const uint8_t* at, size_t n, uint64_t* index, uint32_t* slot
) noexcept nogil:
    cdef const uint8_t* end = at + n
    cdef uint64_t wire_id = 0, status = 0
    if n < 4 or at[0] != 0x93:
        return MALFORMED
    at += 1
    if not read_uint(&at, end, &wire_id) or not read_uint(&at, end, &status):
        return MALFORMED
    index[0] = wire_id - FIRST_ID
    if find_slot(c, index[0], slot):
        # id 0 is how the protocol refuses a frame it could not read, and then it closes
        return MALFORMED if wire_id == 0 else MISMATCH
    if status > 1:
        return <int>status if status < 256 else MISMATCH
    return check_items(at, end, exchange_of(c, tally, slot[0]))


cdef int check_limit(
    const Connection* c, const Tally* tally, const uint8_t* at, size_t n, uint64_t* index, uint32_t* slot
) noexcept nogil:
    cdef const Exchange* want
    index[0] = c.settled
    if find_slot(c, index[0], slot):
        return MALFORMED
    want = exchange_of(c, tally, slot[0])
    if n != want.item_bytes or (want.reply != NULL and memcmp(at, want.reply, n)):
        return MISMATCH
    return 0


cdef void keep_sample(const Connection* c, Tally* tally, const uint8_t* body, size_t n, uint32_t slot) noexcept nogil:
    cdef Sample* sample = &tally.samples[tally.sample_count]
    tally.next_sample *= 2
    sample.body = <uint8_t*>malloc(n)
    if sample.body == NULL:
        return
    memcpy(sample.body, body, n)
    sample.length = n
    sample.exchange = (<uint64_t>c.number * c.window + slot) % tally.exchange_count
    tally.sample_count += 1


cdef bint settle(Connection* c, Tally* tally, const uint8_t* body, size_t n, uint64_t now) noexcept nogil:
    """Count one answer. False when the connection can no longer be trusted."""
    cdef uint64_t index = 0, due
    cdef uint32_t slot = 0
    cdef int failure
    if tally.framing == KEYSIDE:
        failure = check_keyside(c, tally, body, n, &index, &slot)
    else:
        failure = check_limit(c, tally, body, n, &index, &slot)
    if failure == MALFORMED:
        return False
    if failure:
        tally.failures[failure] += 1
        if find_slot(c, index, &slot):
            return True
    c.pending[slot] = 0
    c.settled += 1
    if failure:
        return True
    due = c.base_ns + index * c.step_ns
    count(tally.latency, now - due if now > due else 0)
    tally.good += 1
    tally.good_items += exchange_of(c, tally, slot).items
    if tally.good == tally.next_sample and tally.sample_count < SAMPLES:
        keep_sample(c, tally, body, n, slot)
    return True


cdef int drain_inbox(Connection* c, Tally* tally, uint64_t now) noexcept nogil:
    """Settle every whole answer in the inbox and keep the rest; 0, or -1 when the bytes are no answer."""
    cdef size_t at = 0
    cdef uint32_t length = 0
    while c.received - at >= 4:
        memcpy(&length, c.inbox + at, 4)
        if tally.framing == KEYSIDE:
            length = ntohl(length)
        if length > MAX_REPLY:
            return -1
        if c.received - at - 4 < length:
            break
        if not settle(c, tally, c.inbox + at + 4, length, now):
            return -1
        at += 4 + <size_t>length
    c.received -= at
    if c.received and at:
        memmove(c.inbox, c.inbox + at, c.received)
    return 0


cdef int receive(Connection* c, Tally* tally, int flags) noexcept nogil:
    cdef ssize_t got
    cdef uint8_t* larger
    if c.received == c.inbox_bytes:
        larger = <uint8_t*>realloc(c.inbox, 2 * c.inbox_bytes)
        if larger == NULL:
            return -1
        c.inbox = larger
        c.inbox_bytes *= 2
    got = recv(c.fd, c.inbox + c.received, c.inbox_bytes - c.received, flags)
    if got < 0:
        return 0 if errno == EAGAIN or errno == EINTR else -1
    if got == 0:
        abandon(c, tally, CLOSED)
        return -1
    c.received += got
    if drain_inbox(c, tally, clock_ns()) < 0:
        tally.failures[MALFORMED] += 1
        if c.settled < c.issued:
            c.settled += 1
        abandon(c, tally, CLOSED)
        return -1
    return 1
