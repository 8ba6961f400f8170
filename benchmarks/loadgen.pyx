"""Closed and open loops over connections; what they are is said in loadgen.pyi."""

from typing import NamedTuple

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.time cimport timespec

from benchmarks.connection cimport (
    CLOSED, FAILURES, KEYSIDE, LIMIT, MALFORMED, MISMATCH, REFUSED, TIMEOUT, Connection,
    Exchange as NativeExchange, Tally, abandon, clock_ns, close_connection, flush, issue, open_connection, receive,
)
from benchmarks.histogram cimport Histogram, count


cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_MOD
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_pwait2(int, epoll_event*, int, const timespec*, const void*)

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    enum: POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    enum: SOL_SOCKET
    enum: SO_RCVTIMEO
    int setsockopt(int, int, int, const void*, unsigned int)

cdef extern from "<sys/time.h>" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

cdef extern from "<sys/prctl.h>" nogil:
    enum: PR_SET_TIMERSLACK
    enum: PR_GET_TIMERSLACK
    int prctl(int, unsigned long)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef enum:
    EVENTS = 64
    NS = 1000000000

ID_SPACE = 4_000_000_000  # requests of one connection: their ids must stay within 32 bits
FAILURE_NAMES = {CLOSED: "closed", MALFORMED: "malformed", MISMATCH: "mismatch", TIMEOUT: "timeout", REFUSED: "refused"}


class Exchange(NamedTuple):
    request: bytes
    items: int
    item_bytes: int
    reply: bytes = b""


class Run(NamedTuple):
    good: int
    items: int
    seconds: float
    latency: Histogram
    lateness: Histogram
    errors: dict
    finished: list
    samples: list

    @property
    def rate(self):
        return self.items / self.seconds if self.seconds else 0.0

    @property
    def failed(self):
        return sum(self.errors.values())


cdef struct Plan:
    uint64_t rounds            # closed: of each connection; open: requests of the whole run
    uint64_t start_ns
    uint64_t end_ns            # no round begins from here on; 0: no such end
    uint64_t patience_ns
    uint64_t interval_ns       # open: between two requests of the run


cdef class Load:
    """Owns what a run needs in C, and turns it into a Run."""

    cdef Tally tally
    cdef Plan plan
    cdef Connection* links
    cdef uint32_t number
    cdef NativeExchange* natives
    cdef Histogram latency
    cdef Histogram lateness
    cdef list kept             # the bytes objects that `natives` points into

    def __cinit__(self, exchanges, str framing, int connections, int window):
        if framing not in ("keyside", "limit"):
            raise ValueError("framing is 'keyside' or 'limit'")
        if not exchanges or connections < 1 or window < 1:
            raise ValueError("a run needs an exchange, a connection and a depth of at least one")
        self.tally.framing = KEYSIDE if framing == "keyside" else LIMIT
        self.tally.next_sample = 1
        self.latency = Histogram()
        self.lateness = Histogram()
        self.tally.latency = &self.latency.counts
        self.kept = list(exchanges)
        self.natives = <NativeExchange*>calloc(len(self.kept), sizeof(NativeExchange))
        self.links = <Connection*>calloc(connections, sizeof(Connection))
        if self.natives == NULL or self.links == NULL:
            raise MemoryError
        self.tally.exchanges = self.natives
        self.tally.exchange_count = len(self.kept)
        for index, exchange in enumerate(self.kept):
            self._take(index, exchange)

    def _take(self, uint32_t index, exchange):
        cdef bytes request = exchange.request
        cdef bytes reply = exchange.reply
        cdef NativeExchange* native = &self.natives[index]
        if len(request) < 10:
            raise ValueError("a request is a whole frame")
        if reply and len(reply) != exchange.items * exchange.item_bytes:
            raise ValueError("an expected reply holds items * item_bytes bytes")
        native.request = request
        native.request_bytes = len(request)
        native.reply = <const uint8_t*>reply if reply else NULL
        native.items = exchange.items
        native.item_bytes = exchange.item_bytes

    def __dealloc__(self):
        cdef uint32_t i
        if self.links != NULL:
            for i in range(self.number):
                close_connection(&self.links[i])
        for i in range(self.tally.sample_count):
            free(self.tally.samples[i].body)
        free(self.links)
        free(self.natives)

    def connect(self, path, uint32_t connections, uint32_t window):
        cdef bytes encoded = path.encode()
        cdef uint32_t i
        if len(encoded) > 107:
            raise ValueError("a socket path has at most 107 bytes")
        for i in range(connections):
            self.number += 1
            if open_connection(&self.links[i], &self.tally, encoded, i, window) < 0:
                if self.links[i].ring == NULL:
                    raise MemoryError
                abandon(&self.links[i], &self.tally, REFUSED)
                self.tally.failures[REFUSED] += 1

    cdef result(self, uint64_t ended_ns):
        cdef uint32_t i
        cdef list samples = []
        for i in range(self.tally.sample_count):
            samples.append((
                self.tally.samples[i].exchange,
                self.tally.samples[i].body[:self.tally.samples[i].length],
            ))
        errors = {
            FAILURE_NAMES.get(code, str(code)): self.tally.failures[code]
            for code in range(FAILURES) if self.tally.failures[code]
        }
        finished = [
            max(0, <long long>(self.links[i].finished_ns - self.plan.start_ns)) / 1e9 for i in range(self.number)
        ]
        return Run(
            self.tally.good, self.tally.good_items, (ended_ns - self.plan.start_ns) / 1e9,
            self.latency, self.lateness, errors, finished, samples,
        )


