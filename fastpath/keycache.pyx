"""The key cache; see keycache.pxd for who may touch what, and when."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath.aead cimport KEY_BYTES, random_bytes
from fastpath.arena cimport secret_wipe
from fastpath.atomics cimport (
    bump_u64, exchange_u8, fetch_add_i64, fetch_add_u64, load_acquire_ptr, load_acquire_u32, load_acquire_u64,
    load_relaxed_i64, load_relaxed_u64, store_relaxed_i64, store_relaxed_u32, store_relaxed_u64, store_release_ptr,
    store_release_u32,
)
from fastpath.mapping cimport map_unshared, unmap
from fastpath.sockets cimport (
    EINVAL, ENOMEM, ENOSPC, pause_us, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, ring,
)


cdef inline uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    # the finalizer of MurmurHash3 over a keyed input: spreads, does not hide; the seed keeps peers from choosing
    # collisions
    a = (a ^ b) * <uint64_t>0xff51afd7ed558ccdu
    a = (a ^ (a >> 33)) * <uint64_t>0xc4ceb9fe1a85ec53u
    return a ^ (a >> 33)


cdef uint64_t name_hash(KeyCache* cache, uint64_t tweak, const uint8_t* name, uint32_t n) noexcept nogil:
    """A keyed 64-bit hash of a name; equality is always checked on the bytes."""
    cdef uint64_t h = mix(cache.seed, tweak ^ n), word
    while n >= 8:
        memcpy(&word, name, 8)
        h = mix(h, word)
        name += 8
        n -= 8
    word = 0
    memcpy(&word, name, n)
    return mix(h, word)


# Lookups


cdef uint32_t cache_find_key(KeyCache* cache, uint64_t key_id) noexcept nogil:
    """The slot of a data key, or NO_SLOT. Its time may be up: the caller compares `expires`."""
    cdef Table* table = <Table*>load_acquire_ptr(<void**>&cache.by_id)
    cdef uint32_t i = <uint32_t>mix(cache.seed, key_id) & table.mask
    cdef uint32_t entry
    while True:
        entry = load_acquire_u32(&table.entries[i])
        if entry == 0:
            return NO_SLOT
        if entry != TOMB and cache.slots[entry - 1].key_id == key_id:
            return entry - 1
        i = (i + 1) & table.mask


cdef uint32_t cache_find_scope(KeyCache* cache, const uint8_t* name, uint32_t n) noexcept nogil:
    """The scope of that name, or NO_SCOPE."""
    return find_name(cache, name_hash(cache, 0, name, n), name, n)


cdef uint32_t find_name(KeyCache* cache, uint64_t h, const uint8_t* name, uint32_t n) noexcept nogil:
    cdef Table* table = <Table*>load_acquire_ptr(<void**>&cache.by_name)
    cdef uint32_t i = <uint32_t>h & table.mask
    cdef uint32_t entry
    cdef Scope* scope
    while True:
        entry = load_acquire_u32(&table.entries[i])
        if entry == 0:
            return NO_SCOPE
        if entry != TOMB:
            scope = &cache.scopes[entry - 1]
            if scope.hash == h and scope.name_len == n and memcmp(scope.name, name, n) == 0:
                return entry - 1
        i = (i + 1) & table.mask


cdef bint cache_spend(Slot* slot, int64_t messages, bint* low) noexcept nogil:
    """Take messages from a key's budget; False, and nothing taken, when it has not so many. Sets low once a lease."""
    cdef int64_t left = fetch_add_i64(&slot.budget, -messages) - messages
    if left < 0:
        fetch_add_i64(&slot.budget, messages)
        return False
    if left <= load_relaxed_i64(&slot.low_mark) and not exchange_u8(&slot.low_told, 1):
        low[0] = True
    return True


# Opening and closing


cdef enum:
    REFUSAL_BYTES = REFUSAL_SETS * REFUSAL_WAYS * sizeof(Refusal)

cdef Table* new_table(uint32_t capacity) noexcept nogil:
    # at most half full with live entries, so that a probe always ends
    cdef uint32_t size = 16
    while size < 2 * <uint64_t>capacity:
        size *= 2
    # mapped, not allocated: pages that no key has touched cost nothing, whatever the allocator writes into new blocks
    cdef Table* table = <Table*>map_unshared(table_bytes(size))
    if table != NULL:
        table.mask = size - 1
    return table


cdef inline size_t table_bytes(uint32_t size) noexcept nogil:
    return sizeof(Table) + size * sizeof(uint32_t)


