"""A worker's cryptography: keyed cipher contexts cached by slot, envelopes (docs/spec/envelope.md), blind indexes."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpath.aead cimport (
    EVP_CIPHER_CTX, KEY_BYTES, aead_free, aead_new, aead_open, aead_rekey, aead_seal, blind_index, mac_free, mac_new,
    mac_rekey, nonce_next, nonce_pool_init,
)
from fastpath.atomics cimport load_acquire_u32
from fastpath.keycache cimport KeyCache
from fastpath.msgpack cimport put_be64
from fastpath.plane cimport CONTEXT_SETS, CONTEXT_WAYS, CONTEXTS, CipherContext, Cryptor
from fastpath.protocol cimport (
    ENVELOPE_MAGIC, ENVELOPE_OVERHEAD, HEADER_BYTES, NONCE_AT, SEALED_AT, SUITE_AES_256_GCM,
)


cdef int cryptor_open(Cryptor* cryptor) noexcept nogil:
    """0, or -1 when the arena is full. Cipher contexts are made when first needed."""
    memset(cryptor, 0, sizeof(Cryptor))
    nonce_pool_init(&cryptor.nonces)
    cryptor.mac = mac_new()
    cryptor.associated[0] = ENVELOPE_MAGIC
    cryptor.associated[1] = SUITE_AES_256_GCM
    return 0 if cryptor.mac != NULL else -1


cdef void cryptor_close(Cryptor* cryptor) noexcept nogil:
    cdef int i
    for i in range(CONTEXTS):
        if cryptor.contexts[i].cipher != NULL:
            aead_free(cryptor.contexts[i].cipher)
    if cryptor.mac != NULL:
        mac_free(cryptor.mac)
    memset(cryptor, 0, sizeof(Cryptor))


cdef EVP_CIPHER_CTX* cryptor_context(Cryptor* cryptor, KeyCache* cache, uint32_t slot, bint sealing) noexcept nogil:
    """A context keyed with a slot's key, and quickest for what it is asked for. Valid until the next acknowledgement.

    NULL when the arena is full.
    """
    cdef uint32_t line = slot % CONTEXT_SETS
    cdef CipherContext* row = &cryptor.contexts[line * CONTEXT_WAYS]
    cdef uint32_t generation = load_acquire_u32(&cache.slots[slot].generation)
    cdef int i
    for i in range(CONTEXT_WAYS):
        if row[i].slot == slot and row[i].generation == generation and generation & 1:
            return row[i].cipher
    cdef CipherContext* place = &row[cryptor.victims[line]]
    cryptor.victims[line] = (cryptor.victims[line] + 1) % CONTEXT_WAYS
    place.generation = 0
    if place.cipher == NULL:
        place.cipher = aead_new()
        if place.cipher == NULL:
            return NULL
    if aead_rekey(place.cipher, cache.keys + <size_t>slot * KEY_BYTES, sealing) != 0:
        return NULL
    place.slot = slot
    # even when the key was just removed: then nobody may find this context again, and the next acknowledgement wipes it
    place.generation = generation
    return place.cipher


cdef void cryptor_forget_removed(Cryptor* cryptor, KeyCache* cache) noexcept nogil:
    """Free (and so wipe) every context whose key was removed."""
    cdef CipherContext* entry
    cdef int i
    for i in range(CONTEXTS):
        entry = &cryptor.contexts[i]
        if entry.cipher != NULL and (not entry.generation & 1
                                     or load_acquire_u32(&cache.slots[entry.slot].generation) != entry.generation):
            aead_free(entry.cipher)
            entry.cipher = NULL
            entry.generation = 0
    if cryptor.mac_generation and (not cryptor.mac_generation & 1 or load_acquire_u32(
            &cache.slots[cryptor.mac_slot].generation) != cryptor.mac_generation):
        mac_free(cryptor.mac)
        cryptor.mac = mac_new()
        cryptor.mac_generation = 0


cdef int cryptor_index(Cryptor* cryptor, KeyCache* cache, uint32_t slot, const uint8_t* context, uint32_t context_len,
                       const uint8_t* value, uint32_t n, uint8_t* out) noexcept nogil:
    """The 32 bytes of an untruncated blind index; 0, or -1."""
    cdef uint32_t generation = load_acquire_u32(&cache.slots[slot].generation)
    if cryptor.mac == NULL:
        cryptor.mac = mac_new()
        if cryptor.mac == NULL:
            return -1
    if not (cryptor.mac_slot == slot and cryptor.mac_generation == generation and generation & 1):
        cryptor.mac_generation = 0
        if mac_rekey(cryptor.mac, cache.keys + <size_t>slot * KEY_BYTES) != 0:
            return -1
        cryptor.mac_slot = slot
        cryptor.mac_generation = generation
    return blind_index(cryptor.mac, context, context_len, value, n, out)


cdef void cryptor_header(Cryptor* cryptor, uint64_t key_id) noexcept nogil:
    put_be64(&cryptor.associated[2], key_id)


cdef size_t cryptor_bind(Cryptor* cryptor, const uint8_t* context, uint32_t n) noexcept nogil:
    # n is at most CONTEXT_MAX: the frame parser checked it
    if n:
        memcpy(&cryptor.associated[HEADER_BYTES], context, n)
    return HEADER_BYTES + n


cdef int envelope_seal(Cryptor* cryptor, EVP_CIPHER_CTX* cipher, size_t associated, const uint8_t* plain, uint32_t n,
                       uint8_t* out) noexcept nogil:
    if nonce_next(&cryptor.nonces, out + NONCE_AT) != 0:
        return -1
    memcpy(out, cryptor.associated, HEADER_BYTES)
    return aead_seal(cipher, out + NONCE_AT, cryptor.associated, associated, plain, n, out + SEALED_AT,
                     out + SEALED_AT + n)


cdef int envelope_open(Cryptor* cryptor, EVP_CIPHER_CTX* cipher, size_t associated, const uint8_t* envelope, uint32_t n,
                       uint8_t* out) noexcept nogil:
    cdef uint32_t sealed = n - ENVELOPE_OVERHEAD
    return aead_open(cipher, envelope + NONCE_AT, cryptor.associated, associated, envelope + SEALED_AT, sealed,
                     envelope + SEALED_AT + sealed, out)


cdef bint is_envelope(const uint8_t* p, uint32_t n) noexcept nogil:
    return n >= ENVELOPE_OVERHEAD and p[0] == ENVELOPE_MAGIC and p[1] == SUITE_AES_256_GCM
