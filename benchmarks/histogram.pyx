"""The histogram as Python sees it; the native load generator writes `counts` directly."""

from libc.string cimport memset


cdef uint64_t top_of(int slot) noexcept nogil:
    """The largest duration, in nanoseconds, that is counted in a slot."""
    if slot < 2 * SUB_SLOTS:
        return slot
    cdef int shift = slot // SUB_SLOTS - 1
    cdef uint64_t first = <uint64_t>(SUB_SLOTS + slot % SUB_SLOTS) << shift
    return first + (<uint64_t>1 << shift) - 1


cdef class Histogram:
    def __cinit__(self):
        memset(&self.counts, 0, sizeof(Counts))

    def __len__(self):
        return self.counts.total

    def record(self, uint64_t nanoseconds):
        count(&self.counts, nanoseconds)

    def merge(self, Histogram other):
        cdef int slot
        for slot in range(SLOTS):
            self.counts.slots[slot] += other.counts.slots[slot]
        self.counts.total += other.counts.total
        self.counts.largest = max(self.counts.largest, other.counts.largest)

    @property
    def largest(self):
        return self.counts.largest

    def percentile(self, double percent):
        if not 0 < percent <= 100:
            raise ValueError("a percentile is above 0 and at most 100")
        if not self.counts.total:
            raise ValueError("nothing was measured, so there is no percentile: look at the errors of the run")
        cdef double exact = self.counts.total * percent / 100
        cdef uint64_t rank = <uint64_t>exact
        # the nearest-rank definition rounds up; a hair of tolerance keeps 99.9 % of 1000 at rank 999
        if exact - rank > 1e-9 * exact:
            rank += 1
        cdef uint64_t reached = 0
        cdef int slot
        for slot in range(SLOTS - 1):
            reached += self.counts.slots[slot]
            if reached >= rank:
                return min(top_of(slot), self.counts.largest)
        return self.counts.largest
