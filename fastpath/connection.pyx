"""A connection: reading frames, writing responses, buffers for what is half done. A worker's own: no locks.

Most connections own no buffer: whole frames are served from the worker's read buffer and answered from its response
buffer. What passed through either is wiped afterwards.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from fastpath.arena cimport secret_wipe
from fastpath.atomics cimport bump_u64
from fastpath.keycache cimport NO_SCOPE
from fastpath.mailbox cimport mailbox_put
from fastpath.msgpack cimport be32
from fastpath.parking cimport park_end
from fastpath.plane cimport BUCKETS, EVENT_HTTP, OUT_BYTES, READ_BYTES, Connection, Event, Worker
from fastpath.protocol cimport BAD_REQUEST
from fastpath.response cimport reply_error
from fastpath.serve cimport CLOSING, NO_MEMORY, SERVED, serve_frame
from fastpath.shares cimport Peer, peer_leave, pool_give, pool_take
from fastpath.sockets cimport (
    EAGAIN, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, MSG_DONTWAIT,
    MSG_NOSIGNAL, MSG_PEEK, close, epoll_set, errno, now_ns, recv, send,
)


cdef enum:
    PREFIX = 4             # the frame length
    FIRST_ROOM = 4096      # of an input buffer
    BROKEN = -1


# Opening and closing


cdef Connection* connection_open(Worker* w, int fd, Peer* peer, bint undecided) noexcept nogil:
    """Take over fd and peer; NULL without memory or epoll place, fd closed and the peer gone."""
    cdef Connection* c = <Connection*>calloc(1, sizeof(Connection))
    if c == NULL or epoll_set(w.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c) != 0:
        close(fd)
        peer_leave(&w.plane.ledger, &w.plane.connections, peer)
        free(c)
        return NULL
    c.fd = fd
    c.peer = peer[0]
    c.undecided = undecided
    c.scope = NO_SCOPE
    c.moved_at = w.now
    c.next = w.connections
    if w.connections != NULL:
        w.connections.previous = c
    w.connections = c
    bump_u64(&w.counters.connections, 1)
    return c


cdef void detach(Worker* w, Connection* c) noexcept nogil:
    """Out of the list and into the graveyard: events of this round may still name it."""
    if c.previous != NULL:
        c.previous.next = c.next
    else:
        w.connections = c.next
    if c.next != NULL:
        c.next.previous = c.previous
    c.closed = 1
    c.next = w.graveyard
    w.graveyard = c
    if c.blocked:
        bump_u64(&w.counters.blocked, <uint64_t>-1)
    bump_u64(&w.counters.connections, <uint64_t>-1)


cdef void connection_close(Worker* w, Connection* c) noexcept nogil:
    """Idempotent within a round."""
    if c.closed:
        return
    close(c.fd)
    detach(w, c)


cdef void connections_reap(Worker* w) noexcept nogil:
    """Free what was closed in this round."""
    cdef Connection* c
    while w.graveyard != NULL:
        c = w.graveyard
        w.graveyard = c.next
        while c.parked != NULL:
            park_end(w, c.parked)
        drop_input(w, c)
        drop_output(w, c)
        peer_leave(&w.plane.ledger, &w.plane.connections, &c.peer)
        free(c)


cdef void hand_over(Worker* w, Connection* c) noexcept nogil:
    """HTTP: the control plane's from here on."""
    cdef Event* event = <Event*>malloc(sizeof(Event))
    if event == NULL:
        connection_close(w, c)
        return
    epoll_set(w.epoll, EPOLL_CTL_DEL, c.fd, 0, NULL)
    event.kind = EVENT_HTTP
    event.purpose = 0
    event.token = 0
    event.key_id = 0
    event.wanted = 0
    event.name_len = 0
    event.fd = c.fd
    event.uid = c.peer.uid
    event.gid = c.peer.gid
    event.pid = c.peer.pid
    bump_u64(&w.counters.http_connections, 1)
    detach(w, c)
    mailbox_put(&w.plane.events, event)


