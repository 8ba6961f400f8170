"""One request: gate, keys, cryptography, response. Called by a worker; everything lands in the worker's response
buffer.

Reads like docs/spec/wire.md. A request either is answered, or meets data keys that are not cached: then nothing of its
response is kept, it is parked, and run again from the start when the control plane has settled the keys.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from fastpath.aead cimport EVP_CIPHER_CTX
from fastpath.arena cimport secret_wipe
from fastpath.atomics cimport (
    bump_u64, fetch_add_i64, load_acquire_int, load_acquire_ptr, load_acquire_u32, load_relaxed_u64, store_relaxed_u64,
)
from fastpath.cryptor cimport (
    cryptor_bind, cryptor_context, cryptor_header, cryptor_index, envelope_open, envelope_seal, is_envelope,
)
from fastpath.frame cimport CONTEXT_EACH, PARSED, REFUSED_CLOSE, Request, parse_request, valid_name
from fastpath.gate cimport NO_RULE, Policy, policy_decide, rate_allows
from fastpath.keycache cimport (
    NO_SCOPE, NO_SLOT, KeyCache, Slot, cache_find_key, cache_find_scope, cache_refused, cache_spend,
)
from fastpath.mailbox cimport mailbox_put
from fastpath.msgpack cimport be64, put_array, put_bin, put_uint32, read_blob
from fastpath.parking cimport park_ask, park_begin, park_end, park_on
from fastpath.plane cimport EVENT_LOW, ITEM_DONE, ITEM_WAITS, Connection, Event, Parked, Worker
from fastpath.response cimport HEAD_BYTES, finish_frame, reply_error, reply_hello, reserve, rewind
from fastpath.protocol cimport (
    BAD_REQUEST, DENIED, ENVELOPE_OVERHEAD, FIELD, HEADER_BYTES, INDEX, INTERNAL, INVALID_CIPHERTEXT, ITEM_GROWTH,
    OP_BLIND_INDEX, OP_DECRYPT, OP_ENCRYPT, OP_HELLO, OP_REENCRYPT, OVERLOADED, PARTIAL, RATE_LIMITED, SEALED_AT,
    SHUTTING_DOWN, UNKNOWN_KEYRING,
)


cdef enum:
    USED_STEP = 100000000    # ns: how exact `used_at` is
    BARREN_RUNS = 16         # in a row, after which a request is given up: its keys are evicted before it can run


cdef struct Task:
    # One request on its way through. On the stack of serve().
    Worker* w
    Connection* c
    Request* r
    const uint8_t* frame
    size_t n
    Parked* parked
    size_t start         # of the response in w.out
    size_t status_at
    uint32_t item        # the one at hand
    uint32_t failed      # items
    uint32_t gained      # items done that the next run need not do
    bint rerun           # parked before
    bint missing         # a key is asked for: no response yet
    bint inactive        # the active key is: no item could be done
    int refusal          # the whole request fails with this code

cdef struct Cursor:
    # The item at hand and how much associated data the cryptor holds for it. What follows is read from the frame.
    const uint8_t* items
    const uint8_t* contexts
    const uint8_t* value     # NULL: nil
    uint32_t n
    size_t associated

cdef struct KeyView:
    # What DECRYPT knows of the data key it used last: batches mostly repeat one.
    uint64_t key_id
    uint32_t slot
    bint valid
    bint waits           # it was asked for
    bint ours            # belongs to the scope that the request names
    int code             # error for every item under this key, or 0
    EVP_CIPHER_CTX* cipher


# Entry


cdef int serve_frame(Worker* w, Connection* c, const uint8_t* frame, size_t n) noexcept nogil:
    """Serve one frame's body as it came in."""
    cdef Request r
    cdef int parsed = parse_request(frame, n, &r)
    cdef int outcome
    if parsed != PARSED:
        outcome = refuse(w, &r, BAD_REQUEST)
        return CLOSING if outcome == SERVED and parsed == REFUSED_CLOSE else outcome
    bump_u64(&w.counters.requests[r.op], 1)
    bump_u64(&w.counters.items[r.op], r.n_items)
    if r.op == OP_HELLO:
        return SERVED if reply_hello(w, r.id) else NO_MEMORY
    if load_acquire_int(&w.plane.draining):
        return refuse(w, &r, SHUTTING_DOWN)
    return serve(w, c, frame, n, &r, NULL)


