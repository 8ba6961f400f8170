"""The policy gate; see gate.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastpath.atomics cimport cas_u64, load_relaxed_u64
from fastpath.protocol cimport OP_COUNT
from fastpath.shares cimport Peer


cdef Policy* policy_new(uint32_t n_rules) noexcept nogil:
    """An empty policy with room for n_rules, all zero; NULL without memory."""
    cdef Policy* policy = <Policy*>calloc(1, sizeof(Policy))
    if policy != NULL and n_rules:
        policy.rules = <Rule*>calloc(n_rules, sizeof(Rule))
        if policy.rules == NULL:
            free(policy)
            return NULL
    if policy != NULL:
        policy.n_rules = n_rules
    return policy


cdef void policy_free(Policy* policy) noexcept nogil:
    cdef uint32_t i, j
    if policy == NULL:
        return
    for i in range(policy.n_rules):
        for j in range(policy.rules[i].n_globs):
            free(policy.rules[i].globs[j])
        free(policy.rules[i].globs)
    free(policy.rules)
    free(policy)


cdef bint glob_matches(const char* glob, const uint8_t* name, uint32_t n) noexcept nogil:
    """`*` any run of characters, `?` one byte, others themselves. Backtracks to the last `*` alone."""
    cdef uint32_t i = 0, mark = 0
    cdef const char* p = glob
    cdef const char* star = NULL
    while i < n:
        if p[0] == c'*':
            star = p
            p += 1
            mark = i
        elif p[0] != 0 and (p[0] == c'?' or <uint8_t>p[0] == name[i]):
            p += 1
            i += 1
        elif star != NULL:
            p = star + 1
            mark += 1
            i = mark
        else:
            return False
    while p[0] == c'*':
        p += 1
    return p[0] == 0


cdef bint is_peer(Rule* rule, Peer* peer) noexcept nogil:
    cdef int i
    if not rule.any_uid and rule.uid != peer.uid:
        return False
    if rule.any_gid or rule.gid == peer.gid:
        return True
    for i in range(peer.n_groups):
        if peer.groups[i] == rule.gid:
            return True
    return False


cdef bint names_scope(Rule* rule, const uint8_t* name, uint32_t n) noexcept nogil:
    """Over the whole name: who may search `users` may not therefore read `users/42` (docs/configuration.md)."""
    cdef uint32_t i
    for i in range(rule.n_globs):
        if glob_matches(rule.globs[i], name, n):
            return True
    return False


cdef void policy_decide(Policy* policy, Peer* peer, const uint8_t* name, uint32_t n, uint16_t* rules) noexcept nogil:
    cdef uint32_t i, op
    cdef Rule* rule
    for op in range(OP_COUNT):
        rules[op] = NO_RULE
    for i in range(policy.n_rules):
        rule = &policy.rules[i]
        if is_peer(rule, peer) and names_scope(rule, name, n):
            for op in range(OP_COUNT):
                if rule.operations & (1 << op) and rules[op] == NO_RULE:
                    rules[op] = <uint16_t>i


cdef bint rate_allows(Rule* rule, uint64_t items, uint64_t now) noexcept nogil:
    """Generic cell rate algorithm (ITU-T I.371) with a burst of one second, shared by all whom the rule matches."""
    cdef uint64_t due, next_due
    if rule.rate == 0:
        return True
    due = load_relaxed_u64(&rule.due)
    while True:
        # items is at most 131,072: no overflow
        next_due = (due if due > now else now) + items * 1000000000u / rule.rate
        if next_due > now + 1000000000u:
            return False
        if cas_u64(&rule.due, &due, next_due):
            return True


def matches(bytes glob not None, bytes name not None):
    """Whether a policy glob matches a name; the function that the workers use."""
    return bool(glob_matches(glob, name, len(name)))
