from libc.stdint cimport uint32_t

from fastpath.plane cimport Worker

cdef enum:
    HEAD_BYTES = 16      # length, array head, id, status, array head at their longest

cdef bint reserve(Worker* w, size_t n) noexcept nogil
cdef void rewind(Worker* w, size_t n) noexcept nogil              # wipe what was appended after n
cdef void finish_frame(Worker* w, size_t start) noexcept nogil    # write the length of the frame that began at start
cdef bint reply_error(Worker* w, uint32_t request_id, int code) noexcept nogil
cdef bint reply_hello(Worker* w, uint32_t request_id) noexcept nogil
