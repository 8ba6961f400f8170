"""A worker: one thread, one epoll instance, its own connections. It never takes the GIL and never waits for anything
else.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastpath.arena cimport arena_thread_exit
from fastpath.atomics cimport (
    bump_u64, load_acquire_int, load_acquire_u64, load_relaxed_u32, load_relaxed_u64,
    store_release_u64,
)
from fastpath.connection cimport (
    connection_close, connection_flush, connection_open, connection_ready, connections_reap, connections_sweep,
    record_latency,
)
from fastpath.cryptor cimport cryptor_close, cryptor_forget_removed, cryptor_open
from fastpath.mailbox cimport mailbox_close, mailbox_open, mailbox_put, mailbox_take_all
from fastpath.parking cimport park_complete, park_end, park_free_all
from fastpath.plane cimport (
    EVENTS_AT_ONCE, LETTER_ADOPT, LETTER_COMPLETE, OUT_BYTES, READ_BYTES, Connection, Letter, Parked, Plane, Worker,
)
from fastpath.protocol cimport KMS_UNAVAILABLE
from fastpath.response cimport reply_error
from fastpath.serve cimport NO_MEMORY, WAITING, request_id_of, serve_parked
from fastpath.shares cimport Peer, account_open, account_release, peer_leave, pool_take
from fastpath.sockets cimport (
    EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, EPOLLEXCLUSIVE, EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD,
    EPOLL_CTL_DEL, accept_connection, block_signals, close, epoll_create1, epoll_event, epoll_set, epoll_wait,
    errno, now_ns, peer_groups, peer_identity, pin_thread, silence, spare_fd, ticker_fd,
)


cdef enum:
    ACCEPTS_AT_ONCE = 16
    GROUPS_MAX = 256
    SWEEP_NS = 1000000000
    DEADLINE_NS = 50000000
    LISTEN_PAUSE_NS = 100000000
    FLUSH_BYTES = 65536


cdef Worker* worker_new(Plane* plane, int index, int cpu) noexcept nogil:
    """A worker that has not started; NULL without memory, descriptors or arena."""
    cdef Worker* w = <Worker*>calloc(1, sizeof(Worker))
    if w == NULL:
        return NULL
    w.plane = plane
    w.index = index
    w.cpu = cpu
    w.epoll = epoll_create1(EPOLL_CLOEXEC)
    w.spare_fd = spare_fd()
    w.ticker_fd = ticker_fd()
    w.input = <uint8_t*>malloc(READ_BYTES)
    w.out = <uint8_t*>malloc(OUT_BYTES)
    w.out_room = OUT_BYTES
    w.inbox.event_fd = -1
    if (w.epoll < 0 or w.input == NULL or w.out == NULL or mailbox_open(&w.inbox) != 0
            or cryptor_open(&w.cryptor) != 0
            or epoll_set(w.epoll, EPOLL_CTL_ADD, w.inbox.event_fd, EPOLLIN, &w.inbox) != 0
            or epoll_set(w.epoll, EPOLL_CTL_ADD, w.ticker_fd, EPOLLIN, &w.ticker_fd) != 0
            or epoll_set(w.epoll, EPOLL_CTL_ADD, plane.listen_fd, EPOLLIN | EPOLLEXCLUSIVE, w) != 0):
        worker_free(w)
        return NULL
    w.listening = True
    return w


cdef void worker_free(Worker* w) noexcept nogil:
    """The thread must have ended, or never begun."""
    cdef Letter* letter
    cdef Letter* following
    if w.inbox.event_fd >= 0:
        letter = <Letter*>mailbox_take_all(&w.inbox)
        while letter != NULL:
            following = letter.next
            if letter.kind == LETTER_ADOPT:
                close(letter.fd)
                peer_leave(&w.plane.ledger, &w.plane.connections, &letter.peer)
            free(letter)
            letter = following
        mailbox_close(&w.inbox)
    while w.connections != NULL:
        connection_close(w, w.connections)
    connections_reap(w)
    park_free_all(w)
    cryptor_close(&w.cryptor)
    if w.epoll >= 0:
        close(w.epoll)
    if w.spare_fd >= 0:
        close(w.spare_fd)
    if w.ticker_fd >= 0:
        close(w.ticker_fd)
    free(w.input)
    free(w.out)
    free(w)


cdef void* worker_main(void* argument) noexcept nogil:
    cdef Worker* w = <Worker*>argument
    cdef epoll_event[EVENTS_AT_ONCE] events
    cdef int i, n
    block_signals()
    if w.cpu >= 0:
        pin_thread(w.cpu)
    w.now = now_ns()
    while not load_acquire_int(&w.plane.stopping):
        n = epoll_wait(w.epoll, events, EVENTS_AT_ONCE, 50 if w.parked_first != NULL or w.listen_again_at else -1)
        w.now = now_ns()
        acknowledge(w)
        for i in range(n):
            if events[i].data.ptr == w:
                accept_some(w)
            elif events[i].data.ptr == &w.inbox:
                read_inbox(w)
            elif events[i].data.ptr == &w.ticker_fd:
                silence(w.ticker_fd)
            else:
                connection_ready(w, <Connection*>events[i].data.ptr, events[i].events)
                # between two connections this worker holds no slot and no policy
                acknowledge(w)
        connections_reap(w)
        keep_time(w)
    arena_thread_exit()
    return NULL


cdef inline void acknowledge(Worker* w) noexcept nogil:
    """Tell the key cache's writer that nothing it took away is in use here any more (keycache.pxd)."""
    cdef uint64_t removals = load_acquire_u64(&w.plane.cache.removals)
    if removals != w.removals_seen:
        cryptor_forget_removed(&w.cryptor, &w.plane.cache)
        w.removals_seen = removals
        store_release_u64(&w.plane.cache.acks[w.index].seen, removals)