cdef int refuse(Worker* w, Request* r, int code) noexcept nogil:
    return SERVED if reply_error(w, r.id, code) else NO_MEMORY


cdef int serve_parked(Worker* w, Parked* parked) noexcept nogil:
    """Run a parked request again, its keys being settled."""
    cdef Request r
    parse_request(parked.frame, parked.n, &r)
    return serve(w, parked.connection, parked.frame, parked.n, &r, parked)


cdef uint32_t request_id_of(const uint8_t* frame, size_t n) noexcept nogil:
    cdef Request r
    parse_request(frame, n, &r)
    return r.id


cdef int serve(Worker* w, Connection* c, const uint8_t* frame, size_t n, Request* r, Parked* parked) noexcept nogil:
    cdef Task t
    cdef int code = admit(w, c, r, parked)
    if code:
        return refuse(w, r, code)
    memset(&t, 0, sizeof(Task))
    t.w = w
    t.c = c
    t.r = r
    t.frame = frame
    t.n = n
    t.parked = parked
    t.rerun = parked != NULL
    t.start = w.out_n
    if not reserve(w, HEAD_BYTES + n + r.n_items * <size_t>ITEM_GROWTH):
        return NO_MEMORY
    w.out_n += 4
    w.out_n += put_array(w.out + w.out_n, 3)
    w.out_n += put_uint32(w.out + w.out_n, r.id)
    t.status_at = w.out_n
    w.out[w.out_n] = 0
    w.out_n += 1
    w.out_n += put_array(w.out + w.out_n, r.n_items)
    if r.op == OP_ENCRYPT:
        encrypt(&t)
    elif r.op == OP_DECRYPT:
        decrypt(&t)
    elif r.op == OP_BLIND_INDEX:
        index(&t)
    else:
        reencrypt(&t)
    cdef int outcome = conclude(&t)
    if t.missing:
        park_ask(w)
    if outcome != WAITING and parked == NULL and t.parked != NULL:
        # parked for one key, then refused for another
        park_end(w, t.parked)
    return outcome


cdef int conclude(Task* t) noexcept nogil:
    cdef Worker* w = t.w
    if t.missing and not t.refusal and gives_up(t):
        t.refusal = OVERLOADED
    if t.failed:
        count_failures(w, not (t.refusal or t.missing))
        w.out[t.status_at] = PARTIAL
    if t.refusal:
        rewind(w, t.start)
        return refuse(w, t.r, t.refusal)
    if t.missing:
        rewind(w, t.start)
        return WAITING
    finish_frame(w, t.start)
    return SERVED


cdef void count_failures(Worker* w, bint answered) noexcept nogil:
    """An item of a request that waits is counted when it is answered, however often it was looked at."""
    cdef int code
    for code in range(32):
        if answered:
            bump_u64(&w.counters.failed_items[code], w.failing[code])
        w.failing[code] = 0


cdef bint gives_up(Task* t) noexcept nogil:
    """Whether other requests evict this one's keys before it can run, again and again."""
    if t.parked == NULL or t.parked.outcomes == NULL or t.inactive:
        return False
    t.parked.barren = 0 if t.gained else t.parked.barren + 1
    return t.parked.barren >= BARREN_RUNS


# Gate


