from libc.stdint cimport uint32_t

from fastpath.plane cimport Mailbox

cdef int mailbox_open(Mailbox* box) noexcept nogil
cdef void mailbox_close(Mailbox* box) noexcept nogil
cdef void mailbox_put(Mailbox* box, void* node) noexcept nogil     # node's first member is its `next`
cdef void* mailbox_take_all(Mailbox* box) noexcept nogil           # the list, oldest first; clears the eventfd
cdef void* mailbox_take(Mailbox* box) noexcept nogil               # the oldest, or NULL; leaves the eventfd alone