cdef void free_table(Table* table) noexcept nogil:
    if table != NULL:
        unmap(table, table_bytes(table.mask + 1))


cdef int cache_open(KeyCache* cache, uint32_t capacity, uint8_t* keys) noexcept nogil:
    """Allocate for `capacity` keys stored at `keys` (32 bytes each). 0, or a negative errno."""
    cdef uint32_t i
    memset(cache, 0, sizeof(KeyCache))
    if capacity < 1 or capacity > 0x10000000:
        return -EINVAL
    if random_bytes(<uint8_t*>&cache.seed, 8) != 0:
        return -EINVAL
    pthread_mutex_init(&cache.lock, NULL)
    pthread_mutex_init(&cache.refusal_lock, NULL)
    cache.capacity = capacity
    cache.keys = keys
    cache.slots = <Slot*>map_unshared(capacity * sizeof(Slot))
    cache.scopes = <Scope*>map_unshared(capacity * sizeof(Scope))
    cache.refusals = <Refusal*>map_unshared(REFUSAL_BYTES)
    cache.by_id = new_table(capacity)
    cache.by_name = new_table(capacity)
    if (cache.slots == NULL or cache.scopes == NULL or cache.refusals == NULL
            or cache.by_id == NULL or cache.by_name == NULL):
        cache_close(cache)
        return -ENOMEM
    # the free lists grow by need: untouched slots cost no memory
    cache.free_slot = NO_SLOT
    cache.free_scope = NO_SCOPE
    for i in range(64):
        cache.wake_fds[i] = -1
    return 0


cdef void cache_close(KeyCache* cache) noexcept nogil:
    """Wipe and free; no worker may be running."""
    cdef uint32_t i
    if cache.capacity == 0:
        return
    if cache.slots != NULL:
        for i in range(cache.slots_used):
            if cache.slots[i].live:
                secret_wipe(cache.keys + <size_t>i * KEY_BYTES, KEY_BYTES)
    if cache.scopes != NULL:
        for i in range(cache.scopes_used):
            free(cache.scopes[i].name)
    if cache.slots != NULL:
        unmap(cache.slots, cache.capacity * sizeof(Slot))
    if cache.scopes != NULL:
        unmap(cache.scopes, cache.capacity * sizeof(Scope))
    if cache.refusals != NULL:
        unmap(cache.refusals, REFUSAL_BYTES)
    free_table(cache.by_id)
    free_table(cache.by_name)
    pthread_mutex_destroy(&cache.lock)
    pthread_mutex_destroy(&cache.refusal_lock)
    memset(cache, 0, sizeof(KeyCache))


# Waiting for the workers


cdef void await_workers(KeyCache* cache) noexcept nogil:
    """Return when no worker can still see what was made unreachable before this call. Lock held."""
    cdef uint64_t number = fetch_add_u64(&cache.removals, 1) + 1
    cdef uint32_t i, spins
    for i in range(cache.n_workers):
        ring(cache.wake_fds[i])
    for i in range(cache.n_workers):
        spins = 0
        while load_acquire_u64(&cache.acks[i].seen) < number:
            spins += 1
            pause_us(20 if spins < 50 else 500)


cdef void cache_await(KeyCache* cache) noexcept nogil:
    pthread_mutex_lock(&cache.lock)
    await_workers(cache)
    pthread_mutex_unlock(&cache.lock)


# Tables, lock held


cdef void table_add(Table* table, uint64_t h, uint32_t index) noexcept nogil:
    cdef uint32_t i = <uint32_t>h & table.mask
    while table.entries[i] != 0 and table.entries[i] != TOMB:
        i = (i + 1) & table.mask
    if table.entries[i] == 0:
        table.used += 1
    store_release_u32(&table.entries[i], index + 1)


cdef void table_drop(Table* table, uint64_t h, uint32_t index) noexcept nogil:
    cdef uint32_t i = <uint32_t>h & table.mask
    while table.entries[i] != index + 1:
        if table.entries[i] == 0:
            return
        i = (i + 1) & table.mask
    store_release_u32(&table.entries[i], TOMB)


cdef inline bint crowded(Table* table) noexcept nogil:
    # tombs lengthen every probe: past three quarters a rebuild is due
    return table.used > table.mask - table.mask / 4


