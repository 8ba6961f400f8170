from libc.stdint cimport uint32_t, uint64_t

from fastpath.plane cimport Connection, Worker
from fastpath.shares cimport Peer

cdef Connection* connection_open(Worker* w, int fd, Peer* peer, bint undecided) noexcept nogil
cdef void connection_ready(Worker* w, Connection* c, uint32_t events) noexcept nogil
cdef void connection_flush(Worker* w, Connection* c) noexcept nogil
cdef void connection_close(Worker* w, Connection* c) noexcept nogil
cdef void connections_reap(Worker* w) noexcept nogil
cdef void connections_sweep(Worker* w) noexcept nogil
cdef void record_latency(uint64_t* histogram, uint64_t ns, uint64_t count) noexcept nogil
