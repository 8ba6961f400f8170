"""Raw Linux declarations of the data plane: sockets, epoll, eventfd, threads. Declarations only."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from posix.types cimport gid_t, mode_t, pid_t, uid_t

cdef extern from "<errno.h>" nogil:
    int errno
    enum: EAGAIN, EINTR, EMFILE, ENFILE, ECONNABORTED, ENOMEM, EINVAL, ENOSPC, ETIMEDOUT

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_attr_t:
        pass
    ctypedef unsigned long pthread_t
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_create(pthread_t*, pthread_attr_t*, void* (*start)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_setname_np(pthread_t, const char*)

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/timerfd.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>

    static inline uint64_t ks_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline void ks_pause_us(unsigned us) {
        struct timespec t = {0, us * 1000L};
        nanosleep(&t, NULL);
    }
    static inline int ks_pin(int cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    /* signals belong to the control plane's main thread */
    static inline void ks_block_signals(void) {
        sigset_t all;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        sigdelset(&all, SIGFPE);
        sigdelset(&all, SIGILL);
        sigdelset(&all, SIGABRT);
        pthread_sigmask(SIG_BLOCK, &all, NULL);
    }
    static inline int ks_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
    static inline int ks_peer(int fd, uint32_t *uid, uint32_t *gid, int *pid) {
        struct ucred c;
        socklen_t n = sizeof c;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) || n != sizeof c) return -1;
        *uid = c.uid; *gid = c.gid; *pid = c.pid;
        return 0;
    }
    #ifndef SO_PEERGROUPS
    #define SO_PEERGROUPS 59
    #endif
    /* supplementary groups of the peer when it connected; -1 with errno, else their number (up to max) */
    static inline int ks_peer_groups(int fd, uint32_t *groups, int max) {
        socklen_t n = (socklen_t)(max * sizeof(uint32_t));
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n)) return -1;
        return (int)(n / sizeof(uint32_t));
    }
    static inline int ks_epoll_set(int ep, int what, int fd, uint32_t events, void *ptr) {
        struct epoll_event e;
        e.events = events;
        e.data.ptr = ptr;
        return epoll_ctl(ep, what, fd, &e);
    }
    static inline int ks_nonblocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    /* readable once a second, for the whole life of the descriptor */
    static inline int ks_ticker(void) {
        struct itimerspec each = {{1, 0}, {1, 0}};
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (fd >= 0 && timerfd_settime(fd, 0, &each, NULL)) {
            close(fd);
            return -1;
        }
        return fd;
    }
    /* an eventfd: one more; a full counter is awake already */
    static inline void ks_ring(int fd) {
        uint64_t one = 1;
        ssize_t n = write(fd, &one, sizeof one);
        (void)n;
    }
    /* an eventfd or timerfd: back to nothing; it may be there already */
    static inline void ks_silence(int fd) {
        uint64_t seen;
        ssize_t n = read(fd, &seen, sizeof seen);
        (void)n;
    }
    static inline int ks_spare_fd(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
    """
    uint64_t now_ns "ks_now"()
    void pause_us "ks_pause_us"(unsigned us)
    int pin_thread "ks_pin"(int cpu)
    void block_signals "ks_block_signals"()
    int accept_connection "ks_accept"(int fd)
    int peer_identity "ks_peer"(int fd, uint32_t* uid, uint32_t* gid, int* pid)
    int peer_groups "ks_peer_groups"(int fd, uint32_t* groups, int most)
    int epoll_set "ks_epoll_set"(int ep, int what, int fd, uint32_t events, void* ptr)
    int set_nonblocking "ks_nonblocking"(int fd)
    int ticker_fd "ks_ticker"()
    void ring "ks_ring"(int fd)
    void silence "ks_silence"(int fd)
    int spare_fd "ks_spare_fd"()

    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLEXCLUSIVE
    enum: EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    enum: EFD_CLOEXEC, EFD_NONBLOCK
    enum: MSG_PEEK, MSG_DONTWAIT, MSG_NOSIGNAL
    ctypedef union epoll_data_t:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_wait(int ep, epoll_event* events, int most, int timeout)
    int eventfd(unsigned initial, int flags)
    ssize_t recv(int fd, void* p, size_t n, int flags)
    ssize_t send(int fd, const void* p, size_t n, int flags)
    ssize_t read(int fd, void* p, size_t n)
    ssize_t write(int fd, const void* p, size_t n)
    int close(int fd)
