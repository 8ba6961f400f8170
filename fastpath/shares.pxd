"""What peers share, and how much of it each may hold.

Waiting requests, their bytes, open misses, buffers and connections are bounded for the whole data plane. Within each
bound one rule holds, the dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2), 1998): a
peer (a uid) may hold at most SHARE times what is left. Alone it gets 7/8 of everything; the more peers want much, the
less each gets; and something is always left for the next one. A peer that holds nothing may take whatever is left.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastpath.sockets cimport pthread_mutex_t

cdef enum:
    SHARE = 7
    ACCOUNT_BUCKETS = 1024

cdef struct Pool:
    # limit: constant after start. used: atomic, never above limit but for an instant.
    uint64_t used
    uint64_t limit

cdef struct Account:
    # What one uid holds of every pool: atomic, by all workers that serve it. next, references: under the ledger's lock.
    Account* next
    uint32_t uid
    uint32_t references
    uint64_t requests
    uint64_t request_bytes
    uint64_t misses
    uint64_t buffers
    uint64_t connections

cdef struct Peer:
    # Who is at the other end, as the kernel says. Written once, at accept or adoption.
    uint32_t uid
    uint32_t gid
    int pid
    int n_groups
    uint32_t* groups         # supplementary groups; owned
    Account* account         # held; charged with one connection

cdef struct Ledger:
    # The accounts of all uids that are connected or waited for.
    pthread_mutex_t lock
    Account* accounts[ACCOUNT_BUCKETS]

cdef void ledger_open(Ledger* ledger) noexcept nogil
cdef void ledger_close(Ledger* ledger) noexcept nogil                       # every account was released before
cdef Account* account_open(Ledger* ledger, uint32_t uid) noexcept nogil     # made when new; NULL without memory
cdef void account_hold(Ledger* ledger, Account* account) noexcept nogil     # one reference more
cdef void account_release(Ledger* ledger, Account* account) noexcept nogil
# Take n of a pool for whoever's holding `held` counts; False, and nothing taken, when that is more than its share.
cdef bint pool_take(Pool* pool, uint64_t* held, uint64_t n) noexcept nogil
cdef void pool_give(Pool* pool, uint64_t* held, uint64_t n) noexcept nogil
# The end of a connection that `connections` was charged for: groups freed, account released.
cdef void peer_leave(Ledger* ledger, Pool* connections, Peer* peer) noexcept nogil
