"""The secret arena: see arena.pxd for its layout and its promises.

The allocator. Requests up to 2032 bytes come from size classes: each thread keeps short lists of free blocks that only
it touches, and fetches or returns several at once under one mutex; behind them lie slabs, runs of pages cut into blocks
of one class. Larger requests are runs of pages. A 16-byte header in front of every block holds its size and a check
value over size and address; a pointer that fails the check ends the process, for whatever wrote there may have taken a
key with it. Free memory is always zero but for headers and list links.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport abort, calloc, free
from libc.string cimport memcpy, memset, strlen

from fastpath.linux cimport (
    EINVAL,
    ENOMEM,
    PTHREAD_KEYS_MAX,
    STDERR_FILENO,
    errno,
    explicit_bzero,
    getrandom,
    pthread_atfork,
    pthread_getspecific,
    pthread_key_create,
    pthread_key_delete,
    pthread_key_t,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    pthread_setspecific,
    write,
)
from fastpath.mapping cimport Reservation, map_unshared, reserve, unmap
from fastpath.pages cimport (
    HEAP_PAGE,
    NO_PAGE,
    PAGE_LARGE,
    PAGE_SLAB,
    Page,
    list_push,
    list_remove,
    pages_give,
    pages_init,
    pages_take,
)

cdef enum:
    CLASSES = 23           # block sizes 32, 48 .. 128, then four to each doubling up to 2048 bytes, header included
    SMALL_MAX = 2032       # largest request that a size class serves
    LARGE = 0xFF           # `size_class` of a block that is a run of pages
    HEAP_MAX = 1 << 30

cdef struct Block:
    # Written by the thread that allocates or frees the block; 16 bytes, so that what follows is aligned.
    uint64_t check         # seal_of(block) while handed out, 0 while free
    uint32_t size          # bytes asked for
    uint32_t size_class

cdef struct ThreadCache:
    # Read and written by its own thread only; lies in ordinary memory and holds addresses, never contents.
    Block* blocks[CLASSES]
    uint16_t count[CLASSES]

cdef struct Arena:
    # Lies in memory that a child process sees as zeros: there `kind` is ARENA_CLOSED. Written by arena_open before any
    # other thread can call; afterwards constant but for what is under `lock`.
    ArenaKind kind
    Reservation map
    uint64_t secret                # makes header checks unforgeable by stray writes
    pthread_key_t cache_key
    uint32_t total                 # heap pages
    uint16_t block_bytes[CLASSES]
    uint8_t class_of[(SMALL_MAX >> 4) + 2]      # by block bytes, in units of 16
    pthread_mutex_t lock
    uint32_t free_runs             # under `lock`
    uint32_t roomy[CLASSES]        # under `lock`: slabs of each class with free blocks
    Page* pages                    # under `lock`

cdef Arena* arena = NULL           # set once by arena_open
cdef uint8_t* lowest = NULL        # copies of the reservation's bounds that a child can read, to know what to forget
cdef uint8_t* beyond = NULL
cdef bint fork_handled = False


cdef void secret_wipe(void* p, size_t n) noexcept nogil:
    explicit_bzero(p, n)


cdef bint arena_usable() noexcept nogil:
    return arena != NULL and arena.kind != ARENA_CLOSED


cdef ArenaKind arena_kind() noexcept nogil:
    return arena.kind if arena != NULL else ARENA_CLOSED


cdef uint8_t* arena_keys() noexcept nogil:
    return arena.map.second if arena_usable() else NULL


cdef size_t arena_key_bytes() noexcept nogil:
    return arena.map.second_bytes if arena_usable() else 0


cdef void die(const char* what) noexcept nogil:
    cdef ssize_t written = write(STDERR_FILENO, what, strlen(what))
    # the process ends whether or not anybody could be told
    if written <= 0:
        abort()
    abort()


# Opening

cdef void forget_in_child() noexcept nogil:
    # thread-local values that point into the arena would be followed by their destructors at this thread's end
    cdef pthread_key_t key
    cdef uint8_t* value
    for key in range(<unsigned int>PTHREAD_KEYS_MAX):
        value = <uint8_t*>pthread_getspecific(key)
        if value >= lowest and value < beyond:
            pthread_setspecific(key, NULL)


cdef void set_classes(Arena* a) noexcept nogil:
    cdef uint32_t c, units
    cdef uint32_t bytes
    for c in range(<uint32_t>CLASSES):
        if c < 7:
            bytes = 32 + 16 * c
        else:
            bytes = (<uint32_t>32 << ((c - 7) >> 2)) * (5 + ((c - 7) & 3))
        a.block_bytes[c] = <uint16_t>bytes
        a.roomy[c] = NO_PAGE
    c = 0
    for units in range(sizeof(a.class_of)):
        while c < CLASSES - 1 and a.block_bytes[c] < units << 4:
            c += 1
        a.class_of[units] = <uint8_t>c


cdef int prepare(Arena* a, size_t heap_bytes, size_t key_bytes, bint secretmem) noexcept nogil:
    global fork_handled
    cdef int failure
    if getrandom(&a.secret, sizeof(a.secret), 0) != sizeof(a.secret):
        return -errno
    if not fork_handled:
        failure = -pthread_atfork(NULL, NULL, forget_in_child)
        if failure != 0:
            return failure
        fork_handled = True
    failure = -pthread_mutex_init(&a.lock, NULL)
    if failure == 0:
        failure = -pthread_key_create(&a.cache_key, drop_cache)
    if failure != 0:
        return failure
    failure = reserve(&a.map, heap_bytes, key_bytes, secretmem)
    if failure != 0:
        pthread_key_delete(a.cache_key)
        return failure
    set_classes(a)
    a.total = <uint32_t>(a.map.first_bytes // HEAP_PAGE)
    pages_init(a.pages, a.total, &a.free_runs)
    return 0


cdef int arena_open(size_t heap_bytes, size_t key_bytes, bint secretmem) noexcept nogil:
    global arena, lowest, beyond
    cdef Arena* a
    cdef size_t n
    cdef int failure
    if arena != NULL or heap_bytes == 0 or heap_bytes > HEAP_MAX or key_bytes == 0:
        return -EINVAL
    # room for one page more than asked: the mapping may round up to a larger page of the processor
    n = sizeof(Arena) + (heap_bytes // HEAP_PAGE + 17) * sizeof(Page)
    a = <Arena*>map_unshared(n)
    if a == NULL:
        return -ENOMEM
    a.pages = <Page*>(<uint8_t*>a + sizeof(Arena))
    failure = prepare(a, heap_bytes, key_bytes, secretmem)
    if failure != 0:
        unmap(a, n)
        return failure
    lowest = a.map.base
    beyond = a.map.base + a.map.n
    a.kind = ARENA_SECRETMEM if a.map.secretmem else ARENA_MLOCK
    arena = a
    return 0


# Blocks

cdef inline uint64_t seal_of(Block* block) noexcept nogil:
    cdef uint64_t size = <uint64_t>block.size << 32 | block.size_class
    # an odd factor spreads the few bits of a size over the word
    return arena.secret ^ <uint64_t><uintptr_t>block ^ size * <uint64_t>0x9E3779B97F4A7C15


cdef inline void* contents(Block* block) noexcept nogil:
    return <uint8_t*>block + sizeof(Block)


cdef inline Block** link_of(Block* block) noexcept nogil:
    return <Block**>contents(block)


cdef inline void* hand_out(Block* block, size_t n, uint32_t size_class) noexcept nogil:
    block.size = <uint32_t>n
    block.size_class = size_class
    block.check = seal_of(block)
    return contents(block)


cdef inline Block* block_of(void* p) noexcept nogil:
    cdef Block* block = <Block*>(<uint8_t*>p - sizeof(Block))
    cdef uint8_t* heap = arena.map.first
    if <uint8_t*>block < heap or <uint8_t*>p >= heap + arena.map.first_bytes or (<uintptr_t>p & 15) != 0:
        die(b"keyside: secret arena: a pointer that was not allocated here\n")
    if block.check != seal_of(block):
        die(b"keyside: secret arena: a block was freed twice or its header overwritten\n")
    return block


cdef inline uint32_t page_of(void* p) noexcept nogil:
    return <uint32_t>((<uint8_t*>p - arena.map.first) // HEAP_PAGE)


cdef inline uint8_t* page_address(uint32_t page) noexcept nogil:
    return arena.map.first + <size_t>page * HEAP_PAGE


# Slabs; the caller holds the lock

cdef bint add_slab(uint32_t size_class) noexcept nogil:
    cdef uint32_t bytes = arena.block_bytes[size_class]
    cdef uint32_t count = 1 if bytes <= 256 else 2 if bytes <= 1024 else 4
    cdef uint32_t first = pages_take(arena.pages, &arena.free_runs, count, PAGE_SLAB)
    cdef uint32_t offset
    cdef Page* slab
    cdef Block* block
    if first == NO_PAGE:
        return False
    slab = &arena.pages[first]
    slab.size_class = <uint8_t>size_class
    slab.live = 0
    slab.blocks = NULL
    offset = count * HEAP_PAGE // bytes * bytes
    while offset != 0:
        offset -= bytes
        block = <Block*>(page_address(first) + offset)
        link_of(block)[0] = <Block*>slab.blocks
        slab.blocks = block
    list_push(arena.pages, &arena.roomy[size_class], first)
    return True


cdef Block* slab_take(uint32_t size_class) noexcept nogil:
    cdef uint32_t first = arena.roomy[size_class]
    cdef Page* slab
    cdef Block* block
    if first == NO_PAGE:
        if not add_slab(size_class):
            return NULL
        first = arena.roomy[size_class]
    slab = &arena.pages[first]
    block = <Block*>slab.blocks
    slab.blocks = link_of(block)[0]
    slab.live += 1
    if slab.blocks == NULL:
        list_remove(arena.pages, &arena.roomy[size_class], first)
    return block


cdef void slab_give(Block* block, uint32_t size_class) noexcept nogil:
    cdef uint32_t first = arena.pages[page_of(block)].first
    cdef Page* slab = &arena.pages[first]
    if slab.blocks == NULL:
        list_push(arena.pages, &arena.roomy[size_class], first)
    link_of(block)[0] = <Block*>slab.blocks
    slab.blocks = block
    slab.live -= 1
    if slab.live == 0:
        list_remove(arena.pages, &arena.roomy[size_class], first)
        memset(page_address(first), 0, <size_t>slab.count * HEAP_PAGE)
        pages_give(arena.pages, arena.total, &arena.free_runs, first)


# Thread caches

cdef inline uint32_t cache_limit(uint32_t size_class) noexcept nogil:
    # at most 4 KiB of each class wait in a thread, and never fewer than two blocks
    return max(<uint32_t>2, min(<uint32_t>32, 4096 // <uint32_t>arena.block_bytes[size_class]))


cdef ThreadCache* thread_cache() noexcept nogil:
    cdef ThreadCache* cache = <ThreadCache*>pthread_getspecific(arena.cache_key)
    if cache == NULL:
        cache = <ThreadCache*>calloc(1, sizeof(ThreadCache))
        if cache != NULL and pthread_setspecific(arena.cache_key, cache) != 0:
            free(cache)
            cache = NULL
    return cache


cdef void cache_flush(ThreadCache* cache, uint32_t size_class, uint32_t keep) noexcept nogil:
    cdef Block* block
    pthread_mutex_lock(&arena.lock)
    while cache.count[size_class] > keep:
        block = cache.blocks[size_class]
        cache.blocks[size_class] = link_of(block)[0]
        cache.count[size_class] -= 1
        slab_give(block, size_class)
    pthread_mutex_unlock(&arena.lock)


cdef void cache_flush_all(ThreadCache* cache) noexcept nogil:
    cdef uint32_t size_class
    for size_class in range(<uint32_t>CLASSES):
        if cache.count[size_class] != 0:
            cache_flush(cache, size_class, 0)


cdef void drop_cache(void* value) noexcept nogil:
    # in a child process the cache lists blocks that are not mapped there
    if arena_usable():
        cache_flush_all(<ThreadCache*>value)
    free(value)


cdef void arena_thread_exit() noexcept nogil:
    cdef void* cache
    if not arena_usable():
        return
    cache = pthread_getspecific(arena.cache_key)
    if cache != NULL:
        pthread_setspecific(arena.cache_key, NULL)
        drop_cache(cache)


cdef bint cache_fill(ThreadCache* cache, uint32_t size_class) noexcept nogil:
    cdef uint32_t wanted = cache_limit(size_class) // 2
    cdef Block* block
    pthread_mutex_lock(&arena.lock)
    while cache.count[size_class] < wanted:
        block = slab_take(size_class)
        if block == NULL:
            break
        link_of(block)[0] = cache.blocks[size_class]
        cache.blocks[size_class] = block
        cache.count[size_class] += 1
    pthread_mutex_unlock(&arena.lock)
    return cache.count[size_class] != 0


# The allocator's face

cdef void* small_malloc(ThreadCache* cache, size_t n) noexcept nogil:
    cdef uint32_t size_class = arena.class_of[(n + sizeof(Block) + 15) >> 4]
    cdef Block* block
    if cache.blocks[size_class] == NULL and not cache_fill(cache, size_class):
        return NULL
    block = cache.blocks[size_class]
    cache.blocks[size_class] = link_of(block)[0]
    cache.count[size_class] -= 1
    link_of(block)[0] = NULL
    return hand_out(block, n, size_class)


cdef void* large_malloc(size_t n) noexcept nogil:
    cdef uint32_t first
    if n > HEAP_MAX:
        return NULL
    pthread_mutex_lock(&arena.lock)
    first = pages_take(
        arena.pages, &arena.free_runs, <uint32_t>((n + sizeof(Block) + HEAP_PAGE - 1) // HEAP_PAGE), PAGE_LARGE
    )
    pthread_mutex_unlock(&arena.lock)
    return NULL if first == NO_PAGE else hand_out(<Block*>page_address(first), n, LARGE)


cdef void* arena_malloc(size_t n) noexcept nogil:
    cdef ThreadCache* cache
    cdef void* p
    if not arena_usable():
        return NULL
    cache = thread_cache()
    if cache == NULL:
        return NULL
    p = small_malloc(cache, n) if n <= SMALL_MAX else large_malloc(n)
    if p == NULL:
        # pages may be free but for blocks that wait in this thread
        cache_flush_all(cache)
        p = small_malloc(cache, n) if n <= SMALL_MAX else large_malloc(n)
    return p


cdef void large_free(Block* block) noexcept nogil:
    secret_wipe(block, sizeof(Block) + block.size)
    pthread_mutex_lock(&arena.lock)
    pages_give(arena.pages, arena.total, &arena.free_runs, page_of(block))
    pthread_mutex_unlock(&arena.lock)


cdef void arena_free(void* p) noexcept nogil:
    cdef Block* block
    cdef ThreadCache* cache
    cdef uint32_t size_class
    if p == NULL or not arena_usable():
        return
    block = block_of(p)
    size_class = block.size_class
    if size_class == LARGE:
        large_free(block)
        return
    secret_wipe(p, block.size)
    block.check = 0
    cache = thread_cache()
    if cache == NULL:
        pthread_mutex_lock(&arena.lock)
        slab_give(block, size_class)
        pthread_mutex_unlock(&arena.lock)
        return
    link_of(block)[0] = cache.blocks[size_class]
    cache.blocks[size_class] = block
    cache.count[size_class] += 1
    if cache.count[size_class] > cache_limit(size_class):
        cache_flush(cache, size_class, cache_limit(size_class) // 2)


cdef void* arena_realloc(void* p, size_t n) noexcept nogil:
    cdef size_t old
    cdef void* moved
    if p == NULL:
        return arena_malloc(n)
    if not arena_usable():
        return NULL
    old = block_of(p).size
    moved = arena_malloc(n)
    if moved != NULL:
        memcpy(moved, p, min(n, old))
        arena_free(p)
    return moved
