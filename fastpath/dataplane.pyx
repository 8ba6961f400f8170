"""The data plane as the control plane sees it; the contract is dataplane.pyi."""

from collections import namedtuple

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strerror
from posix.types cimport pid_t
from posix.unistd cimport getpid

from fastpath.aead cimport KEY_BYTES
from fastpath.arena cimport arena_key_bytes, arena_keys, arena_usable, secret_wipe
from fastpath.atomics cimport fetch_add_u64, load_relaxed_u64, store_release_int, store_release_ptr
from fastpath.gate cimport RULES_MAX, Policy, Rule as NativeRule, policy_free, policy_new
from fastpath.keycache cimport (
    MAX_WORKERS, Slot, cache_activate, cache_add_budget, cache_await, cache_close, cache_deactivate, cache_find_key,
    NO_SLOT, cache_install, cache_open, cache_refuse, cache_remove, cache_remove_expired, cache_remove_scope,
)
from fastpath.mailbox cimport mailbox_close, mailbox_open, mailbox_put, mailbox_take, mailbox_take_all
from fastpath.msgpack cimport put_array, put_bin
from fastpath.plane cimport (
    EVENT_HTTP, EVENT_KEY, EVENT_LOW, EVENT_SCOPE, LETTER_ADOPT, LETTER_COMPLETE, Event as NativeEvent, Letter,
    Plane, Worker,
)
from fastpath.parking cimport parked_size
from fastpath.protocol cimport ITEMS_MAX, NAME_MAX, OP_COUNT
from fastpath.frame cimport valid_name
from fastpath.sockets cimport (
    ENOMEM, ENOSPC, close, now_ns, pause_us, pthread_create, pthread_join, pthread_setname_np, ring,
    set_nonblocking, silence,
)
from fastpath.shares cimport SHARE, Account, account_open, ledger_close, ledger_open
from fastpath.stats cimport collect
from fastpath.worker cimport worker_free, worker_main, worker_new

PURPOSE_FIELD = 0
PURPOSE_INDEX = 1

Options = namedtuple(
    "Options",
    "workers cpus key_capacity max_frame max_connections idle_timeout stall_timeout park_timeout park_requests "
    "park_bytes buffer_bytes product",
    defaults=(8 << 20, 16384, 600_000, 30_000, 5_000, 65_536, 64 << 20, 512 << 20, "keyside/0.1.0"),
)
Rule = namedtuple("Rule", "uid gid keyrings operations rate")
KeyMiss = namedtuple("KeyMiss", "kind token key_id scope uid")
ScopeMiss = namedtuple("ScopeMiss", "kind token scope purpose wanted uid")
LowBudget = namedtuple("LowBudget", "kind token key_id scope")
HttpConnection = namedtuple("HttpConnection", "kind token fd uid gid pid")


class CacheFull(Exception):
    """Every slot holds a key that may not be evicted."""


cdef enum:
    MAX_FRAME = 0x0FFFFFFF
    PREFIX = 4

# The process whose data plane uses the arena's key slots; 0: none does.
cdef pid_t[1] owner_of_keys
owner_of_keys[0] = 0


