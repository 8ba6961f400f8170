from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath.aead cimport EVP_CIPHER_CTX
from fastpath.keycache cimport KeyCache
from fastpath.plane cimport Cryptor

cdef int cryptor_open(Cryptor* cryptor) noexcept nogil
cdef void cryptor_close(Cryptor* cryptor) noexcept nogil
cdef EVP_CIPHER_CTX* cryptor_context(Cryptor* cryptor, KeyCache* cache, uint32_t slot, bint sealing) noexcept nogil
cdef void cryptor_forget_removed(Cryptor* cryptor, KeyCache* cache) noexcept nogil
cdef int cryptor_index(Cryptor* cryptor, KeyCache* cache, uint32_t slot, const uint8_t* context, uint32_t context_len,
                       const uint8_t* value, uint32_t n, uint8_t* out) noexcept nogil
# Associated data for one data key: the header is written here, the context by cryptor_bind; returns their length.
cdef void cryptor_header(Cryptor* cryptor, uint64_t key_id) noexcept nogil
cdef size_t cryptor_bind(Cryptor* cryptor, const uint8_t* context, uint32_t n) noexcept nogil
# An envelope of n + 38 bytes at out. plain may be out + 22.
cdef int envelope_seal(Cryptor* cryptor, EVP_CIPHER_CTX* cipher, size_t associated, const uint8_t* plain, uint32_t n,
                       uint8_t* out) noexcept nogil
# The plaintext of an envelope of n >= 38 bytes at out (n - 38 bytes). -1: not authentic, out is wiped.
cdef int envelope_open(Cryptor* cryptor, EVP_CIPHER_CTX* cipher, size_t associated, const uint8_t* envelope, uint32_t n,
                       uint8_t* out) noexcept nogil
cdef bint is_envelope(const uint8_t* p, uint32_t n) noexcept nogil
