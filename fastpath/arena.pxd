"""The secret arena: the only memory that ever holds a data key or an expanded key schedule.

Layout, one reservation, low to high: guard page | heap (OpenSSL's allocations) | guard page | key slots | guard page.
Heap and key slots are memfd_secret(2) pages, or locked anonymous pages where the kernel has none. A child process
never sees them (MADV_DONTFORK), a core dump never holds them (MADV_DONTDUMP).
"""

from libc.stdint cimport uint8_t

cdef enum ArenaKind:
    ARENA_CLOSED = 0
    ARENA_SECRETMEM = 1   # memfd_secret: not readable even through /proc/PID/mem
    ARENA_MLOCK = 2       # locked anonymous memory

# secretmem False: locked anonymous pages even where the kernel has memfd_secret. 0, or a negative errno
cdef int arena_open(size_t heap_bytes, size_t key_bytes, bint secretmem) noexcept nogil
cdef void* arena_malloc(size_t n) noexcept nogil             # 16-byte aligned, zeroed; NULL when full
cdef void* arena_realloc(void* p, size_t n) noexcept nogil   # NULL when full: p stays as it was
cdef void arena_free(void* p) noexcept nogil                 # wipes first
cdef void arena_thread_exit() noexcept nogil                 # gives this thread's free lists back; its end does so too
cdef uint8_t* arena_keys() noexcept nogil                    # base of the key slots, 64-byte aligned
cdef size_t arena_key_bytes() noexcept nogil
cdef ArenaKind arena_kind() noexcept nogil                   # ARENA_CLOSED in a forked child
cdef bint arena_usable() noexcept nogil                      # False before open and in a forked child
cdef void secret_wipe(void* p, size_t n) noexcept nogil      # memset that no compiler removes
