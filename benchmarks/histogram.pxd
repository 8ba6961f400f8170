"""Log-linear counts of durations: 128 slots a power of two, so a percentile is off by less than 1/128 of itself."""

from libc.stdint cimport uint64_t

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long) noexcept nogil

cdef enum:
    SUB_BITS = 7
    SUB_SLOTS = 128            # 1 << SUB_BITS
    TOP_SHIFT = 33             # durations of 2^41 ns (37 minutes) and more share the last slot
    SLOTS = 4480               # (TOP_SHIFT + 2) * SUB_SLOTS

cdef struct Counts:
    # Written by one thread. `slots` sums up to `total`.
    uint64_t total
    uint64_t largest           # exact, in nanoseconds
    uint64_t slots[SLOTS]

cdef inline int slot_of(uint64_t ns) noexcept nogil:
    if ns < SUB_SLOTS:
        return <int>ns
    cdef int shift = 63 - leading_zeros(ns) - SUB_BITS
    if shift > TOP_SHIFT:
        return SLOTS - 1
    return shift * SUB_SLOTS + <int>(ns >> shift)

cdef inline void count(Counts* counts, uint64_t ns) noexcept nogil:
    counts.slots[slot_of(ns)] += 1
    counts.total += 1
    if ns > counts.largest:
        counts.largest = ns

cdef class Histogram:
    cdef Counts counts