# Accepting


cdef void accept_some(Worker* w) noexcept nogil:
    cdef int _i, fd, problem
    if load_acquire_int(&w.plane.draining):
        return
    for _i in range(ACCEPTS_AT_ONCE):
        fd = accept_connection(w.plane.listen_fd)
        if fd >= 0:
            bump_u64(&w.counters.accepted, 1)
            welcome(w, fd)
            continue
        problem = errno
        if problem == EAGAIN:
            return
        if problem == EINTR or problem == ECONNABORTED:
            continue
        if not refuse_for_descriptors(w, problem):
            pause_listening(w)
            return


cdef bint refuse_for_descriptors(Worker* w, int problem) noexcept nogil:
    """Out of descriptors: give up the spare one to accept and close, so that the peer learns at once.

    False when not even that was possible.
    """
    cdef int fd
    if problem != EMFILE and problem != ENFILE:
        return False
    if w.spare_fd >= 0:
        close(w.spare_fd)
    fd = accept_connection(w.plane.listen_fd)
    if fd >= 0:
        close(fd)
        bump_u64(&w.counters.refused_connections, 1)
    w.spare_fd = spare_fd()
    return fd >= 0


cdef void pause_listening(Worker* w) noexcept nogil:
    """The socket stays readable while nothing can be accepted: to look at it all the time would burn the processor."""
    epoll_set(w.epoll, EPOLL_CTL_DEL, w.plane.listen_fd, 0, NULL)
    w.listening = False
    w.listen_again_at = w.now + LISTEN_PAUSE_NS


cdef void listen_again(Worker* w) noexcept nogil:
    w.listen_again_at = 0
    if not load_acquire_int(&w.plane.draining):
        w.listening = epoll_set(w.epoll, EPOLL_CTL_ADD, w.plane.listen_fd, EPOLLIN | EPOLLEXCLUSIVE, w) == 0


cdef void welcome(Worker* w, int fd) noexcept nogil:
    """Find out who it is and give the connection to the worker that has the fewest."""
    cdef Peer peer
    cdef Worker* least
    if not identify(fd, &peer) or not admit_peer(w, &peer):
        bump_u64(&w.counters.refused_connections, 1)
        close(fd)
        return
    least = least_loaded(w)
    if least == w:
        connection_open(w, fd, &peer, True)
    else:
        send_adopt(w, least, fd, &peer)


cdef bint admit_peer(Worker* w, Peer* peer) noexcept nogil:
    """Charge a connection to its peer; False, and the peer gone, when it has its share already."""
    peer.account = account_open(&w.plane.ledger, peer.uid)
    if peer.account == NULL:
        free(peer.groups)
        return False
    if pool_take(&w.plane.connections, &peer.account.connections, 1):
        return True
    account_release(&w.plane.ledger, peer.account)
    free(peer.groups)
    return False


