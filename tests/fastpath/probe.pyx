# cython: language_level=3
"""The native modules' C functions as tests see them: churn in the allocator, single blocks, AEAD calls on raw buffers.

Addresses are plain integers; tests read them with ctypes.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpath.aead cimport (
    EVP_CIPHER_CTX,
    NONCE_BYTES,
    NoncePool,
    aead_free,
    aead_new,
    aead_open,
    aead_rekey,
    aead_seal,
    blind_index,
    crypto_init,
    mac_free,
    mac_new,
    mac_rekey,
    nonce_next,
    nonce_pool_init,
    random_bytes,
)
from fastpath.arena cimport (
    arena_free,
    arena_key_bytes,
    arena_keys,
    arena_malloc,
    arena_open,
    arena_realloc,
    arena_thread_exit,
    arena_usable,
)

cdef struct Held:
    uint8_t* at
    size_t n
    uint8_t fill


cdef uint32_t draw(uint64_t* state) noexcept nogil:
    state[0] = state[0] * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
    return <uint32_t>(state[0] >> 33)


cdef size_t draw_size(uint64_t* state) noexcept nogil:
    # mostly small, some around the largest size class, some of several pages
    cdef uint32_t kind = draw(state) % 16
    if kind < 12:
        return 1 + draw(state) % 600
    if kind < 15:
        return 1900 + draw(state) % 300
    return 1 + draw(state) % 20000


cdef bint all_are(const uint8_t* at, size_t start, size_t end, uint8_t value) noexcept nogil:
    cdef size_t i
    for i in range(start, end):
        if at[i] != value:
            return False
    return True


cdef int step(Held* held, uint64_t* state) noexcept nogil:
    """One allocation, move or release; the number of broken promises."""
    cdef size_t n
    cdef uint8_t* moved
    if held.at == NULL:
        held.n = draw_size(state)
        held.at = <uint8_t*>arena_malloc(held.n)
        if held.at == NULL:
            return 0
        if not all_are(held.at, 0, held.n, 0) or (<uintptr_t>held.at & 15) != 0:
            return 1
        held.fill = <uint8_t>(1 + draw(state) % 255)
        memset(held.at, held.fill, held.n)
        return 0
    if not all_are(held.at, 0, held.n, held.fill):
        return 1
    if draw(state) % 4 != 0:
        arena_free(held.at)
        held.at = NULL
        return 0
    n = draw_size(state)
    moved = <uint8_t*>arena_realloc(held.at, n)
    if moved == NULL:
        return 0
    held.at = moved
    if not all_are(moved, 0, min(n, held.n), held.fill) or (n > held.n and not all_are(moved, held.n, n, 0)):
        return 1
    held.n = n
    memset(moved, held.fill, n)
    return 0


def churn(uint64_t seed, uint32_t steps, uint32_t slots):
    """Random allocations in the calling thread, without the GIL; how many promises were broken."""
    cdef Held* table = <Held*>calloc(slots, sizeof(Held))
    cdef int broken = 0
    cdef uint32_t i, _
    with nogil:
        for _ in range(steps):
            broken += step(&table[draw(&seed) % slots], &seed)
        for i in range(slots):
            arena_free(table[i].at)
    free(table)
    return broken


def malloc(size_t n):
    return <uintptr_t>arena_malloc(n)


def release(uintptr_t p):
    arena_free(<void*>p)


def realloc(uintptr_t p, size_t n):
    return <uintptr_t>arena_realloc(<void*>p, n)


def thread_exit():
    arena_thread_exit()


def usable():
    return bool(arena_usable())


def keys():
    return <uintptr_t>arena_keys(), arena_key_bytes()


def open_bare(size_t heap_bytes, size_t key_bytes):
    """The arena without its Python face; 0 or a negative errno."""
    return arena_open(heap_bytes, key_bytes, True)


def start_crypto():
    return <int>crypto_init()


def nonces(size_t count):
    cdef NoncePool pool
    cdef uint8_t out[NONCE_BYTES]
    nonce_pool_init(&pool)
    drawn = []
    for _ in range(count):
        if nonce_next(&pool, out) != 0:
            raise MemoryError
        drawn.append((<char*>out)[:NONCE_BYTES])
    return drawn


def random(size_t n, bytearray into not None):
    return random_bytes(into, n)


cdef class Cipher:
    cdef EVP_CIPHER_CTX* ctx

    def __cinit__(self):
        self.ctx = aead_new()

    def __dealloc__(self):
        aead_free(self.ctx)

    def rekey(self, bytes key not None):
        return aead_rekey(self.ctx, key, True)

    def seal(self, bytes nonce not None, bytes aad not None, bytes plain not None):
        out = bytearray(len(plain))
        tag = bytearray(16)
        failure = aead_seal(self.ctx, nonce, aad, len(aad), plain, len(plain), out, tag)
        return failure, bytes(out), bytes(tag)

    def open(self, bytes nonce not None, bytes aad not None, bytes sealed not None, bytes tag not None):
        out = bytearray(b"\xaa") * len(sealed)
        failure = aead_open(self.ctx, nonce, aad, len(aad), sealed, len(sealed), tag, out)
        return failure, bytes(out)

    def lengths(self, size_t aad_len, size_t n):
        """What seal and open answer to these lengths; the buffers are one byte, so only refusals are safe."""
        cdef uint8_t byte[32]
        return (
            aead_seal(self.ctx, byte, byte, aad_len, byte, n, byte, byte),
            aead_open(self.ctx, byte, byte, aad_len, byte, n, byte, byte),
        )


def indexes(bytes key not None, list pairs not None):
    """Blind indexes of (context, value) pairs through one context, keyed once."""
    ctx = mac_new()
    cdef uint8_t out[32]
    found = []
    if ctx == NULL or mac_rekey(ctx, key) != 0:
        raise MemoryError
    for context, value in pairs:
        if blind_index(ctx, context, len(context), value, len(value), out) != 0:
            raise MemoryError
        found.append((<char*>out)[:32])
    mac_free(ctx)
    return found
