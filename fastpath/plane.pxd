"""The map of the data plane: every struct that its modules share, with who writes it, who reads it and how.

Threads: N workers, and the control plane (one thread at a time, holding the GIL, in dataplane.pyx). A worker owns its
Worker and the Connections, Misses and Parked requests in it; nobody else touches them. What crosses threads is: the key
cache and the policy pointer (release / acquire and acknowledgement, keycache.pxd), the mailboxes (a mutex each),
counters (one writer, relaxed), and the control words of Plane (release / acquire).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.aead cimport EVP_CIPHER_CTX, EVP_MAC_CTX, NoncePool
from fastpath.gate cimport Policy
from fastpath.keycache cimport KeyCache
from fastpath.shares cimport Account, Ledger, Peer, Pool
from fastpath.sockets cimport pthread_mutex_t, pthread_t

cdef enum:
    CONTEXTS = 64                 # keyed cipher contexts a worker keeps
    CONTEXT_WAYS = 4
    CONTEXT_SETS = 16             # CONTEXTS / CONTEXT_WAYS
    READ_BYTES = 262144           # read from one connection before the next has its turn
    OUT_BYTES = 1048576           # a worker's response buffer, when no response is larger
    MISS_BUCKETS = 1024
    ASSOCIATED_MAX = 65546        # envelope header and longest context
    EVENTS_AT_ONCE = 64
    BUCKETS = 640                 # latency histogram: 40 powers of two of nanoseconds, 16 steps each

cdef enum Outcome:
    ITEM_WAITS = 0
    ITEM_DONE = 1

cdef enum EventKind:
    EVENT_KEY = 0
    EVENT_SCOPE = 1
    EVENT_LOW = 2
    EVENT_HTTP = 3

cdef enum LetterKind:
    LETTER_COMPLETE = 0
    LETTER_ADOPT = 1

cdef struct Event:
    # Worker to control plane. Owned by whoever took it from the mailbox.
    Event* next
    uint64_t token
    uint64_t key_id
    uint64_t wanted
    int fd
    uint32_t uid
    uint32_t gid
    int pid
    uint16_t name_len
    uint8_t kind
    uint8_t purpose
    uint8_t name[193]

cdef struct Letter:
    # To a worker, from the control plane or from the worker that accepted a connection.
    Letter* next
    uint64_t token
    int fd
    uint8_t kind
    uint8_t adopted         # by the control plane: frames only, no protocol to find out
    Peer peer

cdef struct Mailbox:
    # A queue of Events or Letters (both start with `next`). head, tail, count: under lock; count is also read without
    # it, relaxed. event_fd: written after a put into an empty queue.
    pthread_mutex_t lock
    void* head
    void* tail
    uint32_t count
    int event_fd

cdef struct Waiter:
    # One parked request waiting for one miss. In the miss's list (next, previous) and the request's (next_of_parked).
    Waiter* next
    Waiter** link
    Waiter* next_of_parked
    Parked* parked
    Miss* miss

cdef struct Miss:
    # A key that the control plane was asked for on behalf of one peer: it takes peers' misses in turn. In its bucket's
    # list.
    Miss* next
    Account* account        # held
    uint64_t token
    uint64_t hash
    uint64_t key_id
    uint64_t asked_at
    Waiter* waiters
    uint16_t name_len
    uint8_t kind            # 0: key; 1 + purpose: active key of a scope
    uint8_t name[193]

cdef struct Parked:
    # A request that waits for keys: a copy of its frame. In its connection's list and in the worker's list by deadline.
    # outcomes: one an item of DECRYPT and REENCRYPT, else NULL. An item is done once, as soon as its key is there, and
    # its result written over it in the frame: so a batch may need more keys than the cache holds at once.
    Parked* next            # worker's list, oldest first
    Parked* previous
    Parked* next_of_connection
    Parked** link_of_connection
    Connection* connection
    Parked* next_ready      # between park_complete and being run
    Waiter* waiters
    uint32_t waiting        # waiters left
    uint64_t arrived_at
    uint64_t deadline
    uint8_t* outcomes       # ITEM_WAITS, ITEM_DONE, or the item's error code; behind the frame
    uint32_t barren         # runs that brought no item further
    size_t n
    size_t size             # of all this
    uint8_t frame[1]

cdef struct Connection:
    Connection* next
    Connection* previous
    int fd
    Peer peer
    uint8_t undecided       # no byte seen yet: frames or HTTP?
    uint8_t half_closed     # the peer sends no more
    uint8_t closed          # in the graveyard: fd is closed, freed at the end of the round
    uint8_t blocked         # a response waits for the peer to read
    uint32_t n_parked
    Parked* parked
    uint8_t* input          # a frame that has not arrived whole
    size_t input_n
    size_t input_room
    uint8_t* output         # responses that the peer has not read yet
    size_t output_at
    size_t output_n
    size_t output_room
    uint64_t moved_at
    # what the last request named, resolved; valid while the generations are the current ones
    uint32_t policy_generation
    uint32_t scope
    uint32_t scope_generation
    uint16_t rules[5]
    uint16_t name_len
    uint8_t name[193]

cdef struct CipherContext:
    EVP_CIPHER_CTX* cipher
    uint32_t slot
    uint32_t generation     # even: holds no key

cdef struct Cryptor:
    # A worker's own cipher contexts by slot (a cache of CONTEXTS in sets of CONTEXT_WAYS), MAC, nonces and scratch.
    CipherContext contexts[CONTEXTS]
    uint8_t victims[CONTEXT_SETS]
    EVP_MAC_CTX* mac
    uint32_t mac_slot
    uint32_t mac_generation
    NoncePool nonces
    uint8_t associated[ASSOCIATED_MAX]

cdef struct Counters:
    # Written by the worker, read by the control plane, relaxed; all only grow, but the gauges at the end.
    uint64_t requests[5]
    uint64_t items[5]
    uint64_t failed_items[32]     # by error code
    uint64_t failed_requests[32]
    uint64_t key_hits
    uint64_t key_misses
    uint64_t coalesced            # misses that joined one already asked for
    uint64_t parked_total
    uint64_t park_timeouts
    uint64_t accepted
    uint64_t refused_connections
    uint64_t closed_idle
    uint64_t closed_stalled
    uint64_t closed_garbage
    uint64_t closed_buffers
    uint64_t http_connections
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t latency[BUCKETS]         # requests answered without waiting: bytes read to response written
    uint64_t parked_latency[BUCKETS]  # requests that waited for a key
    uint64_t parked_now           # gauges
    uint64_t parked_bytes
    uint64_t buffer_bytes
    uint64_t connections
    uint64_t blocked

cdef struct Limits:
    # Constant after start. Times in ns, sizes in bytes. What peers share is in the pools.
    size_t max_frame
    uint64_t idle_timeout
    uint64_t stall_timeout
    uint64_t park_timeout

cdef struct Worker:
    Plane* plane
    pthread_t thread
    int index
    int cpu                       # pinned to, or -1
    int epoll
    int ticker_fd                 # readable once a second: waiting without a timeout costs no timer a request
    int spare_fd                  # given up for a moment when descriptors run out
    Mailbox inbox
    uint64_t removals_seen
    uint64_t now                  # monotonic ns, taken once a round
    uint64_t next_token
    uint64_t next_sweep
    uint64_t next_deadline_check
    bint listening                # the listening socket is in this epoll instance
    uint64_t listen_again_at      # 0, or when to put it back: descriptors had run out
    uint8_t* input                # READ_BYTES
    uint8_t* out                  # responses of the connection at hand
    size_t out_n
    size_t out_room
    uint32_t failing[32]          # items that failed in the request at hand, by code: counted when it is answered
    uint64_t answered             # requests answered into `out` without waiting, not yet in the histogram
    Connection* connections
    Connection* graveyard
    Miss* misses[MISS_BUCKETS]
    Event* asks                   # of the request at hand, told when it has been looked through; oldest first
    Event** asks_end
    Parked* parked_first
    Parked* parked_last
    Cryptor cryptor
    Counters counters

cdef struct Plane:
    # limits, workers, n_workers, listen_fd, hello: constant after start. policy: swapped with release by the control
    # plane.
    # draining, stopping: stored with release by the control plane. ledger, pools: shares.pxd.
    KeyCache cache
    Policy* policy
    Limits limits
    int listen_fd
    int draining
    int stopping
    Ledger ledger
    Pool requests                 # that wait for keys
    Pool request_bytes
    Pool misses
    Pool buffers                  # bytes of half-received frames and unread responses
    Pool connections
    uint32_t n_workers
    Worker** workers
    Mailbox events
    uint32_t hello_n
    uint8_t hello[256]            # the items of a HELLO response, encoded
