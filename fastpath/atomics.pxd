"""Atomic operations with named memory orders (GCC and Clang built-ins), for the few words that threads share."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #define ks_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ks_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define ks_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define ks_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define ks_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
    #define ks_exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
    #define ks_cas_u64(p, e, v) __atomic_compare_exchange_n((p), (e), (v), 1, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    /* one writer: no other thread changes the word, so a plain read-modify and a relaxed store suffice */
    #define ks_bump(p, v) __atomic_store_n((p), *(p) + (v), __ATOMIC_RELAXED)
    """
    uint32_t load_acquire_u32 "ks_load_acquire"(const uint32_t* p)
    uint64_t load_acquire_u64 "ks_load_acquire"(const uint64_t* p)
    void* load_acquire_ptr "ks_load_acquire"(void** p)
    int load_acquire_int "ks_load_acquire"(const int* p)
    uint32_t load_relaxed_u32 "ks_load_relaxed"(const uint32_t* p)
    uint64_t load_relaxed_u64 "ks_load_relaxed"(const uint64_t* p)
    int64_t load_relaxed_i64 "ks_load_relaxed"(const int64_t* p)
    void store_release_u32 "ks_store_release"(uint32_t* p, uint32_t v)
    void store_release_u64 "ks_store_release"(uint64_t* p, uint64_t v)
    void store_release_ptr "ks_store_release"(void** p, void* v)
    void store_release_int "ks_store_release"(int* p, int v)
    void store_relaxed_u32 "ks_store_relaxed"(uint32_t* p, uint32_t v)
    void store_relaxed_u64 "ks_store_relaxed"(uint64_t* p, uint64_t v)
    void store_relaxed_i64 "ks_store_relaxed"(int64_t* p, int64_t v)
    uint64_t fetch_add_u64 "ks_fetch_add"(uint64_t* p, uint64_t v)
    int64_t fetch_add_i64 "ks_fetch_add"(int64_t* p, int64_t v)
    uint8_t exchange_u8 "ks_exchange"(uint8_t* p, uint8_t v)
    bint cas_u64 "ks_cas_u64"(uint64_t* p, uint64_t* expected, uint64_t v)
    void bump_u64 "ks_bump"(uint64_t* p, uint64_t v)
