"""Queues between threads for what is rare: a mutex, a list, an eventfd. The hot path never comes here."""

from libc.string cimport memset

from fastpath.atomics cimport store_relaxed_u32
from fastpath.plane cimport Mailbox
from fastpath.sockets cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, close, errno, eventfd, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, ring, silence,
)


cdef int mailbox_open(Mailbox* box) noexcept nogil:
    """0, or a negative errno."""
    memset(box, 0, sizeof(Mailbox))
    box.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if box.event_fd < 0:
        return -errno
    pthread_mutex_init(&box.lock, NULL)
    return 0


cdef void mailbox_close(Mailbox* box) noexcept nogil:
    """The queue must be empty: what is in it has an owner of its own kind."""
    close(box.event_fd)
    box.event_fd = -1
    pthread_mutex_destroy(&box.lock)


cdef void mailbox_put(Mailbox* box, void* node) noexcept nogil:
    cdef bint first
    (<void**>node)[0] = NULL
    pthread_mutex_lock(&box.lock)
    first = box.head == NULL
    if first:
        box.head = node
    else:
        (<void**>box.tail)[0] = node
    box.tail = node
    store_relaxed_u32(&box.count, box.count + 1)
    pthread_mutex_unlock(&box.lock)
    if first:
        ring(box.event_fd)


cdef void* mailbox_take_all(Mailbox* box) noexcept nogil:
    # cleared before the queue is emptied: a put in between wakes once too often, never once too little
    silence(box.event_fd)
    pthread_mutex_lock(&box.lock)
    cdef void* head = box.head
    box.head = box.tail = NULL
    store_relaxed_u32(&box.count, 0)
    pthread_mutex_unlock(&box.lock)
    return head


cdef void* mailbox_take(Mailbox* box) noexcept nogil:
    pthread_mutex_lock(&box.lock)
    cdef void* head = box.head
    if head != NULL:
        box.head = (<void**>head)[0]
        if box.head == NULL:
            box.tail = NULL
        store_relaxed_u32(&box.count, box.count - 1)
    pthread_mutex_unlock(&box.lock)
    return head
