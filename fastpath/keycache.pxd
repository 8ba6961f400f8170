"""The key cache: data keys in packed 32-byte slots of the secret arena, their metadata in ordinary memory.

Workers read without locks. One writer at a time (`lock`) changes it. What a writer takes away it first makes
unreachable, then advances `removals` and waits until every worker has acknowledged the new number: a worker
acknowledges between two connections, when it holds no slot, and wipes the cipher contexts of removed keys before it
does. Only then is a slot wiped and reused. So a key in use is never evicted under its user, and after `cache_remove`
returns no key schedule of it is left.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.sockets cimport pthread_mutex_t

cdef enum:
    NO_SLOT = 0xFFFFFFFFu
    NO_SCOPE = 0xFFFFFFFFu
    TOMB = 0xFFFFFFFFu
    REFUSAL_SETS = 1024
    REFUSAL_WAYS = 4
    MAX_WORKERS = 64

cdef struct Slot:
    # key_id, scope, purpose, index_bytes: written under the lock before the slot is published, constant while it is
    # live.
    # generation: odd while live, even while free; incremented under the lock at each change. Whoever made something
    # from a slot
    # keeps the number it saw and may use the thing only while the numbers are equal and odd.
    # expires: stored by the writer, loaded by workers, relaxed. used_at: stored by workers, relaxed, at most ten
    # times a second.
    # budget: atomic add and subtract by workers and the writer; never spent below 0. low_mark: writer stores, workers
    # load.
    # low_told: atomic exchange by workers, cleared by the writer.
    uint64_t key_id
    int64_t budget
    int64_t low_mark
    uint64_t expires
    uint64_t used_at
    uint64_t installed_at
    uint32_t scope
    uint32_t generation
    uint32_t next_free
    uint8_t purpose
    uint8_t index_bytes
    uint8_t low_told
    uint8_t live

cdef struct Scope:
    # hash, name, name_len: as key_id above. generation: as above. active[purpose]: slot + 1, or 0; stored with
    # release by
    # the writer. keys: live slots of this scope, writer only.
    uint64_t hash
    char* name
    uint32_t generation
    uint32_t active[2]
    uint32_t keys
    uint32_t next_free
    uint16_t name_len

cdef struct Table:
    # Open addressing; an entry is index + 1, 0 (never used) or TOMB. Entries are stored with release by the writer. A
    # full
    # rebuild makes a new table and swaps the pointer; the old one is freed after the workers have acknowledged.
    uint32_t mask
    uint32_t used       # entries that are not 0; writer only
    uint32_t entries[1]

cdef struct Refusal:
    # Negative cache entry. Everything under refusal_lock.
    uint64_t hash
    uint64_t key_id
    uint64_t expires
    uint16_t name_len
    uint8_t kind        # 0: key; 1 + purpose: active key of a scope
    uint8_t code
    uint8_t name[193]

cdef struct Acknowledgement:
    # Written by one worker with release, read by the writer. A line of its own each.
    uint64_t seen
    uint8_t line[56]

cdef struct KeyCache:
    pthread_mutex_t lock
    pthread_mutex_t refusal_lock
    uint64_t seed
    uint32_t capacity
    uint32_t n_workers          # workers that must acknowledge; 0 before start and after stop
    Slot* slots
    Scope* scopes
    uint8_t* keys               # arena; slot i at 32 * i
    Table* by_id                # pointer: release / acquire
    Table* by_name
    uint32_t slots_used         # slots below this index were in use once; above, untouched memory. Writer only
    uint32_t scopes_used
    uint32_t free_slot
    uint32_t free_scope
    uint32_t clock_hand
    uint32_t live               # writer only
    uint64_t removals           # advanced by the writer, loaded by workers
    uint64_t evicted            # writer only, counters
    uint64_t expired
    Acknowledgement acks[64]
    int wake_fds[64]            # eventfd of each worker
    Refusal* refusals

# All below: any thread, no lock needed, valid until the worker's next acknowledgement.
cdef uint32_t cache_find_key(KeyCache* cache, uint64_t key_id) noexcept nogil
cdef uint32_t cache_find_scope(KeyCache* cache, const uint8_t* name, uint32_t n) noexcept nogil
cdef int cache_refused(KeyCache* cache, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t n,
                       uint64_t now) noexcept nogil                       # error code, or 0
cdef bint cache_spend(Slot* slot, int64_t messages, bint* low) noexcept nogil
cdef uint64_t name_hash(KeyCache* cache, uint64_t tweak, const uint8_t* name, uint32_t n) noexcept nogil

# The writer's calls; each takes the lock.
cdef int cache_open(KeyCache* cache, uint32_t capacity, uint8_t* keys) noexcept nogil
cdef void cache_close(KeyCache* cache) noexcept nogil
cdef int cache_install(KeyCache* cache, uint64_t key_id, const uint8_t* name, uint32_t n, uint8_t purpose,
                       const uint8_t* key, uint64_t now, uint64_t expires, uint8_t index_bytes) noexcept nogil
cdef int cache_activate(KeyCache* cache, uint64_t key_id, int64_t budget) noexcept nogil
cdef int cache_add_budget(KeyCache* cache, uint64_t key_id, int64_t budget) noexcept nogil
cdef void cache_deactivate(KeyCache* cache, const uint8_t* name, uint32_t n, uint8_t purpose) noexcept nogil
cdef uint32_t cache_remove(KeyCache* cache, uint64_t key_id) noexcept nogil
cdef uint32_t cache_remove_scope(KeyCache* cache, const uint8_t* name, uint32_t n) noexcept nogil
cdef uint32_t cache_remove_expired(KeyCache* cache, uint64_t now) noexcept nogil
cdef void cache_refuse(KeyCache* cache, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t n,
                       uint8_t code, uint64_t expires) noexcept nogil
# Return when every worker has passed a point after this call: what was replaced before it may be freed.
cdef void cache_await(KeyCache* cache) noexcept nogil
