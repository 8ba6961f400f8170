"""The Linux and POSIX calls behind the secret arena and process hardening; declarations only."""

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EINVAL
        ENOMEM
        ENOSYS
        EPERM

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    int ftruncate(int fd, long length)
    int close(int fd)
    ssize_t write(int fd, const void* data, size_t n)
    long sysconf(int name)
    enum:
        _SC_PAGESIZE
        STDERR_FILENO

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* out, size_t n, unsigned int flags)

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t n, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t n)
    int madvise(void* address, size_t n, int advice)
    int mlock2(const void* address, size_t n, unsigned int flags)
    void* MAP_FAILED
    enum:
        MAP_ANONYMOUS
        MAP_FIXED
        MAP_NORESERVE
        MAP_PRIVATE
        MAP_SHARED
        MADV_DONTDUMP
        MADV_DONTFORK
        MADV_WIPEONFORK
        MLOCK_ONFAULT
        PROT_NONE
        PROT_READ
        PROT_WRITE

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, ...)
    enum:
        PR_SET_DUMPABLE
        PR_SET_NO_NEW_PRIVS

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void* p, size_t n)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef unsigned int pthread_key_t
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_key_create(pthread_key_t* key, void (*destructor)(void*) noexcept nogil)
    int pthread_key_delete(pthread_key_t key)
    void* pthread_getspecific(pthread_key_t key)
    int pthread_setspecific(pthread_key_t key, const void* value)
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil,
                       void (*child)() noexcept nogil)

cdef extern from "<limits.h>" nogil:
    enum:
        PTHREAD_KEYS_MAX

cdef enum:
    SYS_MEMFD_SECRET = 447  # the same on every architecture; C libraries older than the call do not name it