cdef bint begin_round(Connection* c, const Tally* tally, const Plan* plan) noexcept nogil:
    """Issue `window` requests at once; False when the connection has done its part."""
    cdef uint32_t _slot
    cdef uint64_t now = clock_ns()
    if plan.rounds and c.issued >= plan.rounds * c.window or plan.end_ns and now >= plan.end_ns:
        c.finished_ns = now
        return False
    c.base_ns = now
    for _slot in range(c.window):
        issue(c, tally)
    return True


cdef void run_single(Connection* c, Tally* tally, const Plan* plan) noexcept nogil:
    """One connection, blocking: what an application's simplest client does."""
    cdef pollfd watched
    cdef int sent, got
    watched.fd = c.fd
    while c.fd >= 0 and begin_round(c, tally, plan):
        sent = flush(c)
        while sent >= 0 and c.settled < c.issued:
            if not sent:
                watched.events = POLLIN | POLLOUT
                if poll(&watched, 1, <int>(plan.patience_ns // 1000000)) == 0:
                    break
                sent = flush(c)
            got = receive(c, tally, MSG_DONTWAIT if sent == 0 else 0)
            if got < 0:
                break
            if got == 0 and sent == 1 and clock_ns() - c.base_ns > plan.patience_ns:
                break
        if c.settled < c.issued:
            abandon(c, tally, CLOSED if sent < 0 else TIMEOUT)


cdef int watch(int poller, Connection* c, int operation, uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.ptr = c
    return epoll_ctl(poller, operation, c.fd, &event)


cdef void push(int poller, Connection* c, Tally* tally) noexcept nogil:
    """Write what the socket takes; watch for room while something is left."""
    cdef int sent = flush(c)
    if sent < 0 or watch(poller, c, EPOLL_CTL_MOD, EPOLLIN if sent else EPOLLIN | EPOLLOUT) < 0:
        abandon(c, tally, CLOSED)


cdef int wait(int poller, epoll_event* events, uint64_t ns) noexcept nogil:
    cdef timespec limit
    cdef int ready
    limit.tv_sec = ns // NS
    limit.tv_nsec = ns % NS
    ready = epoll_pwait2(poller, events, EVENTS, &limit, NULL)
    return 0 if ready < 0 and errno == EINTR else ready


cdef void run_many(Load load, int poller) noexcept nogil:
    """Closed loop over an epoll."""
    cdef epoll_event events[EVENTS]
    cdef Connection* c
    cdef uint32_t i, busy = 0
    cdef int k, ready
    for i in range(load.number):
        c = &load.links[i]
        if c.fd >= 0 and begin_round(c, &load.tally, &load.plan):
            busy += 1
            flush_first(poller, c, &load.tally)
            busy -= c.fd < 0
    while busy:
        ready = wait(poller, events, load.plan.patience_ns)
        if ready <= 0:
            break
        for k in range(ready):
            c = <Connection*>events[k].data.ptr
            if c.fd < 0:
                continue
            if c.unsent:
                push(poller, c, &load.tally)
            if c.fd >= 0 and events[k].events & ~EPOLLOUT:
                receive(c, &load.tally, MSG_DONTWAIT)
            if c.fd >= 0 and c.settled == c.issued:
                if begin_round(c, &load.tally, &load.plan):
                    send_round(poller, c, &load.tally)
                else:
                    busy -= 1
                    continue
            busy -= c.fd < 0
    give_up(load)


cdef void flush_first(int poller, Connection* c, Tally* tally) noexcept nogil:
    if watch(poller, c, EPOLL_CTL_ADD, EPOLLIN) < 0:
        abandon(c, tally, CLOSED)
    else:
        send_round(poller, c, tally)


cdef void send_round(int poller, Connection* c, Tally* tally) noexcept nogil:
    """Write; only when the socket is full does it cost another system call to watch for room."""
    cdef int sent = flush(c)
    if sent < 0 or sent == 0 and watch(poller, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT) < 0:
        abandon(c, tally, CLOSED)


cdef void give_up(Load load) noexcept nogil:
    cdef uint32_t i
    for i in range(load.number):
        if load.links[i].fd >= 0 and load.links[i].settled < load.links[i].issued:
            abandon(&load.links[i], &load.tally, TIMEOUT)


cdef uint64_t issue_due(Load load, int poller, uint64_t at, uint64_t now) noexcept nogil:
    """Issue every request from number `at` on whose time has come; returns the first that has not, or that has no room.

    A full window of one connection holds back those behind it for the moment: their latency runs from their own time.
    """
    cdef Connection* c
    cdef uint64_t due
    while at < load.plan.rounds:
        due = load.plan.start_ns + at * load.plan.interval_ns
        if due > now:
            break
        c = &load.links[at % load.number]
        if c.fd < 0:
            load.tally.failures[CLOSED] += 1
            at += 1
            continue
        if c.pending[c.issued % c.window]:
            break
        issue(c, &load.tally)
        count(&load.lateness.counts, now - due)
        send_round(poller, c, &load.tally)
        at += 1
    return at


cdef uint64_t nap(Load load, uint64_t at, uint64_t now) noexcept nogil:
    """Nanoseconds until the next request is due, or until patience ends."""
    cdef uint64_t due = load.plan.start_ns + at * load.plan.interval_ns
    cdef Connection* c = &load.links[at % load.number]
    if at >= load.plan.rounds or due <= now and c.pending[c.issued % c.window]:
        return load.plan.patience_ns
    return due - now if due > now else 0


cdef bint unanswered(Load load) noexcept nogil:
    cdef uint32_t i
    for i in range(load.number):
        if load.links[i].settled < load.links[i].issued:
            return True
    return False


cdef void run_schedule(Load load, int poller) noexcept nogil:
    """Open loop over an epoll."""
    cdef epoll_event events[EVENTS]
    cdef Connection* c
    cdef uint64_t at = 0, now, answered_ns
    cdef int k, ready
    for k in range(<int>load.number):
        c = &load.links[k]
        c.base_ns = load.plan.start_ns + k * load.plan.interval_ns
        c.step_ns = load.number * load.plan.interval_ns
        if c.fd >= 0:
            flush_first(poller, c, &load.tally)
    answered_ns = load.plan.start_ns
    while at < load.plan.rounds or unanswered(load):
        now = clock_ns()
        at = issue_due(load, poller, at, now)
        ready = wait(poller, events, nap(load, at, clock_ns()))
        now = clock_ns()
        if ready > 0:
            answered_ns = now
        elif ready < 0 or now - answered_ns > load.plan.patience_ns and unanswered(load):
            break
        for k in range(ready):
            c = <Connection*>events[k].data.ptr
            if c.fd < 0:
                continue
            if c.unsent:
                push(poller, c, &load.tally)
            if c.fd >= 0 and events[k].events & ~EPOLLOUT:
                receive(c, &load.tally, MSG_DONTWAIT)
            c.finished_ns = now
    load.tally.failures[TIMEOUT] += load.plan.rounds - at
    give_up(load)


cdef int new_poller() except -1:
    cdef int poller = epoll_create1(EPOLL_CLOEXEC)
    if poller < 0:
        raise OSError("no epoll descriptor: raise RLIMIT_NOFILE")
    return poller


cdef void set_patience(Load load, double seconds):
    """A blocking read ends by itself then, so that a dead server cannot hang a run."""
    cdef timeval limit
    cdef uint32_t i
    load.plan.patience_ns = <uint64_t>(seconds * NS)
    limit.tv_sec = <long>seconds
    limit.tv_usec = <long>((seconds - <long>seconds) * 1000000)
    for i in range(load.number):
        if load.links[i].fd >= 0:
            setsockopt(load.links[i].fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))


def closed_loop(
    path, exchanges, *, framing="keyside", connections=1, depth=1, rounds=0, seconds=0.0, patience=10.0,
):
    if not rounds and not seconds:
        raise ValueError("say when to stop: rounds or seconds")
    if rounds * depth > ID_SPACE or seconds > 600:
        raise ValueError("too long: a connection's request ids would run out")
    cdef Load load = Load(exchanges, framing, connections, depth)
    cdef int poller
    load.connect(path, connections, depth)
    set_patience(load, patience)
    load.plan.rounds = rounds
    load.plan.start_ns = clock_ns()
    load.plan.end_ns = load.plan.start_ns + <uint64_t>(seconds * NS) if seconds else 0
    if connections == 1:
        with nogil:
            run_single(&load.links[0], &load.tally, &load.plan)
    else:
        poller = new_poller()
        with nogil:
            run_many(load, poller)
            close(poller)
    return load.result(clock_ns())


def open_loop(
    path, exchanges, *, rate, seconds, framing="keyside", connections=1, window=4096, patience=10.0,
):
    if rate <= 0 or seconds <= 0 or rate * seconds / connections > ID_SPACE:
        raise ValueError("rate and seconds are above 0, and their product fits the request ids")
    cdef Load load = Load(exchanges, framing, connections, window)
    cdef int poller = new_poller()
    cdef int slack = prctl(PR_GET_TIMERSLACK, 0)
    load.connect(path, connections, window)
    set_patience(load, patience)
    load.plan.interval_ns = max(<uint64_t>1, <uint64_t>(NS / rate))
    load.plan.rounds = max(<uint64_t>1, <uint64_t>(rate * seconds))
    load.plan.start_ns = clock_ns()
    with nogil:
        prctl(PR_SET_TIMERSLACK, 1)
        run_schedule(load, poller)
        prctl(PR_SET_TIMERSLACK, slack)
        close(poller)
    return load.result(clock_ns())