cdef int admit(Worker* w, Connection* c, Request* r, Parked* parked) noexcept nogil:
    """0, or the code to refuse with. Resolves the name once for as long as the connection repeats it."""
    cdef Policy* policy = <Policy*>load_acquire_ptr(<void**>&w.plane.policy)
    cdef KeyCache* cache = &w.plane.cache
    if policy == NULL:
        return DENIED
    if not (r.name_len == c.name_len and c.policy_generation == policy.generation
            and memcmp(r.name, c.name, r.name_len) == 0):
        if not valid_name(r.name, r.name_len):
            return BAD_REQUEST
        memcpy(c.name, r.name, r.name_len)
        c.name_len = <uint16_t>r.name_len
        c.policy_generation = policy.generation
        c.scope = NO_SCOPE
        policy_decide(policy, &c.peer, r.name, r.name_len, c.rules)
    if c.rules[r.op] == NO_RULE:
        return DENIED
    # a parked request was charged when it came
    if parked == NULL and not rate_allows(&policy.rules[c.rules[r.op]], r.n_items, w.now):
        return RATE_LIMITED
    # an even generation: the scope went away while it was looked up
    if (c.scope == NO_SCOPE or not c.scope_generation & 1
            or load_acquire_u32(&cache.scopes[c.scope].generation) != c.scope_generation):
        resolve_scope(cache, c)
    return 0


cdef void resolve_scope(KeyCache* cache, Connection* c) noexcept nogil:
    c.scope = cache_find_scope(cache, c.name, c.name_len)
    if c.scope != NO_SCOPE:
        c.scope_generation = load_acquire_u32(&cache.scopes[c.scope].generation)


# Keys


cdef uint32_t active_slot(Task* t, uint8_t purpose) noexcept nogil:
    """The slot of the scope's active key, or NO_SLOT when there is none that may be used now."""
    cdef KeyCache* cache = &t.w.plane.cache
    cdef uint32_t entry
    if t.c.scope == NO_SCOPE:
        return NO_SLOT
    entry = load_acquire_u32(&cache.scopes[t.c.scope].active[purpose])
    if entry == 0 or not usable(t.w, &cache.slots[entry - 1]):
        return NO_SLOT
    return entry - 1


cdef inline bint usable(Worker* w, Slot* slot) noexcept nogil:
    if load_relaxed_u64(&slot.expires) <= w.now:
        return False
    if load_relaxed_u64(&slot.used_at) + USED_STEP < w.now:
        store_relaxed_u64(&slot.used_at, w.now)
    return True


cdef void miss(Task* t, uint8_t kind, uint64_t key_id, uint64_t wanted) noexcept nogil:
    """Park the request for a key, or refuse it when too much waits."""
    cdef uint32_t outcomes = t.r.n_items if t.r.op == OP_DECRYPT or t.r.op == OP_REENCRYPT else 0
    t.missing = True
    if t.parked == NULL:
        t.parked = park_begin(t.w, t.c, t.frame, t.n, outcomes)
        if t.parked == NULL:
            t.refusal = OVERLOADED
            return
    if park_on(t.w, t.parked, kind, key_id, t.c.name, t.c.name_len, wanted) < 0 and t.parked.waiting == 0:
        t.refusal = OVERLOADED


cdef inline void hit(Task* t) noexcept nogil:
    # a key that was waited for is a miss, not a hit
    if not t.rerun:
        bump_u64(&t.w.counters.key_hits, 1)


cdef uint32_t require_active(Task* t, uint8_t purpose, uint64_t messages) noexcept nogil:
    """The active key, so many messages taken from its budget; NO_SLOT: the request waits or is refused."""
    cdef KeyCache* cache = &t.w.plane.cache
    cdef uint32_t slot = active_slot(t, purpose)
    cdef bint low = False
    if slot != NO_SLOT and (purpose == INDEX or cache_spend(&cache.slots[slot], messages, &low)):
        if low:
            tell_low(t, &cache.slots[slot])
        hit(t)
        return slot
    t.refusal = cache_refused(cache, 1 + purpose, 0, t.c.name, t.c.name_len, t.w.now)
    if not t.refusal:
        miss(t, 1 + purpose, 0, messages)
    return NO_SLOT