cdef void rebuild_if_crowded(KeyCache* cache) noexcept nogil:
    """Replace a table full of tombs by a clean one. Without memory the old one stays, and is slower."""
    cdef Table* old_ids = NULL
    cdef Table* old_names = NULL
    cdef Table* fresh
    cdef uint32_t i
    if crowded(cache.by_id):
        fresh = new_table(cache.capacity)
        if fresh != NULL:
            for i in range(cache.slots_used):
                if cache.slots[i].live:
                    table_add(fresh, mix(cache.seed, cache.slots[i].key_id), i)
            old_ids = cache.by_id
            store_release_ptr(<void**>&cache.by_id, fresh)
    if crowded(cache.by_name):
        fresh = new_table(cache.capacity)
        if fresh != NULL:
            for i in range(cache.scopes_used):
                if cache.scopes[i].name != NULL:
                    table_add(fresh, cache.scopes[i].hash, i)
            old_names = cache.by_name
            store_release_ptr(<void**>&cache.by_name, fresh)
    if old_ids != NULL or old_names != NULL:
        await_workers(cache)
        free_table(old_ids)
        free_table(old_names)


# Removal, lock held


cdef void unlink_slot(KeyCache* cache, uint32_t index) noexcept nogil:
    """Make a key unreachable. The slot is not free before bury() after await_workers()."""
    cdef Slot* slot = &cache.slots[index]
    cdef Scope* scope = &cache.scopes[slot.scope]
    table_drop(cache.by_id, mix(cache.seed, slot.key_id), index)
    if scope.active[slot.purpose] == index + 1:
        store_release_u32(&scope.active[slot.purpose], 0)
    slot.live = 0
    store_release_u32(&slot.generation, slot.generation + 1)
    scope.keys -= 1
    if scope.keys == 0:
        table_drop(cache.by_name, scope.hash, slot.scope)
        store_release_u32(&scope.generation, scope.generation + 1)
    store_relaxed_u32(&cache.live, cache.live - 1)


cdef void bury(KeyCache* cache, uint32_t index) noexcept nogil:
    cdef Slot* slot = &cache.slots[index]
    cdef Scope* scope = &cache.scopes[slot.scope]
    secret_wipe(cache.keys + <size_t>index * KEY_BYTES, KEY_BYTES)
    slot.key_id = 0
    slot.next_free = cache.free_slot
    cache.free_slot = index
    if scope.keys == 0 and scope.name != NULL:
        free(scope.name)
        scope.name = NULL
        scope.next_free = cache.free_scope
        cache.free_scope = slot.scope


cdef uint32_t remove_all(KeyCache* cache, uint32_t* indices, uint32_t n) noexcept nogil:
    """Unlink, wait once, wipe."""
    cdef uint32_t i
    for i in range(n):
        unlink_slot(cache, indices[i])
    if n:
        await_workers(cache)
        for i in range(n):
            bury(cache, indices[i])
    return n


cdef uint32_t cache_remove(KeyCache* cache, uint64_t key_id) noexcept nogil:
    """Remove one key; 1, or 0 when it was not there."""
    pthread_mutex_lock(&cache.lock)
    cdef uint32_t index = cache_find_key(cache, key_id)
    cdef uint32_t n = 0 if index == NO_SLOT else remove_all(cache, &index, 1)
    pthread_mutex_unlock(&cache.lock)
    return n


cdef enum:
    BATCH = 256


cdef uint32_t cache_remove_scope(KeyCache* cache, const uint8_t* name, uint32_t n) noexcept nogil:
    """Remove every key of a scope; how many."""
    cdef uint32_t batch[BATCH]
    cdef uint32_t scope, i, count, total = 0
    pthread_mutex_lock(&cache.lock)
    while True:
        scope = cache_find_scope(cache, name, n)
        count = 0
        if scope != NO_SCOPE:
            for i in range(cache.slots_used):
                if cache.slots[i].live and cache.slots[i].scope == scope and count < BATCH:
                    batch[count] = i
                    count += 1
        if count == 0:
            break
        total += remove_all(cache, batch, count)
    pthread_mutex_unlock(&cache.lock)
    return total


cdef uint32_t cache_remove_expired(KeyCache* cache, uint64_t now) noexcept nogil:
    """Remove up to 256 keys whose time is up; how many."""
    cdef uint32_t batch[BATCH]
    cdef uint32_t i, count = 0
    pthread_mutex_lock(&cache.lock)
    for i in range(cache.slots_used):
        if cache.slots[i].live and load_relaxed_u64(&cache.slots[i].expires) <= now:
            batch[count] = i
            count += 1
            if count == BATCH:
                break
    bump_u64(&cache.expired, remove_all(cache, batch, count))
    pthread_mutex_unlock(&cache.lock)
    return count


