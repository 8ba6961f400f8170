from libc.stdint cimport uint8_t, uint32_t

from fastpath.plane cimport Connection, Parked, Worker

cdef enum Served:
    SERVED = 0          # a response was appended to w.out
    WAITING = 1         # parked
    CLOSING = 2         # a response was appended; nothing more may be read from this connection
    NO_MEMORY = 3       # nothing was appended; the connection must be closed

cdef int serve_frame(Worker* w, Connection* c, const uint8_t* frame, size_t n) noexcept nogil
cdef int serve_parked(Worker* w, Parked* parked) noexcept nogil
cdef uint32_t request_id_of(const uint8_t* frame, size_t n) noexcept nogil
