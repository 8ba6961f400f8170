"""The policy gate: which peer may do which operation on which keyring, and how often.

A Policy is immutable but for its rate buckets; the control plane swaps in a new one and frees the old when every worker
has acknowledged (keycache.pxd, `removals`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.shares cimport Peer

cdef enum:
    NO_RULE = 0xFFFF
    RULES_MAX = 4096

cdef struct Rule:
    # Constant after policy_new, but `due`: atomic compare-and-swap by workers.
    uint32_t uid
    uint32_t gid
    uint8_t any_uid
    uint8_t any_gid
    uint8_t operations       # bit mask, 1 << op
    uint32_t n_globs
    char** globs             # NUL-terminated
    uint64_t rate            # items a second; 0: unlimited
    uint64_t due             # GCRA: when the bucket is empty again, ns

cdef struct Policy:
    uint32_t generation
    uint32_t n_rules
    Rule* rules

cdef Policy* policy_new(uint32_t n_rules) noexcept nogil
cdef void policy_free(Policy* policy) noexcept nogil
# rules[op] for every operation: the index of the first rule that allows it, or NO_RULE
cdef void policy_decide(Policy* policy, Peer* peer, const uint8_t* name, uint32_t n, uint16_t* rules) noexcept nogil
cdef bint rate_allows(Rule* rule, uint64_t items, uint64_t now) noexcept nogil
cdef bint glob_matches(const char* glob, const uint8_t* name, uint32_t n) noexcept nogil
