from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath.frame cimport Request
from fastpath.plane cimport Connection, Miss, Parked, Worker

# Bytes that a waiting request takes: a frame of n bytes, and an outcome for each of so many items.
cdef size_t parked_size(size_t n, uint32_t outcomes) noexcept nogil
cdef Parked* park_begin(Worker* w, Connection* c, const uint8_t* frame, size_t n, uint32_t outcomes) noexcept nogil
cdef int park_on(Worker* w, Parked* parked, uint8_t kind, uint64_t key_id, const uint8_t* name, uint32_t name_len,
                 uint64_t wanted) noexcept nogil
# Tell the control plane what park_on asked for. Not at once: an answer in the middle of a batch may push the refusal of
# its next item out of the cache, and that one's the next, all the way round and round again.
cdef void park_ask(Worker* w) noexcept nogil
cdef void park_end(Worker* w, Parked* parked) noexcept nogil
cdef Parked* park_complete(Worker* w, uint64_t token) noexcept nogil
cdef void park_free_all(Worker* w) noexcept nogil