cdef bint identify(int fd, Peer* peer) noexcept nogil:
    cdef uint32_t[GROUPS_MAX] groups
    cdef int n
    memset(peer, 0, sizeof(Peer))
    if peer_identity(fd, &peer.uid, &peer.gid, &peer.pid) != 0:
        return False
    n = peer_groups(fd, groups, GROUPS_MAX)
    if n > 0:
        peer.groups = <uint32_t*>malloc(n * sizeof(uint32_t))
        if peer.groups == NULL:
            return False
        memcpy(peer.groups, groups, n * sizeof(uint32_t))
        peer.n_groups = n
    # a peer in more groups than that is known by uid and primary group alone: fewer rights, never more
    return True


cdef Worker* least_loaded(Worker* w) noexcept nogil:
    cdef Worker* best = w
    cdef Worker* other
    cdef uint64_t fewest = w.counters.connections, count
    cdef uint32_t i
    for i in range(w.plane.n_workers):
        other = w.plane.workers[i]
        count = load_relaxed_u64(&other.counters.connections) + load_relaxed_u32(&other.inbox.count)
        if count < fewest:
            fewest = count
            best = other
    return best


cdef void send_adopt(Worker* w, Worker* other, int fd, Peer* peer) noexcept nogil:
    cdef Letter* letter = <Letter*>malloc(sizeof(Letter))
    if letter == NULL:
        connection_open(w, fd, peer, True)
        return
    letter.kind = LETTER_ADOPT
    letter.adopted = 0
    letter.fd = fd
    letter.token = 0
    letter.peer = peer[0]
    mailbox_put(&other.inbox, letter)


# Letters


cdef void read_inbox(Worker* w) noexcept nogil:
    cdef Letter* letter = <Letter*>mailbox_take_all(&w.inbox)
    cdef Letter* following
    while letter != NULL:
        following = letter.next
        if letter.kind == LETTER_COMPLETE:
            run_ready(w, park_complete(w, letter.token))
        else:
            connection_open(w, letter.fd, &letter.peer, not letter.adopted)
        free(letter)
        letter = following
    if load_acquire_int(&w.plane.draining) and w.listening:
        epoll_set(w.epoll, EPOLL_CTL_DEL, w.plane.listen_fd, 0, NULL)
        w.listening = False


cdef void run_ready(Worker* w, Parked* ready) noexcept nogil:
    """Run requests whose keys are settled; one flush for neighbours on one connection."""
    cdef Parked* parked
    cdef Connection* c
    cdef int outcome
    while ready != NULL:
        parked = ready
        ready = parked.next_ready
        c = parked.connection
        if not c.closed:
            # else it ends with its connection, at the end of the round
            outcome = serve_parked(w, parked)
            if outcome != WAITING:
                finish_parked(w, parked, outcome)
        # closed or not: what is in w.out belongs to this connection and must never reach the next
        if ready == NULL or ready.connection != c or w.out_n > FLUSH_BYTES:
            flush_parked(w, c)


cdef void finish_parked(Worker* w, Parked* parked, int outcome) noexcept nogil:
    cdef Connection* c = parked.connection
    record_latency(w.counters.parked_latency, now_ns() - parked.arrived_at, 1)
    park_end(w, parked)
    if outcome == NO_MEMORY:
        connection_close(w, c)


cdef void flush_parked(Worker* w, Connection* c) noexcept nogil:
    c.moved_at = w.now
    connection_flush(w, c)
    # a half-closed connection goes with its last answer
    if c.half_closed:
        connection_ready(w, c, 0)


# Time


cdef void keep_time(Worker* w) noexcept nogil:
    if w.parked_first != NULL and w.now >= w.next_deadline_check:
        w.next_deadline_check = w.now + DEADLINE_NS
        end_overdue(w)
    if w.listen_again_at and w.now >= w.listen_again_at:
        listen_again(w)
    if w.now >= w.next_sweep:
        w.next_sweep = w.now + SWEEP_NS
        connections_sweep(w)
        connections_reap(w)


cdef void end_overdue(Worker* w) noexcept nogil:
    """Requests that waited for their whole time; the list is in order of deadlines."""
    cdef Parked* parked
    cdef Connection* c
    while w.parked_first != NULL and w.parked_first.deadline <= w.now:
        parked = w.parked_first
        c = parked.connection
        if not c.closed:
            bump_u64(&w.counters.park_timeouts, 1)
            reply_error(w, request_id_of(parked.frame, parked.n), KMS_UNAVAILABLE)
        park_end(w, parked)
        if not c.closed:
            flush_parked(w, c)
    connections_reap(w)
