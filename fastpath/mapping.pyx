"""Secret pages between guard pages: address space reserved once, memory that only this process can read put into it.

memfd_secret(2) pages are taken out of the kernel's direct map: neither /proc/PID/mem nor another process's ptrace reads
them. They are charged to RLIMIT_MEMLOCK as a whole when they are mapped, and filled one by one when they are touched.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from fastpath.linux cimport (
    ENOSYS,
    EPERM,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_WIPEONFORK,
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MLOCK_ONFAULT,
    O_CLOEXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    SYS_MEMFD_SECRET,
    _SC_PAGESIZE,
    close,
    errno,
    ftruncate,
    madvise,
    mlock2,
    mmap,
    munmap,
    syscall,
    sysconf,
)


cdef size_t page_bytes() noexcept nogil:
    return <size_t>sysconf(_SC_PAGESIZE)


cdef size_t whole_pages(size_t n) noexcept nogil:
    return (n + page_bytes() - 1) & ~(page_bytes() - 1)


cdef int map_secretmem(void* at, size_t n) noexcept nogil:
    # the kernel takes O_CLOEXEC here; memfd_secret(2) calls the flag FD_CLOEXEC, whose value it refuses
    cdef int failure = 0
    cdef int fd = <int>syscall(<long>SYS_MEMFD_SECRET, <unsigned int>O_CLOEXEC)
    if fd < 0:
        return -errno
    if ftruncate(fd, <long>n) != 0 or mmap(at, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED:
        failure = -errno
    close(fd)
    return failure


cdef int map_locked(void* at, size_t n) noexcept nogil:
    cdef int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    if mmap(at, n, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED:
        return -errno
    if mlock2(at, n, MLOCK_ONFAULT) != 0:
        return -errno
    # after MADV_DONTFORK a child has no such pages; should a kernel ever copy them, they read as zeros
    if madvise(at, n, MADV_WIPEONFORK) != 0:
        return -errno
    return 0


cdef int map_region(void* at, size_t n, bint secretmem) noexcept nogil:
    cdef int failure = map_secretmem(at, n) if secretmem else map_locked(at, n)
    if failure != 0:
        return failure
    if madvise(at, n, MADV_DONTFORK) != 0 or madvise(at, n, MADV_DONTDUMP) != 0:
        return -errno
    return 0


cdef int map_regions(Reservation* into) noexcept nogil:
    cdef int failure = map_region(into.first, into.first_bytes, into.secretmem)
    if failure == 0:
        failure = map_region(into.second, into.second_bytes, into.secretmem)
    return failure


cdef int reserve(Reservation* into, size_t first_bytes, size_t second_bytes, bint secretmem) noexcept nogil:
    cdef size_t guard = page_bytes()
    cdef int failure
    cdef void* base
    into.first_bytes = whole_pages(first_bytes)
    into.second_bytes = whole_pages(second_bytes)
    into.n = into.first_bytes + into.second_bytes + 3 * guard
    base = mmap(NULL, into.n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        into.base = NULL
        return -errno
    into.base = <uint8_t*>base
    into.first = into.base + guard
    into.second = into.first + into.first_bytes + guard
    into.secretmem = secretmem
    failure = map_regions(into)
    if secretmem and (failure == -ENOSYS or failure == -EPERM):
        # no such call, switched off at boot (secretmem.enable=0), or a seccomp filter in front of it
        into.secretmem = False
        failure = map_regions(into)
    if failure != 0:
        release(into)
    return failure


cdef void release(Reservation* reservation) noexcept nogil:
    if reservation.base != NULL:
        munmap(reservation.base, reservation.n)
    memset(reservation, 0, sizeof(Reservation))


cdef void* map_unshared(size_t n) noexcept nogil:
    cdef void* p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if p == MAP_FAILED:
        return NULL
    if madvise(p, n, MADV_WIPEONFORK) != 0:
        munmap(p, n)
        return NULL
    return p


cdef void unmap(void* p, size_t n) noexcept nogil:
    munmap(p, n)