cdef void tell_low(Task* t, Slot* slot) noexcept nogil:
    cdef Event* event = <Event*>malloc(sizeof(Event))
    if event == NULL:
        # the budget's end is still guarded: the request that meets it parks and asks
        return
    event.kind = EVENT_LOW
    event.purpose = slot.purpose
    event.token = 0
    event.key_id = slot.key_id
    event.wanted = 0
    event.name_len = t.c.name_len
    memcpy(event.name, t.c.name, t.c.name_len)
    mailbox_put(&t.w.plane.events, event)


cdef void find_key(Task* t, uint64_t key_id, KeyView* view) noexcept nogil:
    """Fill view for a data key named by an envelope; it may have to be fetched."""
    cdef KeyCache* cache = &t.w.plane.cache
    cdef Slot* slot
    view.valid = True
    view.key_id = key_id
    view.code = 0
    view.waits = False
    view.cipher = NULL
    view.slot = cache_find_key(cache, key_id)
    if view.slot != NO_SLOT:
        slot = &cache.slots[view.slot]
        if usable(t.w, slot):
            if t.c.scope == NO_SCOPE:
                # the key came, and its scope with it, after this request was admitted
                resolve_scope(cache, t.c)
            view.ours = slot.scope == t.c.scope and slot.purpose == FIELD
            view.cipher = cryptor_context(&t.w.cryptor, cache, view.slot, False)
            if view.cipher == NULL:
                view.code = INTERNAL
            hit(t)
            return
    view.code = cache_refused(cache, 0, key_id, t.c.name, t.c.name_len, t.w.now)
    if view.code == UNKNOWN_KEYRING:
        t.refusal = UNKNOWN_KEYRING
    elif view.code == 0:
        view.waits = True
        miss(t, 0, key_id, 0)


# Items


cdef inline void begin(Task* t, Cursor* at) noexcept nogil:
    at.items = t.r.items
    at.contexts = t.r.context
    at.associated = 0
    if t.r.context_kind != CONTEXT_EACH:
        at.associated = cryptor_bind(&t.w.cryptor, t.r.context, t.r.context_len)


cdef inline void advance(Task* t, Cursor* at) noexcept nogil:
    """Read the next item, and its context when it has one of its own."""
    cdef const uint8_t* context
    cdef uint32_t n
    at.items = read_blob(at.items, t.r.end, &at.value, &at.n)
    if t.r.context_kind == CONTEXT_EACH:
        at.contexts = read_blob(at.contexts, t.r.end, &context, &n)
        at.associated = cryptor_bind(&t.w.cryptor, context, n)


cdef inline void put_failure(Task* t, int code) noexcept nogil:
    t.w.out_n += put_uint32(t.w.out + t.w.out_n, code)
    t.failed += 1
    t.w.failing[code] += 1


cdef inline void put_nil(Task* t) noexcept nogil:
    t.w.out[t.w.out_n] = 0xC0
    t.w.out_n += 1


cdef inline void put_value(Task* t, const uint8_t* value, uint32_t n) noexcept nogil:
    t.w.out_n += put_bin(t.w.out + t.w.out_n, n)
    memcpy(t.w.out + t.w.out_n, value, n)
    t.w.out_n += n


cdef inline bint recall(Task* t, Cursor* at) noexcept nogil:
    """Append the outcome that an earlier run of a parked request had for this item, if it had one."""
    cdef uint8_t outcome
    if t.parked == NULL:
        return False
    outcome = t.parked.outcomes[t.item]
    if outcome == ITEM_DONE:
        put_value(t, at.value, result_size(t, at))
    elif outcome != ITEM_WAITS:
        put_failure(t, outcome)
    return outcome != ITEM_WAITS


cdef inline uint32_t result_size(Task* t, Cursor* at) noexcept nogil:
    return at.n - ENVELOPE_OVERHEAD if t.r.op == OP_DECRYPT else at.n