cdef void make_room(KeyCache* cache, uint64_t now) noexcept nogil:
    """Evict a few keys that were not used lately (second chance by age). Lock held."""
    cdef uint32_t batch[BATCH]
    cdef uint32_t want = cache.capacity / 64 + 1
    cdef uint32_t looked, count = 0
    cdef uint64_t used, recent
    cdef Slot* slot
    cdef int round
    if want > BATCH:
        want = BATCH
    # the age that counts as recent shrinks until enough is found: 1 min, 7.5 s, 0.9 s, any
    for round in range(4):
        recent = 0 if round == 3 else (<uint64_t>60000000000u >> (3 * round))
        looked = 0
        while looked < cache.capacity and count < want:
            slot = &cache.slots[cache.clock_hand]
            used = load_relaxed_u64(&slot.used_at)
            if slot.live == 1 and (recent == 0 or used + recent <= now):
                slot.live = 2  # chosen, so that a later round does not choose it again
                batch[count] = cache.clock_hand
                count += 1
            cache.clock_hand = (cache.clock_hand + 1) % cache.capacity
            looked += 1
        if count:
            break
    bump_u64(&cache.evicted, remove_all(cache, batch, count))


# Installation


cdef uint32_t take_scope(KeyCache* cache, const uint8_t* name, uint32_t n) noexcept nogil:
    """The scope of that name, made when new. NO_SCOPE when there is no memory. Lock held."""
    cdef uint64_t h = name_hash(cache, 0, name, n)
    cdef uint32_t index = find_name(cache, h, name, n)
    cdef Scope* scope
    if index != NO_SCOPE:
        return index
    cdef char* copy = <char*>malloc(n)
    if copy == NULL:
        return NO_SCOPE
    memcpy(copy, name, n)
    index = cache.free_scope
    if index != NO_SCOPE:
        cache.free_scope = cache.scopes[index].next_free
    else:
        # scopes never outnumber slots, and a slot is free when this is called
        index = cache.scopes_used
        cache.scopes_used += 1
    scope = &cache.scopes[index]
    store_release_u32(&scope.generation, scope.generation + 1)
    scope.hash = h
    scope.name = copy
    scope.name_len = <uint16_t>n
    scope.active[0] = scope.active[1] = 0
    scope.keys = 0
    table_add(cache.by_name, h, index)
    return index


cdef int cache_install(KeyCache* cache, uint64_t key_id, const uint8_t* name, uint32_t n, uint8_t purpose,
                       const uint8_t* key, uint64_t now, uint64_t expires, uint8_t index_bytes) noexcept nogil:
    """0; -ENOSPC when every slot is taken, -ENOMEM, or -EINVAL when the id is cached for another scope or purpose."""
    cdef int outcome = -ENOSPC
    cdef uint32_t index, scope
    cdef Slot* slot
    pthread_mutex_lock(&cache.lock)
    index = cache_find_key(cache, key_id)
    if index != NO_SLOT:
        outcome = renew(cache, index, name, n, purpose, expires)
        pthread_mutex_unlock(&cache.lock)
        return outcome
    rebuild_if_crowded(cache)
    if cache.by_id.used >= cache.by_id.mask or cache.by_name.used >= cache.by_name.mask:
        # no memory for a clean table: a full one would let a probe run for ever
        pthread_mutex_unlock(&cache.lock)
        return -ENOMEM
    if cache.free_slot == NO_SLOT and cache.slots_used == cache.capacity:
        make_room(cache, now)
    index = cache.free_slot if cache.free_slot != NO_SLOT else cache.slots_used
    if index < cache.capacity:
        scope = take_scope(cache, name, n)
        if scope == NO_SCOPE:
            outcome = -ENOMEM
        else:
            slot = &cache.slots[index]
            if index == cache.free_slot:
                cache.free_slot = slot.next_free
            else:
                cache.slots_used += 1
            memcpy(cache.keys + <size_t>index * KEY_BYTES, key, KEY_BYTES)
            fill(slot, key_id, scope, purpose, now, expires, index_bytes)
            cache.scopes[scope].keys += 1
            store_relaxed_u32(&cache.live, cache.live + 1)
            table_add(cache.by_id, mix(cache.seed, key_id), index)
            outcome = 0
    pthread_mutex_unlock(&cache.lock)
    return outcome


cdef int renew(KeyCache* cache, uint32_t index, const uint8_t* name, uint32_t n, uint8_t purpose,
               uint64_t expires) noexcept nogil:
    cdef Slot* slot = &cache.slots[index]
    cdef Scope* scope = &cache.scopes[slot.scope]
    if slot.purpose != purpose or scope.name_len != n or memcmp(scope.name, name, n) != 0:
        return -EINVAL
    store_relaxed_u64(&slot.expires, expires)
    return 0