cdef class DataPlane:
    cdef Plane plane
    cdef bint started
    cdef bint stopped
    cdef bint opened
    cdef uint32_t policies
    cdef pid_t owner
    cdef list cpus
    cdef uint32_t wanted_workers

    def __cinit__(self, options not None):
        cdef int outcome
        memset(&self.plane, 0, sizeof(Plane))
        self.plane.events.event_fd = -1
        self.owner = getpid()
        if not arena_usable():
            raise RuntimeError("the secret arena is not open in this process: call fastpath.memory.open() first")
        check_options(options)
        if owner_of_keys[0] == self.owner:
            raise RuntimeError("this process has a data plane already, and both would write the same key slots: "
                               "stop the first")
        if options.key_capacity * KEY_BYTES > arena_key_bytes():
            raise ValueError(f"the secret arena has room for {arena_key_bytes() // KEY_BYTES} data keys, "
                             f"not for {options.key_capacity}: open it for more")
        outcome = cache_open(&self.plane.cache, options.key_capacity, arena_keys())
        if outcome == 0:
            outcome = mailbox_open(&self.plane.events)
        if outcome != 0:
            raise OSError(-outcome, f"cannot set up the key cache: {strerror(-outcome).decode()}")
        ledger_open(&self.plane.ledger)
        self.opened = True
        owner_of_keys[0] = self.owner
        self.wanted_workers = options.workers
        self.cpus = list(options.cpus)
        self.set_limits(options)
        self.set_hello(options)

    cdef void set_limits(self, options):
        self.plane.limits.max_frame = options.max_frame
        self.plane.limits.idle_timeout = <uint64_t>options.idle_timeout * 1000000
        self.plane.limits.stall_timeout = <uint64_t>options.stall_timeout * 1000000
        self.plane.limits.park_timeout = <uint64_t>options.park_timeout * 1000000
        self.plane.requests.limit = options.park_requests
        self.plane.misses.limit = options.park_requests
        self.plane.connections.limit = options.max_connections
        # one peer's share holds the longest frame, which comes in pieces; waiting, it takes its bytes at once
        self.plane.buffers.limit = max(options.buffer_bytes, (PREFIX + options.max_frame) * (SHARE + 1) // SHARE + 1)
        self.plane.request_bytes.limit = max(options.park_bytes, parked_size(options.max_frame, ITEMS_MAX))

    cdef void set_hello(self, options):
        cdef uint8_t* p = self.plane.hello
        cdef bytes value
        p += put_array(p, 4)
        for value in (options.product.encode()[:64], b"1", b"%d" % options.max_frame, b"%d" % ITEMS_MAX):
            p += put_bin(p, len(value))
            memcpy(p, <const uint8_t*>value, len(value))
            p += len(value)
        self.plane.hello_n = p - self.plane.hello

    def __dealloc__(self):
        if self.opened and getpid() == self.owner:
            self.shut()

    def start(self, int listen_fd):
        cdef uint32_t i
        cdef Worker* w
        self.check()
        if self.started:
            raise RuntimeError("the data plane was started before")
        if set_nonblocking(listen_fd) != 0:
            raise OSError("the listening socket cannot be made non-blocking")
        self.plane.listen_fd = listen_fd
        self.plane.workers = <Worker**>calloc(self.wanted_workers, sizeof(Worker*))
        if self.plane.workers == NULL:
            raise MemoryError
        for i in range(self.wanted_workers):
            w = worker_new(&self.plane, i, self.cpus[i] if i < len(self.cpus) else -1)
            if w == NULL:
                self.free_workers()
                raise OSError("cannot set up a worker: out of memory, descriptors or secret arena; lower workers.count")
            self.plane.workers[i] = w
            self.plane.n_workers = i + 1
            self.plane.cache.wake_fds[i] = w.inbox.event_fd
        # from here on the cache's writer waits for the workers
        self.plane.cache.n_workers = self.plane.n_workers
        self.started = True
        for i in range(self.plane.n_workers):
            w = self.plane.workers[i]
            if pthread_create(&w.thread, NULL, worker_main, w) != 0:
                self.plane.cache.n_workers = i
                self.join(i)
                raise OSError("cannot start a worker thread: see ulimit -u")
            pthread_setname_np(w.thread, b"keyside-worker")

    cdef void free_workers(self):
        cdef uint32_t i
        for i in range(self.plane.n_workers):
            worker_free(self.plane.workers[i])
        free(self.plane.workers)
        self.plane.workers = NULL
        self.plane.n_workers = 0

    cdef void wake_all(self):
        cdef uint32_t i
        for i in range(self.plane.n_workers):
            ring(self.plane.workers[i].inbox.event_fd)

    cdef void join(self, uint32_t running):
        """End the first `running` threads and free all workers."""
        cdef uint32_t i
        store_release_int(&self.plane.stopping, 1)
        self.wake_all()
        with nogil:
            for i in range(running):
                pthread_join(self.plane.workers[i].thread, NULL)
        self.plane.cache.n_workers = 0
        self.free_workers()

    def drain(self, double timeout):
        cdef uint64_t end = now_ns() + <uint64_t>(max(0.0, timeout) * 1e9)
        cdef bint quiet
        self.check()
        store_release_int(&self.plane.draining, 1)
        self.wake_all()
        with nogil:
            while True:
                # a worker in the middle of a request may be about to park it or to keep its answer: look afterwards
                cache_await(&self.plane.cache)
                quiet = self.is_quiet()
                if quiet or now_ns() >= end:
                    break
                pause_us(1000)
        return bool(quiet)

    cdef bint is_quiet(self) noexcept nogil:
        cdef uint32_t i
        cdef Worker* w
        for i in range(self.plane.n_workers):
            w = self.plane.workers[i]
            if load_relaxed_u64(&w.counters.parked_now) or load_relaxed_u64(&w.counters.blocked):
                return False
        return True

    def stop(self):
        self.require_owner()
        self.shut()

    cdef void shut(self):
        cdef NativeEvent* event
        cdef NativeEvent* following
        if self.stopped or not self.opened:
            return
        self.stopped = True
        if self.started and self.plane.n_workers:
            self.join(self.plane.n_workers)
        event = <NativeEvent*>mailbox_take_all(&self.plane.events)
        while event != NULL:
            following = event.next
            if event.kind == EVENT_HTTP:
                close(event.fd)
            free(event)
            event = following
        mailbox_close(&self.plane.events)
        policy_free(self.plane.policy)
        self.plane.policy = NULL
        cache_close(&self.plane.cache)
        ledger_close(&self.plane.ledger)
        owner_of_keys[0] = 0

    cdef int check(self) except -1:
        if self.stopped:
            raise RuntimeError("the data plane was stopped")
        return self.require_owner()

    cdef int require_owner(self) except -1:
        if getpid() != self.owner:
            raise RuntimeError("the data plane belongs to the parent process: a child has no keys and no workers")
        return 0

    def adopt(self, int fd, uint32_t uid, uint32_t gid, int pid, groups=()):
        cdef Letter* letter
        cdef Py_ssize_t i, n = len(groups)
        self.check()
        if not self.plane.n_workers:
            raise RuntimeError("the data plane has not been started")
        if set_nonblocking(fd) != 0:
            raise OSError("adopt() takes an open, connected stream socket")
        letter = <Letter*>calloc(1, sizeof(Letter))
        if letter == NULL:
            raise MemoryError
        if n:
            letter.peer.groups = <uint32_t*>malloc(n * sizeof(uint32_t))
            if letter.peer.groups == NULL:
                free(letter)
                raise MemoryError
            letter.peer.n_groups = n
            try:
                for i in range(n):
                    letter.peer.groups[i] = groups[i]
            except BaseException:
                free(letter.peer.groups)
                free(letter)
                raise
        letter.peer.account = account_open(&self.plane.ledger, uid)
        if letter.peer.account == NULL:
            free(letter.peer.groups)
            free(letter)
            raise MemoryError
        letter.kind = LETTER_ADOPT
        letter.adopted = 1
        letter.fd = fd
        letter.peer.uid = uid
        letter.peer.gid = gid
        letter.peer.pid = pid
        self.charge_connection(letter.peer.account)
        mailbox_put(&self.plane.workers[fd % self.plane.n_workers].inbox, letter)

    cdef void charge_connection(self, Account* account) noexcept nogil:
        # whoever adopts has accepted the connection already: counted, never refused
        fetch_add_u64(&account.connections, 1)
        fetch_add_u64(&self.plane.connections.used, 1)

    @property
    def event_fd(self):
        return self.plane.events.event_fd

    def events(self, int limit=256):
        cdef NativeEvent* event
        self.check()
        taken = []
        # cleared first: a put in between wakes once too often, never once too little
        silence(self.plane.events.event_fd)
        while len(taken) < limit:
            event = <NativeEvent*>mailbox_take(&self.plane.events)
            if event == NULL:
                break
            taken.append(describe(event))
            free(event)
        return taken

    def set_policy(self, rules):
        cdef Policy* fresh = compile_rules(rules)
        cdef Policy* old
        try:
            self.check()
        except RuntimeError:
            policy_free(fresh)
            raise
        self.policies += 1
        fresh.generation = self.policies
        old = self.plane.policy
        store_release_ptr(<void**>&self.plane.policy, fresh)
        with nogil:
            cache_await(&self.plane.cache)
        policy_free(old)

    def install(self, uint64_t key_id, str scope not None, int purpose, bytearray key not None, *, uint64_t ttl,
                int index_bits=0):
        cdef bytes name
        cdef uint8_t[32] copy
        cdef const uint8_t* p
        cdef uint32_t n
        cdef int outcome
        cdef uint64_t now = now_ns()
        cdef uint8_t index_bytes
        try:
            self.check()
            name = scope_name(scope)
            check_purpose(purpose)
            if len(key) != KEY_BYTES:
                raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(key)}")
            if not 0 <= index_bits <= 256 or index_bits % 8 or (index_bits != 0) != (purpose == PURPOSE_INDEX):
                raise ValueError("index_bits is a multiple of 8 from 8 to 256 for an index key, and 0 for a field key")
            index_bytes = index_bits // 8
            memcpy(copy, <uint8_t*>key, KEY_BYTES)
        finally:
            if len(key):
                secret_wipe(<uint8_t*>key, len(key))
        p = name
        n = len(name)
        with nogil:
            outcome = cache_install(&self.plane.cache, key_id, p, n, purpose, copy, now, now + ttl * 1000000,
                                    index_bytes)
            secret_wipe(copy, KEY_BYTES)
        if outcome == -ENOSPC:
            raise CacheFull("every slot of the key cache is in use: raise cache.keys and the lock limit")
        if outcome == -ENOMEM:
            raise MemoryError
        if outcome != 0:
            raise ValueError("this data key is cached for another scope or purpose")

    def activate(self, uint64_t key_id, int64_t budget):
        self.check()
        return cache_activate(&self.plane.cache, key_id, budget) == 0

    def add_budget(self, uint64_t key_id, int64_t budget):
        self.check()
        return cache_add_budget(&self.plane.cache, key_id, budget) == 0

    def deactivate(self, str scope not None, int purpose):
        cdef bytes name = scope_name(scope)
        self.check()
        check_purpose(purpose)
        cache_deactivate(&self.plane.cache, name, len(name), purpose)

    def evict(self, uint64_t key_id):
        cdef uint32_t n
        self.check()
        with nogil:
            n = cache_remove(&self.plane.cache, key_id)
        return n == 1

    def evict_scope(self, str scope not None):
        cdef bytes name = scope_name(scope)
        cdef const uint8_t* p = name
        cdef uint32_t size = len(name), n
        self.check()
        with nogil:
            n = cache_remove_scope(&self.plane.cache, p, size)
        return n

    def contains(self, uint64_t key_id):
        self.check()
        return cache_find_key(&self.plane.cache, key_id) != NO_SLOT

    def expiring(self, uint64_t within, int limit=256):
        cdef uint32_t i
        cdef Slot* slot
        cdef uint64_t until = now_ns() + within * 1000000
        self.check()
        found = []
        for i in range(self.plane.cache.slots_used):
            slot = &self.plane.cache.slots[i]
            if (slot.live and load_relaxed_u64(&slot.expires) <= until
                    and load_relaxed_u64(&slot.used_at) > slot.installed_at):
                found.append((slot.key_id, self.scope_of(slot), slot.purpose))
                if len(found) == limit:
                    break
        return found

    cdef str scope_of(self, Slot* slot):
        cdef const char* name = self.plane.cache.scopes[slot.scope].name
        return name[:self.plane.cache.scopes[slot.scope].name_len].decode()

    def sweep(self):
        cdef uint32_t n, total = 0
        self.check()
        with nogil:
            while True:
                n = cache_remove_expired(&self.plane.cache, now_ns())
                total += n
                if n == 0:
                    break
        return total

    def refuse_key(self, uint64_t key_id, str scope not None, int code, uint64_t ttl):
        cdef bytes name = scope_name(scope)
        self.check()
        check_code(code)
        cache_refuse(&self.plane.cache, 0, key_id, name, len(name), code, now_ns() + ttl * 1000000)

    def refuse_scope(self, str scope not None, int purpose, int code, uint64_t ttl):
        cdef bytes name = scope_name(scope)
        self.check()
        check_code(code)
        check_purpose(purpose)
        cache_refuse(&self.plane.cache, 1 + purpose, 0, name, len(name), code, now_ns() + ttl * 1000000)

    def complete(self, uint64_t token):
        cdef Letter* letter
        self.check()
        if (token & 0xFF) >= self.plane.n_workers or token < 256:
            return
        letter = <Letter*>calloc(1, sizeof(Letter))
        if letter == NULL:
            raise MemoryError
        letter.kind = LETTER_COMPLETE
        letter.token = token
        mailbox_put(&self.plane.workers[token & 0xFF].inbox, letter)

    def stats(self):
        self.check()
        return collect(&self.plane)