cdef inline void remember(Task* t, Cursor* at, uint32_t failed, size_t start) noexcept nogil:
    """Keep what the item of a parked request came to: `failed` and `start` are what they were before it."""
    cdef uint32_t n
    if t.parked == NULL or t.w.out_n == start:
        return
    t.gained += 1
    if t.failed != failed:
        # one byte: error codes are below 32
        t.parked.outcomes[t.item] = t.w.out[start]
        return
    n = result_size(t, at)
    memcpy(t.parked.frame + (at.value - t.frame), t.w.out + t.w.out_n - n, n)
    t.parked.outcomes[t.item] = ITEM_DONE


cdef void encrypt(Task* t) noexcept nogil:
    cdef Worker* w = t.w
    cdef uint32_t slot = require_active(t, FIELD, t.r.n_present)
    cdef uint32_t _i
    cdef Cursor at
    cdef EVP_CIPHER_CTX* cipher
    cdef size_t head
    if slot == NO_SLOT:
        return
    cipher = cryptor_context(&w.cryptor, &w.plane.cache, slot, True)
    if cipher == NULL:
        t.refusal = INTERNAL
        return
    cryptor_header(&w.cryptor, w.plane.cache.slots[slot].key_id)
    begin(t, &at)
    for _i in range(t.r.n_items):
        advance(t, &at)
        if at.value == NULL:
            put_nil(t)
            continue
        head = put_bin(w.out + w.out_n, at.n + ENVELOPE_OVERHEAD)
        if envelope_seal(&w.cryptor, cipher, at.associated, at.value, at.n, w.out + w.out_n + head) != 0:
            put_failure(t, INTERNAL)
            continue
        w.out_n += head + at.n + ENVELOPE_OVERHEAD


cdef void decrypt(Task* t) noexcept nogil:
    cdef uint32_t i, failed
    cdef Cursor at
    cdef KeyView view
    cdef size_t start
    view.valid = False
    begin(t, &at)
    for i in range(t.r.n_items):
        t.item = i
        advance(t, &at)
        if at.value == NULL:
            put_nil(t)
        elif not recall(t, &at):
            failed = t.failed
            start = t.w.out_n
            open_item(t, &view, &at)
            remember(t, &at, failed, start)
        if t.refusal:
            return


cdef inline void open_item(Task* t, KeyView* view, Cursor* at) noexcept nogil:
    """Append the plaintext of one envelope, or its error code; nothing when its key has to be waited for."""
    cdef Worker* w = t.w
    cdef uint64_t key_id
    cdef size_t head
    cdef int bad
    if not is_envelope(at.value, at.n):
        put_failure(t, INVALID_CIPHERTEXT)
        return
    key_id = be64(at.value + 2)
    if not view.valid or view.key_id != key_id:
        find_key(t, key_id, view)
    if view.waits or t.inactive or t.refusal:
        # the response is given up already; what is left is to find the other keys that this batch needs
        return
    if view.code:
        put_failure(t, view.code)
        return
    cryptor_header(&w.cryptor, key_id)
    head = put_bin(w.out + w.out_n, at.n - ENVELOPE_OVERHEAD)
    bad = envelope_open(&w.cryptor, view.cipher, at.associated, at.value, at.n, w.out + w.out_n + head)
    if bad or not view.ours:
        # a key of another scope is tried like any other, so that timing tells nothing, and its result is thrown away
        secret_wipe(w.out + w.out_n, head + at.n - ENVELOPE_OVERHEAD)
        put_failure(t, INVALID_CIPHERTEXT)
        return
    w.out_n += head + at.n - ENVELOPE_OVERHEAD


cdef void index(Task* t) noexcept nogil:
    cdef Worker* w = t.w
    cdef uint32_t slot = require_active(t, INDEX, t.r.n_present)
    cdef uint32_t _i
    cdef Cursor at
    cdef const uint8_t* context = &w.cryptor.associated[HEADER_BYTES]
    cdef uint8_t[32] full
    if slot == NO_SLOT:
        return
    begin(t, &at)
    for _i in range(t.r.n_items):
        advance(t, &at)
        if at.value == NULL:
            put_nil(t)
        elif cryptor_index(&w.cryptor, &w.plane.cache, slot, context, <uint32_t>(at.associated - HEADER_BYTES),
                           at.value, at.n, full) != 0:
            put_failure(t, INTERNAL)
        else:
            put_value(t, full, w.plane.cache.slots[slot].index_bytes)


