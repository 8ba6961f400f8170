"""Secret pages between guard pages: address space reserved once, memory that only this process can read put into it."""

from libc.stdint cimport uint8_t

cdef struct Reservation:
    # Written by reserve() and release(), both in the thread that opens the arena; constant in between.
    uint8_t* base      # NULL: nothing is reserved
    size_t n           # bytes, guards included
    uint8_t* first     # first region, a guard page in front of it
    size_t first_bytes
    uint8_t* second    # second region, guard pages on both sides
    size_t second_bytes
    bint secretmem     # memfd_secret(2); otherwise locked anonymous memory

# Sizes are rounded up to pages. 0, or a negative errno; then nothing stays mapped.
cdef int reserve(Reservation* into, size_t first_bytes, size_t second_bytes, bint secretmem) noexcept nogil
cdef void release(Reservation* reservation) noexcept nogil
cdef size_t page_bytes() noexcept nogil
# Ordinary zeroed memory that reads as zeros in a child process (MADV_WIPEONFORK); NULL when there is none.
cdef void* map_unshared(size_t n) noexcept nogil
cdef void unmap(void* p, size_t n) noexcept nogil