def check_options(options):
    """Raise ValueError for the first option that the data plane cannot work with."""
    limits = {
        "workers": (1, MAX_WORKERS),
        "key_capacity": (1, 1 << 28),
        "max_frame": (1024, MAX_FRAME),
        "max_connections": (1, 1 << 20),
        "idle_timeout": (1, 1 << 40),
        "stall_timeout": (1, 1 << 40),
        "park_timeout": (1, 1 << 40),
        "park_requests": (1, 1 << 30),
        "park_bytes": (1, 1 << 40),
        "buffer_bytes": (1, 1 << 40),
    }
    for name, (low, high) in limits.items():
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"{name} is {getattr(options, name)}: it must lie between {low} and {high}")


cdef bytes scope_name(str scope):
    cdef bytes name = scope.encode()
    if len(name) > NAME_MAX or not valid_name(name, len(name)):
        raise ValueError("not a keyring name, nor keyring/partition, as docs/spec/wire.md allows them")
    return name


cdef int check_purpose(int purpose) except -1:
    if purpose not in (0, 1):
        raise ValueError("purpose is PURPOSE_FIELD or PURPOSE_INDEX")
    return 0


cdef int check_code(int code) except -1:
    if not 16 <= code <= 26:
        raise ValueError("an error code of docs/spec/wire.md lies between 16 and 26")
    return 0