# Buffers


cdef bint charge(Worker* w, Connection* c, size_t n) noexcept nogil:
    if not pool_take(&w.plane.buffers, &c.peer.account.buffers, n):
        bump_u64(&w.counters.closed_buffers, 1)
        return False
    bump_u64(&w.counters.buffer_bytes, n)
    return True


cdef void discharge(Worker* w, Connection* c, size_t n) noexcept nogil:
    pool_give(&w.plane.buffers, &c.peer.account.buffers, n)
    bump_u64(&w.counters.buffer_bytes, <uint64_t>0 - n)


cdef void drop_input(Worker* w, Connection* c) noexcept nogil:
    if c.input != NULL:
        secret_wipe(c.input, c.input_n)
        free(c.input)
        discharge(w, c, c.input_room)
    c.input = NULL
    c.input_n = c.input_room = 0


cdef void drop_output(Worker* w, Connection* c) noexcept nogil:
    if c.output != NULL:
        secret_wipe(c.output, c.output_n)
        free(c.output)
        discharge(w, c, c.output_room)
    c.output = NULL
    c.output_at = c.output_n = c.output_room = 0


cdef uint8_t* grown(Worker* w, Connection* c, uint8_t* old, size_t used, size_t old_room, size_t room) noexcept nogil:
    """A larger copy; the old one is wiped and freed. NULL without memory or allowance, the old one untouched."""
    cdef uint8_t* fresh
    if not charge(w, c, room - old_room):
        return NULL
    fresh = <uint8_t*>malloc(room)
    if fresh == NULL:
        discharge(w, c, room - old_room)
        return NULL
    if old != NULL:
        memcpy(fresh, old, used)
        secret_wipe(old, used)
        free(old)
    return fresh


cdef bint input_room(Worker* w, Connection* c) noexcept nogil:
    """Room for more of the frame that c.input begins; grows with what arrived, not with what was announced."""
    cdef size_t need = PREFIX + w.plane.limits.max_frame
    cdef size_t room = c.input_room * 2 if c.input_room else FIRST_ROOM
    cdef uint8_t* fresh
    if c.input_n < c.input_room:
        return True
    if c.input_n >= PREFIX:
        need = PREFIX + be32(c.input)
    if room > need and need > c.input_n:
        room = need
    fresh = grown(w, c, c.input, c.input_n, c.input_room, room)
    if fresh == NULL:
        return False
    c.input = fresh
    c.input_room = room
    return True


cdef bint keep_input(Worker* w, Connection* c, const uint8_t* p, size_t n) noexcept nogil:
    """Keep the beginning of a frame that has not arrived whole."""
    cdef size_t room = n if n > FIRST_ROOM else FIRST_ROOM
    c.input = grown(w, c, NULL, 0, 0, room)
    if c.input == NULL:
        return False
    c.input_room = room
    memcpy(c.input, p, n)
    c.input_n = n
    return True


cdef bint keep_output(Worker* w, Connection* c, const uint8_t* p, size_t n) noexcept nogil:
    """Keep what the peer has not read."""
    cdef size_t room = c.output_n + n
    cdef uint8_t* fresh
    if room > c.output_room:
        # doubling: many small responses to one slow reader must not be copied again and again
        if room < 2 * c.output_room:
            room = 2 * c.output_room
        fresh = grown(w, c, c.output, c.output_n, c.output_room, room)
        if fresh == NULL:
            return False
        c.output = fresh
        c.output_room = room
    memcpy(c.output + c.output_n, p, n)
    c.output_n += n
    return True


# Events


cdef void watch(Worker* w, Connection* c) noexcept nogil:
    """While a response waits to be read, nothing more is read."""
    cdef uint32_t events = 0
    if c.blocked:
        events = EPOLLOUT
    elif not c.half_closed:
        events = EPOLLIN
    epoll_set(w.epoll, EPOLL_CTL_MOD, c.fd, events, c)


