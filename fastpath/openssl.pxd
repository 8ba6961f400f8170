"""The part of OpenSSL 3's libcrypto that fastpath.aead uses; declarations only. Only that module links the library."""

cdef extern from "<openssl/crypto.h>" nogil:
    ctypedef void* (*CRYPTO_malloc_fn)(size_t n, const char* file, int line) noexcept nogil
    ctypedef void* (*CRYPTO_realloc_fn)(void* p, size_t n, const char* file, int line) noexcept nogil
    ctypedef void (*CRYPTO_free_fn)(void* p, const char* file, int line) noexcept nogil
    ctypedef struct OPENSSL_INIT_SETTINGS
    int CRYPTO_set_mem_functions(CRYPTO_malloc_fn malloc_fn, CRYPTO_realloc_fn realloc_fn, CRYPTO_free_fn free_fn)
    int CRYPTO_memcmp(const void* a, const void* b, size_t n)
    int OPENSSL_init_crypto(unsigned long options, const OPENSSL_INIT_SETTINGS* settings)
    enum:
        OPENSSL_INIT_NO_ATEXIT
        OPENSSL_INIT_NO_LOAD_CONFIG
        OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS

cdef extern from "<openssl/params.h>" nogil:
    ctypedef struct OSSL_PARAM:
        pass
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char* key, void* data, size_t n)
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char* key, char* text, size_t n)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef extern from "<openssl/core_names.h>" nogil:
    const char* OSSL_CIPHER_PARAM_AEAD_TAG
    const char* OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED
    const char* OSSL_MAC_PARAM_DIGEST

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct OSSL_LIB_CTX
    ctypedef struct EVP_CIPHER
    ctypedef struct EVP_CIPHER_CTX
    ctypedef struct EVP_MAC
    ctypedef struct EVP_MAC_CTX
    EVP_CIPHER* EVP_CIPHER_fetch(OSSL_LIB_CTX* library, const char* algorithm, const char* properties)
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* ctx)
    int EVP_CipherInit_ex2(EVP_CIPHER_CTX* ctx, const EVP_CIPHER* cipher, const unsigned char* key,
                           const unsigned char* iv, int enc, const OSSL_PARAM* params)
    int EVP_CIPHER_CTX_is_encrypting(const EVP_CIPHER_CTX* ctx)
    int EVP_CIPHER_CTX_set_params(EVP_CIPHER_CTX* ctx, const OSSL_PARAM* params)
    int EVP_CIPHER_CTX_get_params(EVP_CIPHER_CTX* ctx, OSSL_PARAM* params)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX* ctx, unsigned char* out, int* written, const unsigned char* data, int n)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX* ctx, unsigned char* out, int* written, const unsigned char* data, int n)
    int EVP_Cipher(EVP_CIPHER_CTX* ctx, unsigned char* out, const unsigned char* data, unsigned int n)
    EVP_MAC* EVP_MAC_fetch(OSSL_LIB_CTX* library, const char* algorithm, const char* properties)
    EVP_MAC_CTX* EVP_MAC_CTX_new(EVP_MAC* mac)
    void EVP_MAC_CTX_free(EVP_MAC_CTX* ctx)
    int EVP_MAC_CTX_set_params(EVP_MAC_CTX* ctx, const OSSL_PARAM* params)
    int EVP_MAC_init(EVP_MAC_CTX* ctx, const unsigned char* key, size_t n, const OSSL_PARAM* params)
    int EVP_MAC_update(EVP_MAC_CTX* ctx, const unsigned char* data, size_t n)
    int EVP_MAC_final(EVP_MAC_CTX* ctx, unsigned char* out, size_t* n, size_t room)

cdef extern from "<openssl/rand.h>" nogil:
    int RAND_bytes(unsigned char* out, int n)