cdef void reencrypt(Task* t) noexcept nogil:
    """Open under the envelope's key, seal under the active one; what is under the active one comes back as it is."""
    cdef uint32_t slot = require_active(t, FIELD, t.r.n_present)
    cdef uint32_t i, failed, sealed = 0
    cdef Cursor at
    cdef KeyView view
    cdef size_t start
    view.valid = False
    t.inactive = slot == NO_SLOT
    if t.refusal:
        return
    begin(t, &at)
    for i in range(t.r.n_items):
        t.item = i
        advance(t, &at)
        if at.value == NULL:
            put_nil(t)
        elif not recall(t, &at):
            failed = t.failed
            start = t.w.out_n
            sealed += reseal_item(t, &view, &at, slot)
            remember(t, &at, failed, start)
        if t.refusal:
            break
    if slot != NO_SLOT and sealed < t.r.n_present:
        # taken in advance for every item, used by fewer
        fetch_add_i64(&t.w.plane.cache.slots[slot].budget, t.r.n_present - sealed)


cdef uint32_t reseal_item(Task* t, KeyView* view, Cursor* at, uint32_t slot) noexcept nogil:
    """Append the item's new envelope, or what open_item does; how many messages that took: 1 or 0."""
    cdef Worker* w = t.w
    cdef size_t start = w.out_n
    cdef size_t text = start + SEALED_AT + 5
    cdef uint32_t failed = t.failed
    cdef uint64_t active
    cdef size_t head
    cdef EVP_CIPHER_CTX* cipher
    # the plaintext lands 22 bytes further on, where the new envelope's ciphertext will be written over it
    w.out_n = text
    open_item(t, view, at)
    if w.out_n == text or t.failed != failed:
        move_failure(w, start)
        return 0
    active = w.plane.cache.slots[slot].key_id
    if view.key_id == active:
        secret_wipe(w.out + start, w.out_n - start)
        w.out_n = start
        put_value(t, at.value, at.n)
        return 0
    cipher = cryptor_context(&w.cryptor, &w.plane.cache, slot, True)
    view.valid = False  # that call may have given the old key's context to the new key
    if cipher == NULL:
        secret_wipe(w.out + start, w.out_n - start)
        w.out_n = start
        put_failure(t, INTERNAL)
        return 0
    cryptor_header(&w.cryptor, active)
    head = put_bin(w.out + start, at.n)
    return seal_over(t, cipher, at.associated, start, head, at.n)


cdef uint32_t seal_over(Task* t, EVP_CIPHER_CTX* cipher, size_t associated, size_t start, size_t head,
                        uint32_t n) noexcept nogil:
    """Seal the plaintext at the end of w.out into an envelope of n bytes at start + head."""
    cdef Worker* w = t.w
    cdef uint32_t plain = n - ENVELOPE_OVERHEAD
    cdef uint8_t* text = w.out + w.out_n - plain
    cdef uint8_t* place = w.out + start + head + SEALED_AT
    cdef size_t end = w.out_n
    cdef size_t stop = start + head + n
    if place != text:
        # GCM works in place or on separate buffers, not on overlapping ones
        memmove(place, text, plain)
    if envelope_seal(&w.cryptor, cipher, associated, place, plain, w.out + start + head) != 0:
        secret_wipe(w.out + start, (end if end > stop else stop) - start)
        w.out_n = start
        put_failure(t, INTERNAL)
        return 0
    if end > stop:
        secret_wipe(w.out + stop, end - stop)
    w.out_n = stop
    return 1


cdef void move_failure(Worker* w, size_t start) noexcept nogil:
    """A failed open left its error code behind the gap that was kept for an envelope: close the gap."""
    cdef size_t at = start + SEALED_AT + 5
    cdef size_t n = w.out_n - at
    memmove(w.out + start, w.out + at, n)
    w.out_n = start + n