cdef void fill(Slot* slot, uint64_t key_id, uint32_t scope, uint8_t purpose, uint64_t now, uint64_t expires,
               uint8_t index_bytes) noexcept nogil:
    slot.key_id = key_id
    slot.scope = scope
    store_release_u32(&slot.generation, slot.generation + 1)
    slot.purpose = purpose
    slot.index_bytes = index_bytes
    slot.installed_at = now
    store_relaxed_i64(&slot.budget, 0)
    store_relaxed_i64(&slot.low_mark, 0)
    slot.low_told = 0
    store_relaxed_u64(&slot.used_at, now)
    store_relaxed_u64(&slot.expires, expires)
    slot.live = 1


cdef int grant(Slot* slot, int64_t budget) noexcept nogil:
    cdef int64_t total = fetch_add_i64(&slot.budget, budget) + budget
    store_relaxed_i64(&slot.low_mark, total / 2)
    exchange_u8(&slot.low_told, 0)
    return 0


cdef int cache_activate(KeyCache* cache, uint64_t key_id, int64_t budget) noexcept nogil:
    """0, or -EINVAL when the key is not cached."""
    pthread_mutex_lock(&cache.lock)
    cdef uint32_t index = cache_find_key(cache, key_id)
    cdef Slot* slot
    if index != NO_SLOT:
        slot = &cache.slots[index]
        grant(slot, budget)
        store_release_u32(&cache.scopes[slot.scope].active[slot.purpose], index + 1)
    pthread_mutex_unlock(&cache.lock)
    return 0 if index != NO_SLOT else -EINVAL


cdef int cache_add_budget(KeyCache* cache, uint64_t key_id, int64_t budget) noexcept nogil:
    """0, or -EINVAL when the key is not cached."""
    pthread_mutex_lock(&cache.lock)
    cdef uint32_t index = cache_find_key(cache, key_id)
    if index != NO_SLOT:
        grant(&cache.slots[index], budget)
    pthread_mutex_unlock(&cache.lock)
    return 0 if index != NO_SLOT else -EINVAL


cdef void cache_deactivate(KeyCache* cache, const uint8_t* name, uint32_t n, uint8_t purpose) noexcept nogil:
    pthread_mutex_lock(&cache.lock)
    cdef uint32_t scope = cache_find_scope(cache, name, n)
    if scope != NO_SCOPE:
        store_release_u32(&cache.scopes[scope].active[purpose], 0)
    pthread_mutex_unlock(&cache.lock)


# Negative cache


cdef inline bint same_refusal(Refusal* r, uint64_t h, uint8_t kind, uint64_t key_id, const uint8_t* name,
                              uint32_t n) noexcept nogil:
    return (r.hash == h and r.kind == kind and r.key_id == key_id and r.name_len == n
            and memcmp(r.name, name, n) == 0)


cdef int cache_refused(KeyCache* cache, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t n,
                       uint64_t now) noexcept nogil:
    """The error code to answer, or 0. Takes refusal_lock: only requests that found no key come here."""
    cdef uint64_t h = name_hash(cache, mix(key_id, kind), name, n)
    cdef Refusal* row = &cache.refusals[(h % REFUSAL_SETS) * REFUSAL_WAYS]
    cdef int i, code = 0
    pthread_mutex_lock(&cache.refusal_lock)
    for i in range(REFUSAL_WAYS):
        if row[i].expires > now and same_refusal(&row[i], h, kind, key_id, name, n):
            code = row[i].code
            break
    pthread_mutex_unlock(&cache.refusal_lock)
    return code


cdef void cache_refuse(KeyCache* cache, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t n,
                       uint8_t code, uint64_t expires) noexcept nogil:
    """Remember a refusal; in a full set it replaces the one that ends first."""
    cdef uint64_t h = name_hash(cache, mix(key_id, kind), name, n)
    cdef Refusal* row = &cache.refusals[(h % REFUSAL_SETS) * REFUSAL_WAYS]
    cdef Refusal* place = row
    cdef int i
    pthread_mutex_lock(&cache.refusal_lock)
    for i in range(REFUSAL_WAYS):
        if same_refusal(&row[i], h, kind, key_id, name, n):
            place = &row[i]
            break
        if row[i].expires < place.expires:
            place = &row[i]
    place.hash = h
    place.kind = kind
    place.key_id = key_id
    place.code = code
    place.expires = expires
    place.name_len = <uint16_t>n
    memcpy(place.name, name, n)
    pthread_mutex_unlock(&cache.refusal_lock)
