"""What peers share; see shares.pxd for the rule. O(1) each, and only for what is rare: a request without its key, a
frame in pieces, an unread response, a new connection.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpath.atomics cimport fetch_add_u64
from fastpath.sockets cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)


cdef void ledger_open(Ledger* ledger) noexcept nogil:
    memset(ledger, 0, sizeof(Ledger))
    pthread_mutex_init(&ledger.lock, NULL)


cdef void ledger_close(Ledger* ledger) noexcept nogil:
    pthread_mutex_destroy(&ledger.lock)


cdef Account* account_open(Ledger* ledger, uint32_t uid) noexcept nogil:
    cdef Account** bucket = &ledger.accounts[uid % ACCOUNT_BUCKETS]
    pthread_mutex_lock(&ledger.lock)
    cdef Account* account = bucket[0]
    while account != NULL and account.uid != uid:
        account = account.next
    if account == NULL:
        account = <Account*>calloc(1, sizeof(Account))
        if account != NULL:
            account.uid = uid
            account.next = bucket[0]
            bucket[0] = account
    if account != NULL:
        account.references += 1
    pthread_mutex_unlock(&ledger.lock)
    return account


cdef void account_hold(Ledger* ledger, Account* account) noexcept nogil:
    pthread_mutex_lock(&ledger.lock)
    account.references += 1
    pthread_mutex_unlock(&ledger.lock)


cdef void account_release(Ledger* ledger, Account* account) noexcept nogil:
    cdef Account** place = &ledger.accounts[account.uid % ACCOUNT_BUCKETS]
    pthread_mutex_lock(&ledger.lock)
    account.references -= 1
    if account.references == 0:
        while place[0] != account:
            place = &place[0].next
        place[0] = account.next
        free(account)
    pthread_mutex_unlock(&ledger.lock)


cdef bint pool_take(Pool* pool, uint64_t* held, uint64_t n) noexcept nogil:
    cdef uint64_t used = fetch_add_u64(&pool.used, n) + n
    cdef uint64_t mine = fetch_add_u64(held, n) + n
    if used <= pool.limit and (mine == n or mine <= SHARE * (pool.limit - used)):
        return True
    pool_give(pool, held, n)
    return False


cdef void pool_give(Pool* pool, uint64_t* held, uint64_t n) noexcept nogil:
    fetch_add_u64(held, 0 - n)
    fetch_add_u64(&pool.used, 0 - n)


cdef void peer_leave(Ledger* ledger, Pool* connections, Peer* peer) noexcept nogil:
    pool_give(connections, &peer.account.connections, 1)
    account_release(ledger, peer.account)
    free(peer.groups)
