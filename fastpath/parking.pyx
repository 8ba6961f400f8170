"""Requests that wait for a data key, and the misses that they wait for. A worker's own: no locks."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath.arena cimport secret_wipe
from fastpath.atomics cimport bump_u64
from fastpath.keycache cimport name_hash
from fastpath.mailbox cimport mailbox_put
from fastpath.plane cimport (
    EVENT_KEY, EVENT_SCOPE, MISS_BUCKETS, Connection, Event, Miss, Parked, Waiter, Worker,
)
from fastpath.shares cimport Account, account_hold, account_release, pool_give, pool_take


cdef enum:
    WAITS_MAX = 1024            # distinct keys that one request may wait for at once
    ASK_AGAIN_PARK_TIMES = 4    # a miss unanswered for so many park timeouts is asked again


cdef size_t parked_size(size_t n, uint32_t outcomes) noexcept nogil:
    return sizeof(Parked) + n + outcomes


cdef bint charge(Worker* w, Account* account, size_t size) noexcept nogil:
    if not pool_take(&w.plane.requests, &account.requests, 1):
        return False
    if pool_take(&w.plane.request_bytes, &account.request_bytes, size):
        return True
    pool_give(&w.plane.requests, &account.requests, 1)
    return False


cdef void discharge(Worker* w, Account* account, size_t size) noexcept nogil:
    pool_give(&w.plane.requests, &account.requests, 1)
    pool_give(&w.plane.request_bytes, &account.request_bytes, size)


cdef Parked* park_begin(Worker* w, Connection* c, const uint8_t* frame, size_t n, uint32_t outcomes) noexcept nogil:
    """Copy a frame's body to be run again later; NULL when too much waits already, or this peer has its share."""
    cdef size_t size = parked_size(n, outcomes)
    if not charge(w, c.peer.account, size):
        return NULL
    cdef Parked* parked = <Parked*>malloc(size)
    if parked == NULL:
        discharge(w, c.peer.account, size)
        return NULL
    memcpy(parked.frame, frame, n)
    parked.n = n
    parked.size = size
    parked.outcomes = NULL
    parked.barren = 0
    if outcomes:
        parked.outcomes = parked.frame + n
        memset(parked.outcomes, 0, outcomes)
    parked.connection = c
    parked.waiters = NULL
    parked.waiting = 0
    parked.arrived_at = w.now
    parked.deadline = w.now + w.plane.limits.park_timeout
    parked.next = NULL
    parked.previous = w.parked_last
    if w.parked_last != NULL:
        w.parked_last.next = parked
    else:
        w.parked_first = parked
    w.parked_last = parked
    parked.next_of_connection = c.parked
    parked.link_of_connection = &c.parked
    if c.parked != NULL:
        c.parked.link_of_connection = &parked.next_of_connection
    c.parked = parked
    c.n_parked += 1
    bump_u64(&w.counters.parked_now, 1)
    bump_u64(&w.counters.parked_bytes, size)
    bump_u64(&w.counters.parked_total, 1)
    return parked


cdef void drop_waiters(Parked* parked) noexcept nogil:
    cdef Waiter* waiter = parked.waiters
    cdef Waiter* following
    while waiter != NULL:
        following = waiter.next_of_parked
        if waiter.link != NULL:
            waiter.link[0] = waiter.next
            if waiter.next != NULL:
                waiter.next.link = waiter.link
        free(waiter)
        waiter = following
    parked.waiters = NULL
    parked.waiting = 0


cdef void park_end(Worker* w, Parked* parked) noexcept nogil:
    """Take a request out of every list, wipe and free it."""
    drop_waiters(parked)
    if parked.previous != NULL:
        parked.previous.next = parked.next
    else:
        w.parked_first = parked.next
    if parked.next != NULL:
        parked.next.previous = parked.previous
    else:
        w.parked_last = parked.previous
    parked.link_of_connection[0] = parked.next_of_connection
    if parked.next_of_connection != NULL:
        parked.next_of_connection.link_of_connection = parked.link_of_connection
    parked.connection.n_parked -= 1
    discharge(w, parked.connection.peer.account, parked.size)
    bump_u64(&w.counters.parked_now, <uint64_t>-1)
    bump_u64(&w.counters.parked_bytes, <uint64_t>0 - parked.size)
    secret_wipe(parked.frame, parked.n)
    free(parked)


cdef bint ask(Worker* w, Miss* miss, uint64_t wanted) noexcept nogil:
    """Have the control plane told; False without memory."""
    cdef Event* event = <Event*>malloc(sizeof(Event))
    if event == NULL:
        return False
    event.kind = EVENT_KEY if miss.kind == 0 else EVENT_SCOPE
    event.purpose = 0 if miss.kind == 0 else miss.kind - 1
    event.token = miss.token
    event.uid = miss.account.uid
    event.key_id = miss.key_id
    event.wanted = wanted
    event.name_len = miss.name_len
    memcpy(event.name, miss.name, miss.name_len)
    event.next = NULL
    if w.asks == NULL:
        w.asks_end = &w.asks
    w.asks_end[0] = event
    w.asks_end = &event.next
    miss.asked_at = w.now
    return True