cdef object describe(NativeEvent* event):
    cdef str scope = event.name[:event.name_len].decode()
    if event.kind == EVENT_KEY:
        return KeyMiss("key", event.token, event.key_id, scope, event.uid)
    if event.kind == EVENT_SCOPE:
        return ScopeMiss("scope", event.token, scope, event.purpose, event.wanted, event.uid)
    if event.kind == EVENT_LOW:
        return LowBudget("low", event.token, event.key_id, scope)
    return HttpConnection("http", event.token, event.fd, event.uid, event.gid, event.pid)


cdef Policy* compile_rules(rules) except NULL:
    """Rules as the workers read them. Raises ValueError, MemoryError."""
    cdef Policy* policy
    cdef uint32_t i
    if len(rules) > RULES_MAX:
        raise ValueError(f"a policy has at most {RULES_MAX} rules")
    policy = policy_new(len(rules))
    if policy == NULL:
        raise MemoryError
    try:
        for i, rule in enumerate(rules):
            fill_rule(&policy.rules[i], rule)
    except BaseException:
        policy_free(policy)
        raise
    return policy


cdef int fill_rule(NativeRule* native, rule) except -1:
    cdef bytes glob
    cdef Py_ssize_t i
    if not 0 <= rule.operations < 1 << OP_COUNT or not 0 <= rule.rate < 1 << 40:
        raise ValueError("a rule's operations are bits of known operations, its rate is 0 or more")
    native.any_uid = rule.uid is None
    native.any_gid = rule.gid is None
    native.uid = rule.uid or 0
    native.gid = rule.gid or 0
    native.operations = rule.operations
    native.rate = rule.rate
    native.globs = <char**>calloc(len(rule.keyrings) + 1, sizeof(char*))
    if native.globs == NULL:
        raise MemoryError
    for i, text in enumerate(rule.keyrings):
        glob = text.encode()
        if b"\0" in glob or len(glob) > 2 * NAME_MAX:
            raise ValueError("a keyring glob holds no NUL and at most 386 bytes")
        native.globs[i] = <char*>malloc(len(glob) + 1)
        if native.globs[i] == NULL:
            raise MemoryError
        memcpy(native.globs[i], <const char*>glob, len(glob) + 1)
        native.n_globs = i + 1
    return 0