cdef void connection_ready(Worker* w, Connection* c, uint32_t events) noexcept nogil:
    if c.closed:
        return
    if events & (EPOLLHUP | EPOLLERR) and (c.half_closed or c.blocked or not events & EPOLLIN):
        # gone altogether: nobody is left to read an answer
        connection_close(w, c)
        return
    if c.blocked and events & EPOLLOUT:
        send_kept(w, c)
    if not c.closed and not c.blocked and events & EPOLLIN:
        if c.undecided:
            decide(w, c)
        if not c.closed and not c.undecided:
            receive(w, c)
    settle(w, c)


cdef void settle(Worker* w, Connection* c) noexcept nogil:
    """Close a connection whose peer sends no more and has got all its answers."""
    if not c.closed and c.half_closed and c.n_parked == 0 and not c.blocked:
        connection_close(w, c)


cdef void decide(Worker* w, Connection* c) noexcept nogil:
    """The first byte chooses the protocol."""
    cdef uint8_t first
    cdef ssize_t n = recv(c.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            connection_close(w, c)
        return
    if n == 0:
        connection_close(w, c)
    elif first <= 0x0F:
        c.undecided = 0
    elif c'A' <= first <= c'Z' or c'a' <= first <= c'z':
        hand_over(w, c)
    else:
        bump_u64(&w.counters.closed_garbage, 1)
        connection_close(w, c)


cdef void receive(Worker* w, Connection* c) noexcept nogil:
    """One read, and all frames that are whole then. More waits for the next round: others have their turn."""
    cdef uint8_t* buffer = w.input
    cdef size_t room = READ_BYTES
    cdef ssize_t got
    if c.input != NULL:
        if not input_room(w, c):
            connection_close(w, c)
            return
        buffer = c.input + c.input_n
        room = c.input_room - c.input_n
    got = recv(c.fd, buffer, room, MSG_DONTWAIT)
    if got <= 0:
        if got == 0:
            half_close(w, c)
        elif errno != EAGAIN and errno != EINTR:
            connection_close(w, c)
        return
    c.moved_at = w.now
    bump_u64(&w.counters.bytes_in, got)
    if c.input != NULL:
        c.input_n += got
        serve_kept(w, c)
    else:
        serve_read(w, c, got)
    connection_flush(w, c)


cdef void half_close(Worker* w, Connection* c) noexcept nogil:
    c.half_closed = 1
    if c.n_parked:
        watch(w, c)


cdef void serve_read(Worker* w, Connection* c, size_t n) noexcept nogil:
    """Frames in the worker's read buffer."""
    cdef ssize_t used = serve_all(w, c, w.input, n)
    if used != BROKEN and <size_t>used < n and not keep_input(w, c, w.input + used, n - used):
        used = BROKEN
    secret_wipe(w.input, n)
    if used == BROKEN:
        end_reading(w, c)


cdef void end_reading(Worker* w, Connection* c) noexcept nogil:
    """Nothing more is believed from this peer; it goes when it has read the answers to what came before."""
    drop_input(w, c)
    c.half_closed = 1
    connection_flush(w, c)
    if not c.closed:
        watch(w, c)
        settle(w, c)


cdef void serve_kept(Worker* w, Connection* c) noexcept nogil:
    """Frames in the connection's own buffer."""
    cdef ssize_t used = serve_all(w, c, c.input, c.input_n)
    cdef size_t left
    if used == BROKEN:
        end_reading(w, c)
        return
    if used == 0:
        return
    left = c.input_n - used
    if left == 0:
        drop_input(w, c)
        return
    memmove(c.input, c.input + used, left)
    secret_wipe(c.input + left, used)
    c.input_n = left


cdef ssize_t serve_all(Worker* w, Connection* c, const uint8_t* p, size_t n) noexcept nogil:
    """Serve every whole frame; bytes consumed, or BROKEN when the connection must be closed after a flush."""
    cdef size_t at = 0, length
    cdef int outcome
    while n - at >= PREFIX:
        length = be32(p + at)
        if length == 0 or length > w.plane.limits.max_frame:
            reply_error(w, 0, BAD_REQUEST)
            return BROKEN
        if n - at - PREFIX < length:
            break
        outcome = serve_frame(w, c, p + at + PREFIX, length)
        if outcome == SERVED:
            w.answered += 1
        elif outcome == CLOSING or outcome == NO_MEMORY:
            return BROKEN
        at += PREFIX + length
    return at


# Responses


cdef void connection_flush(Worker* w, Connection* c) noexcept nogil:
    """Send w.out to the connection, keep what it does not take, wipe w.out, and count what was answered."""
    cdef ssize_t sent = 0
    if w.out_n and not c.closed:
        if c.output_n == 0:
            sent = send(c.fd, w.out, w.out_n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                sent = 0
                if errno != EAGAIN and errno != EINTR:
                    connection_close(w, c)
        if not c.closed and <size_t>sent < w.out_n:
            if not keep_output(w, c, w.out + sent, w.out_n - sent):
                connection_close(w, c)
            elif not c.blocked:
                c.blocked = 1
                bump_u64(&w.counters.blocked, 1)
                watch(w, c)
        bump_u64(&w.counters.bytes_out, w.out_n)
    if w.answered:
        record_latency(w.counters.latency, now_ns() - w.now, w.answered)
        w.answered = 0
    empty_out(w)


cdef void empty_out(Worker* w) noexcept nogil:
    cdef uint8_t* base
    secret_wipe(w.out, w.out_n)
    w.out_n = 0
    if w.out_room > OUT_BYTES:
        # one huge response must not hold its memory for ever
        base = <uint8_t*>malloc(OUT_BYTES)
        if base != NULL:
            free(w.out)
            w.out = base
            w.out_room = OUT_BYTES


cdef void send_kept(Worker* w, Connection* c) noexcept nogil:
    cdef ssize_t sent = send(c.fd, c.output + c.output_at, c.output_n - c.output_at, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            connection_close(w, c)
        return
    c.moved_at = w.now
    c.output_at += sent
    if c.output_at == c.output_n:
        drop_output(w, c)
        c.blocked = 0
        bump_u64(&w.counters.blocked, <uint64_t>-1)
        watch(w, c)


# Time


cdef void connections_sweep(Worker* w) noexcept nogil:
    """Close who stalls in the middle of a frame or of a response, and who was silent for too long."""
    cdef Connection* c = w.connections
    cdef Connection* following
    cdef uint64_t silent
    while c != NULL:
        following = c.next
        silent = w.now - c.moved_at
        if c.input_n or c.blocked:
            if silent > w.plane.limits.stall_timeout:
                bump_u64(&w.counters.closed_stalled, 1)
                connection_close(w, c)
        elif c.n_parked == 0 and silent > w.plane.limits.idle_timeout:
            bump_u64(&w.counters.closed_idle, 1)
            connection_close(w, c)
        c = following


cdef extern from * nogil:
    int clz64 "__builtin_clzll"(unsigned long long v)


cdef void record_latency(uint64_t* histogram, uint64_t ns, uint64_t count) noexcept nogil:
    """Bucket 16 e + s counts [2^e (1 + s/16), 2^e (1 + (s + 1)/16)) ns."""
    cdef uint32_t e, bucket
    if ns < 16:
        ns = 16
    e = 63 - clz64(ns)
    bucket = 16 * e + <uint32_t>((ns >> (e - 4)) & 15)
    if bucket >= BUCKETS:
        bucket = BUCKETS - 1
    bump_u64(&histogram[bucket], count)