cdef void park_ask(Worker* w) noexcept nogil:
    cdef Event* event
    while w.asks != NULL:
        event = w.asks
        w.asks = event.next
        mailbox_put(&w.plane.events, event)


cdef Miss* miss_for(Worker* w, Account* account, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t n,
                    uint64_t wanted) noexcept nogil:
    """The peer's miss for a key, asked for now when it is new; NULL when too many are open, or its share of them."""
    cdef uint64_t h = name_hash(&w.plane.cache, key_id * 4 + kind, name, n)
    cdef Miss** bucket = &w.misses[h % MISS_BUCKETS]
    cdef Miss* miss = bucket[0]
    while miss != NULL:
        if (miss.hash == h and miss.account == account and miss.kind == kind and miss.key_id == key_id
                and miss.name_len == n and memcmp(miss.name, name, n) == 0):
            if w.now > miss.asked_at + ASK_AGAIN_PARK_TIMES * w.plane.limits.park_timeout:
                ask(w, miss, wanted)
            else:
                bump_u64(&w.counters.coalesced, 1)
            return miss
        miss = miss.next
    if not pool_take(&w.plane.misses, &account.misses, 1):
        return NULL
    miss = <Miss*>malloc(sizeof(Miss))
    if miss == NULL:
        pool_give(&w.plane.misses, &account.misses, 1)
        return NULL
    miss.account = account
    # the low bits name the worker and the bucket, so that completions find them
    w.next_token += 1
    miss.token = (w.next_token * MISS_BUCKETS + h % MISS_BUCKETS) << 8 | w.index
    miss.hash = h
    miss.kind = kind
    miss.key_id = key_id
    miss.waiters = NULL
    miss.name_len = <uint16_t>n
    memcpy(miss.name, name, n)
    if not ask(w, miss, wanted):
        pool_give(&w.plane.misses, &account.misses, 1)
        free(miss)
        return NULL
    # a miss stays until it is answered, and may outlive the peer's last connection
    account_hold(&w.plane.ledger, account)
    miss.next = bucket[0]
    bucket[0] = miss
    bump_u64(&w.counters.key_misses, 1)
    return miss


cdef int park_on(Worker* w, Parked* parked, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t name_len,
                 uint64_t wanted) noexcept nogil:
    """Make a parked request wait for a key. 1: it does; 0: it waits for enough others already; -1: overloaded."""
    cdef Waiter* waiter
    if parked.waiting >= WAITS_MAX or parked.waiting >= w.plane.cache.capacity:
        return 0
    cdef Miss* miss = miss_for(w, parked.connection.peer.account, kind, key_id, name, name_len, wanted)
    if miss == NULL:
        return -1
    # repeated keys of one batch stand close together: its own newest waiter is the miss's first
    if miss.waiters != NULL and miss.waiters.parked == parked:
        return 1
    waiter = <Waiter*>malloc(sizeof(Waiter))
    if waiter == NULL:
        return -1
    waiter.parked = parked
    waiter.miss = miss
    waiter.next = miss.waiters
    waiter.link = &miss.waiters
    if miss.waiters != NULL:
        miss.waiters.link = &waiter.next
    miss.waiters = waiter
    waiter.next_of_parked = parked.waiters
    parked.waiters = waiter
    parked.waiting += 1
    return 1


cdef void forget(Worker* w, Miss* miss) noexcept nogil:
    pool_give(&w.plane.misses, &miss.account.misses, 1)
    account_release(&w.plane.ledger, miss.account)
    free(miss)


cdef Parked* park_complete(Worker* w, uint64_t token) noexcept nogil:
    """Close a miss; the requests that wait for nothing more, linked by `next_ready`."""
    cdef Miss** place = &w.misses[(token >> 8) % MISS_BUCKETS]
    cdef Miss* miss
    cdef Waiter* waiter
    cdef Parked* parked
    cdef Parked* ready = NULL
    while place[0] != NULL and place[0].token != token:
        place = &place[0].next
    miss = place[0]
    if miss == NULL:
        return NULL
    place[0] = miss.next
    waiter = miss.waiters
    while waiter != NULL:
        waiter.link = NULL
        parked = waiter.parked
        parked.waiting -= 1
        waiter = waiter.next
        if parked.waiting == 0:
            drop_waiters(parked)
            parked.next_ready = ready
            ready = parked
    forget(w, miss)
    return ready


cdef void park_free_all(Worker* w) noexcept nogil:
    """Free every miss; every parked request must have ended."""
    cdef Miss* miss
    cdef int i
    for i in range(MISS_BUCKETS):
        while w.misses[i] != NULL:
            miss = w.misses[i]
            w.misses[i] = miss.next
            forget(w, miss)
