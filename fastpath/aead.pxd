"""AES-256-GCM, HMAC-SHA-256 and random nonces from a private OpenSSL that allocates from the secret arena alone."""

from libc.stdint cimport uint8_t

from fastpath.openssl cimport EVP_CIPHER_CTX, EVP_MAC_CTX

cdef enum:
    KEY_BYTES = 32
    NONCE_BYTES = 12
    TAG_BYTES = 16
    MAC_BYTES = 32
    NONCE_POOL_BYTES = 12288

cdef struct NoncePool:
    # Written and read by one worker thread only. `used` bytes of `bytes` were handed out.
    size_t used
    uint8_t bytes[NONCE_POOL_BYTES]

cdef enum CryptoState:
    CRYPTO_READY = 0
    CRYPTO_NO_ALLOCATOR = -1  # OpenSSL had allocated before its allocations could be sent to the arena
    CRYPTO_NO_MEMORY = -2     # the arena's heap is too small
    CRYPTO_NO_ALGORITHM = -3  # this OpenSSL has no AES-256-GCM or no HMAC
    CRYPTO_WRONG_ANSWER = -4  # a known-answer test failed
    CRYPTO_NO_RANDOM = -5     # the operating system gave no seed

cdef CryptoState crypto_init() noexcept nogil            # after arena_open, before anything else here
cdef EVP_CIPHER_CTX* aead_new() noexcept nogil           # a context without a key; NULL when the arena is full
cdef void aead_free(EVP_CIPHER_CTX* ctx) noexcept nogil  # wipes the key schedule
# 0, or -1; `sealing`: what the next message is most likely to be
cdef int aead_rekey(EVP_CIPHER_CTX* ctx, const uint8_t* key, bint sealing) noexcept nogil
cdef int aead_seal(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
                   const uint8_t* plain, size_t n, uint8_t* out, uint8_t* tag) noexcept nogil       # 0, or -1
# 0; -1 when the tag does not match, and then out is wiped
cdef int aead_open(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
                   const uint8_t* sealed, size_t n, const uint8_t* tag, uint8_t* out) noexcept nogil
cdef void nonce_pool_init(NoncePool* pool) noexcept nogil
cdef int nonce_next(NoncePool* pool, uint8_t* out) noexcept nogil                                   # 0, or -1
cdef int random_bytes(uint8_t* out, size_t n) noexcept nogil                                        # 0, or -1

cdef EVP_MAC_CTX* mac_new() noexcept nogil
cdef void mac_free(EVP_MAC_CTX* ctx) noexcept nogil
cdef int mac_rekey(EVP_MAC_CTX* ctx, const uint8_t* key) noexcept nogil
# HMAC-SHA-256(key, u32be(len(context)) || context || value); out: 32 bytes
cdef int blind_index(EVP_MAC_CTX* ctx, const uint8_t* context, size_t context_len,
                     const uint8_t* value, size_t n, uint8_t* out) noexcept nogil
