"""AES-256-GCM (NIST SP 800-38D), HMAC-SHA-256 (RFC 2104) and random nonces from a private OpenSSL.

The library is linked statically with hidden symbols, so that it shares nothing with Python's ssl module, and every
allocation it makes, expanded key schedules included, lies in the secret arena. Nothing of it runs in a forked child.

    Exception
        TagMismatch   sealed bytes are not what this key, nonce and associated data once gave
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.limits cimport INT_MAX
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from fastpath.arena cimport arena_free, arena_malloc, arena_realloc, arena_usable, secret_wipe
from fastpath.openssl cimport (
    CRYPTO_set_mem_functions,
    EVP_CIPHER,
    EVP_CIPHER_CTX,
    EVP_CIPHER_CTX_free,
    EVP_CIPHER_CTX_get_params,
    EVP_CIPHER_CTX_is_encrypting,
    EVP_CIPHER_CTX_new,
    EVP_CIPHER_CTX_set_params,
    EVP_CIPHER_fetch,
    EVP_Cipher,
    EVP_CipherInit_ex2,
    EVP_DecryptUpdate,
    EVP_EncryptUpdate,
    EVP_MAC,
    EVP_MAC_CTX,
    EVP_MAC_CTX_free,
    EVP_MAC_CTX_new,
    EVP_MAC_CTX_set_params,
    EVP_MAC_fetch,
    EVP_MAC_final,
    EVP_MAC_init,
    EVP_MAC_update,
    OPENSSL_INIT_NO_ATEXIT,
    OPENSSL_INIT_NO_LOAD_CONFIG,
    OPENSSL_init_crypto,
    OSSL_CIPHER_PARAM_AEAD_TAG,
    OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED,
    OSSL_MAC_PARAM_DIGEST,
    OSSL_PARAM,
    OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string,
    OSSL_PARAM_construct_utf8_string,
    RAND_bytes,
)

ctypedef const uint8_t[::1] Bytes  # anything with a contiguous buffer of bytes

cdef EVP_CIPHER* aes_256_gcm = NULL  # fetched once by crypto_init: a lookup by name takes locks; constant afterwards
cdef EVP_MAC* hmac = NULL
cdef bint ready = False

# Whether the nonce alone may be set as a parameter, a sixth cheaper for 64 bytes than to initialise the context.
# Set by crypto_init when the known answers come out right that way; constant afterwards. Were OpenSSL to ignore the
# parameter, the next message would fail, not repeat a nonce: a finished context refuses data until it has a new one.
cdef bint nonce_by_parameter = False


class TagMismatch(Exception):
    """The tag does not match: wrong key, nonce or associated data, or bytes that were changed or cut."""


# Start

cdef void* openssl_malloc(size_t n, const char* file, int line) noexcept nogil:
    return arena_malloc(n)


cdef void* openssl_realloc(void* p, size_t n, const char* file, int line) noexcept nogil:
    return arena_realloc(p, n)


cdef void openssl_free(void* p, const char* file, int line) noexcept nogil:
    arena_free(p)


cdef CryptoState crypto_init() noexcept nogil:
    global aes_256_gcm, hmac, ready, nonce_by_parameter
    cdef uint8_t first[16]
    # no atexit handler: it would run in forked children too, over memory they do not have
    # no configuration file: whoever can write one chooses the code that sees the keys
    if CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1:
        return CRYPTO_NO_ALLOCATOR
    if OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1:
        return CRYPTO_NO_MEMORY
    aes_256_gcm = EVP_CIPHER_fetch(NULL, b"AES-256-GCM", NULL)
    hmac = EVP_MAC_fetch(NULL, b"HMAC", NULL)
    if aes_256_gcm == NULL or hmac == NULL:
        return CRYPTO_NO_ALGORITHM
    nonce_by_parameter = True
    nonce_by_parameter = aead_known_answer()
    if not nonce_by_parameter and not aead_known_answer():
        return CRYPTO_WRONG_ANSWER
    if not mac_known_answer():
        return CRYPTO_WRONG_ANSWER
    # the first draw sets up what all threads' generators are seeded from; were it to fail later, it would fail for good
    if random_bytes(first, sizeof(first)) != 0:
        return CRYPTO_NO_RANDOM
    ready = True
    return CRYPTO_READY


cdef bint aead_known_answer() noexcept nogil:
    # test case 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega), the AES-256 case with associated data
    cdef const uint8_t* key = <const uint8_t*>(
        b"\xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08"
        b"\xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08"
    )
    cdef const uint8_t* nonce = <const uint8_t*>b"\xca\xfe\xba\xbe\xfa\xce\xdb\xad\xde\xca\xf8\x88"
    cdef const uint8_t* aad = <const uint8_t*>(
        b"\xfe\xed\xfa\xce\xde\xad\xbe\xef\xfe\xed\xfa\xce\xde\xad\xbe\xef\xab\xad\xda\xd2"
    )
    cdef const uint8_t* plain = <const uint8_t*>(
        b"\xd9\x31\x32\x25\xf8\x84\x06\xe5\xa5\x59\x09\xc5\xaf\xf5\x26\x9a"
        b"\x86\xa7\xa9\x53\x15\x34\xf7\xda\x2e\x4c\x30\x3d\x8a\x31\x8a\x72"
        b"\x1c\x3c\x0c\x95\x95\x68\x09\x53\x2f\xcf\x0e\x24\x49\xa6\xb5\x25"
        b"\xb1\x6a\xed\xf5\xaa\x0d\xe6\x57\xba\x63\x7b\x39"
    )
    cdef const uint8_t* sealed = <const uint8_t*>(
        b"\x52\x2d\xc1\xf0\x99\x56\x7d\x07\xf4\x7f\x37\xa3\x2a\x84\x42\x7d"
        b"\x64\x3a\x8c\xdc\xbf\xe5\xc0\xc9\x75\x98\xa2\xbd\x25\x55\xd1\xaa"
        b"\x8c\xb0\x8e\x48\x59\x0d\xbb\x3d\xa7\xb0\x8b\x10\x56\x82\x88\x38"
        b"\xc5\xf6\x1e\x63\x93\xba\x7a\x0a\xbc\xc9\xf6\x62"
    )
    cdef const uint8_t* tag = <const uint8_t*>b"\x76\xfc\x6e\xce\x0f\x4e\x17\x68\xcd\xdf\x88\x53\xbb\x2d\x55\x1b"
    cdef EVP_CIPHER_CTX* ctx = aead_new()
    cdef uint8_t out[60]
    cdef uint8_t got[TAG_BYTES]
    cdef bint right = (
        ctx != NULL
        and aead_rekey(ctx, key, True) == 0
        # another message first: the second nonce must be the one that counts
        and aead_seal(ctx, key, aad, 20, plain, 60, out, got) == 0
        and memcmp(out, sealed, 60) != 0
        and aead_seal(ctx, nonce, aad, 20, plain, 60, out, got) == 0
        and memcmp(out, sealed, 60) == 0
        and memcmp(got, tag, TAG_BYTES) == 0
        and aead_open(ctx, key, aad, 20, sealed, 60, tag, out) != 0
        and aead_open(ctx, nonce, aad, 20, sealed, 60, tag, out) == 0
        and memcmp(out, plain, 60) == 0
        # keyed to open: the first nonce comes without an initialisation
        and aead_rekey(ctx, key, False) == 0
        and aead_open(ctx, nonce, aad, 20, sealed, 60, tag, out) == 0
        and memcmp(out, plain, 60) == 0
    )
    got[0] ^= 1
    right = right and aead_open(ctx, nonce, aad, 20, sealed, 60, got, out) != 0
    aead_free(ctx)
    return right


cdef bint mac_known_answer() noexcept nogil:
    # RFC 4231, test case 2; HMAC pads its keys with zeros, so that the four bytes of "Jefe" are a key of 32
    cdef const uint8_t* key = <const uint8_t*>b"Jefe\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    cdef const uint8_t* message = <const uint8_t*>b"what do ya want for nothing?"
    cdef const uint8_t* answer = <const uint8_t*>(
        b"\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7"
        b"\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9\x64\xec\x38\x43"
    )
    cdef EVP_MAC_CTX* ctx = mac_new()
    cdef uint8_t out[MAC_BYTES]
    cdef size_t written
    cdef int _
    cdef bint right = ctx != NULL and mac_rekey(ctx, key) == 0
    # twice: the second one starts again from the key that the context holds, as every item of a batch does
    for _ in range(2):
        right = (
            right
            and EVP_MAC_init(ctx, NULL, 0, NULL) == 1
            and EVP_MAC_update(ctx, message, 28) == 1
            and EVP_MAC_final(ctx, out, &written, MAC_BYTES) == 1
            and memcmp(out, answer, MAC_BYTES) == 0
        )
    mac_free(ctx)
    return right


# AES-256-GCM. The calls were chosen by their cost for 64 bytes: EVP_Cipher with no data ends a message, where
# the Final functions do more, and parameters cost less than EVP_CIPHER_CTX_ctrl. A context seals and opens by turns
# without a new key, since GCM uses one key schedule both ways.

cdef EVP_CIPHER_CTX* aead_new() noexcept nogil:
    cdef EVP_CIPHER_CTX* ctx = EVP_CIPHER_CTX_new()
    # the algorithm goes in once: naming it again with every key costs a third of a re-key
    if ctx != NULL and EVP_CipherInit_ex2(ctx, aes_256_gcm, NULL, NULL, 1, NULL) != 1:
        EVP_CIPHER_CTX_free(ctx)
        return NULL
    return ctx


cdef void aead_free(EVP_CIPHER_CTX* ctx) noexcept nogil:
    EVP_CIPHER_CTX_free(ctx)


cdef int aead_rekey(EVP_CIPHER_CTX* ctx, const uint8_t* key, bint sealing) noexcept nogil:
    # the direction goes in with the key: turning round afterwards costs about as much again as the key itself. The
    # nonce does not: OpenSSL then sets it up twice, and one call for both takes longer than two
    return 0 if EVP_CipherInit_ex2(ctx, NULL, key, NULL, sealing, NULL) == 1 else -1


cdef inline OSSL_PARAM whole_nonce(const uint8_t* nonce) noexcept nogil:
    # length -1 is how OpenSSL's own EVP_CTRL_GCM_SET_IV_FIXED says "all of it, as it is"
    return OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, <void*>nonce, <size_t>-1)


cdef inline bint begin_seal(EVP_CIPHER_CTX* ctx, const uint8_t* nonce) noexcept nogil:
    cdef OSSL_PARAM params[2]
    if not nonce_by_parameter or not EVP_CIPHER_CTX_is_encrypting(ctx):
        return EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, 1, NULL) == 1
    params[0] = whole_nonce(nonce)
    params[1] = OSSL_PARAM_construct_end()
    return EVP_CIPHER_CTX_set_params(ctx, params) == 1


cdef inline bint begin_open(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* tag) noexcept nogil:
    cdef OSSL_PARAM params[3]
    # the tag goes in with every nonce: without it OpenSSL would compare with the tag of the last message sealed here
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, <void*>tag, TAG_BYTES)
    params[1] = OSSL_PARAM_construct_end()
    if not nonce_by_parameter or EVP_CIPHER_CTX_is_encrypting(ctx):
        return EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, 0, params) == 1
    params[1] = whole_nonce(nonce)
    params[2] = OSSL_PARAM_construct_end()
    return EVP_CIPHER_CTX_set_params(ctx, params) == 1


cdef int aead_seal(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
                   const uint8_t* plain, size_t n, uint8_t* out, uint8_t* tag) noexcept nogil:
    cdef OSSL_PARAM params[2]
    cdef int written
    if aad_len > INT_MAX or n > INT_MAX or not begin_seal(ctx, nonce):
        return -1
    if aad_len != 0 and EVP_EncryptUpdate(ctx, NULL, &written, aad, <int>aad_len) != 1:
        return -1
    if n != 0 and EVP_EncryptUpdate(ctx, out, &written, plain, <int>n) != 1:
        return -1
    if EVP_Cipher(ctx, NULL, NULL, 0) < 0:
        return -1
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, TAG_BYTES)
    params[1] = OSSL_PARAM_construct_end()
    return 0 if EVP_CIPHER_CTX_get_params(ctx, params) == 1 else -1


cdef int open_unchecked(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
                        const uint8_t* sealed, size_t n, const uint8_t* tag, uint8_t* out) noexcept nogil:
    cdef int written
    if not begin_open(ctx, nonce, tag):
        return -1
    if aad_len != 0 and EVP_DecryptUpdate(ctx, NULL, &written, aad, <int>aad_len) != 1:
        return -1
    if n != 0 and EVP_DecryptUpdate(ctx, out, &written, sealed, <int>n) != 1:
        return -1
    return 0 if EVP_Cipher(ctx, NULL, NULL, 0) >= 0 else -1


cdef int aead_open(EVP_CIPHER_CTX* ctx, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
                   const uint8_t* sealed, size_t n, const uint8_t* tag, uint8_t* out) noexcept nogil:
    if aad_len > INT_MAX or n > INT_MAX:
        return -1
    if open_unchecked(ctx, nonce, aad, aad_len, sealed, n, tag, out) == 0:
        return 0
    secret_wipe(out, n)
    return -1


# Random numbers: OpenSSL's CTR-DRBG (NIST SP 800-90A), one a thread, seeded by the operating system

cdef int random_bytes(uint8_t* out, size_t n) noexcept nogil:
    return 0 if n <= INT_MAX and RAND_bytes(out, <int>n) == 1 else -1


cdef void nonce_pool_init(NoncePool* pool) noexcept nogil:
    pool.used = NONCE_POOL_BYTES


cdef int nonce_next(NoncePool* pool, uint8_t* out) noexcept nogil:
    if pool.used == NONCE_POOL_BYTES:
        if random_bytes(pool.bytes, NONCE_POOL_BYTES) != 0:
            return -1
        pool.used = 0
    memcpy(out, pool.bytes + pool.used, NONCE_BYTES)
    pool.used += NONCE_BYTES
    return 0


# HMAC-SHA-256

cdef EVP_MAC_CTX* mac_new() noexcept nogil:
    cdef EVP_MAC_CTX* ctx = EVP_MAC_CTX_new(hmac)
    cdef OSSL_PARAM params[2]
    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, b"SHA256", 0)
    params[1] = OSSL_PARAM_construct_end()
    if ctx != NULL and EVP_MAC_CTX_set_params(ctx, params) != 1:
        EVP_MAC_CTX_free(ctx)
        return NULL
    return ctx


cdef void mac_free(EVP_MAC_CTX* ctx) noexcept nogil:
    EVP_MAC_CTX_free(ctx)


cdef int mac_rekey(EVP_MAC_CTX* ctx, const uint8_t* key) noexcept nogil:
    return 0 if EVP_MAC_init(ctx, key, KEY_BYTES, NULL) == 1 else -1


cdef int blind_index(EVP_MAC_CTX* ctx, const uint8_t* context, size_t context_len,
                     const uint8_t* value, size_t n, uint8_t* out) noexcept nogil:
    cdef uint8_t length[4]
    cdef size_t written
    if context_len > INT_MAX:
        return -1
    length[0] = <uint8_t>(context_len >> 24)
    length[1] = <uint8_t>(context_len >> 16)
    length[2] = <uint8_t>(context_len >> 8)
    length[3] = <uint8_t>context_len
    if (
        EVP_MAC_init(ctx, NULL, 0, NULL) == 1
        and EVP_MAC_update(ctx, length, 4) == 1
        and EVP_MAC_update(ctx, context, context_len) == 1
        and EVP_MAC_update(ctx, value, n) == 1
        and EVP_MAC_final(ctx, out, &written, MAC_BYTES) == 1
    ):
        return 0
    return -1


# For Python: the same functions as the workers'

cdef int require_ready() except -1:
    if not ready:
        raise RuntimeError("no cryptography yet: call fastpath.memory.open() first")
    if not arena_usable():
        raise RuntimeError("this is a child process; keys stay with the process that called fastpath.memory.open()")
    return 0


cdef class AesGcm256:
    cdef EVP_CIPHER_CTX* ctx

    def __cinit__(self, Bytes key not None):
        require_ready()
        if key.shape[0] != KEY_BYTES:
            raise ValueError("an AES-256 key has 32 bytes")
        self.ctx = aead_new()
        if self.ctx == NULL or aead_rekey(self.ctx, &key[0], True) != 0:
            raise MemoryError("the secret arena has no room for another key schedule")

    def __dealloc__(self):
        if self.ctx != NULL and arena_usable():
            aead_free(self.ctx)

    def seal(self, Bytes nonce not None, Bytes aad not None, Bytes plain not None):
        cdef Py_ssize_t n = plain.shape[0]
        cdef bytes out
        cdef uint8_t* to
        require_ready()
        if nonce.shape[0] != NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        if n > INT_MAX or aad.shape[0] > INT_MAX:
            raise ValueError("plaintext and associated data have at most 2**31 - 1 bytes")
        out = PyBytes_FromStringAndSize(NULL, n + TAG_BYTES)
        to = <uint8_t*>PyBytes_AS_STRING(out)
        if aead_seal(self.ctx, &nonce[0], &aad[0], aad.shape[0], &plain[0], n, to, to + n) != 0:
            raise MemoryError("OpenSSL could not seal")
        return out

    def open(self, Bytes nonce not None, Bytes aad not None, Bytes sealed not None):
        cdef Py_ssize_t n = sealed.shape[0] - TAG_BYTES
        cdef bytes out
        require_ready()
        if nonce.shape[0] != NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        if n > INT_MAX or aad.shape[0] > INT_MAX:
            raise ValueError("sealed and associated data have at most 2**31 - 1 bytes")
        if n < 0:
            raise TagMismatch("sealed bytes end with a tag of 16 bytes")
        out = PyBytes_FromStringAndSize(NULL, n)
        if aead_open(self.ctx, &nonce[0], &aad[0], aad.shape[0], &sealed[0], n, &sealed[n],
                     <uint8_t*>PyBytes_AS_STRING(out)) != 0:
            raise TagMismatch("not sealed with this key, nonce and associated data")
        return out


cdef class BlindIndexKey:
    cdef EVP_MAC_CTX* ctx

    def __cinit__(self, Bytes key not None):
        require_ready()
        if key.shape[0] != KEY_BYTES:
            raise ValueError("a blind index key has 32 bytes")
        self.ctx = mac_new()
        if self.ctx == NULL or mac_rekey(self.ctx, &key[0]) != 0:
            raise MemoryError("the secret arena has no room for another key")

    def __dealloc__(self):
        if self.ctx != NULL and arena_usable():
            mac_free(self.ctx)

    def index(self, Bytes context not None, Bytes value not None):
        cdef uint8_t out[MAC_BYTES]
        require_ready()
        if context.shape[0] > INT_MAX:
            raise ValueError("a context has at most 2**31 - 1 bytes")
        if blind_index(self.ctx, &context[0], context.shape[0], &value[0], value.shape[0], out) != 0:
            raise MemoryError("the secret arena has no room for a digest")
        return PyBytes_FromStringAndSize(<char*>out, MAC_BYTES)
