"""MessagePack as far as docs/spec/wire.md allows it. Readers take (p, end), never read at or past end, and return the
next position or NULL; writers return the bytes written. Inline: they are the innermost loop."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #define ks_swap16 __builtin_bswap16
    #define ks_swap32 __builtin_bswap32
    #define ks_swap64 __builtin_bswap64
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "Keyside's codec is written for little-endian machines"
    #endif
    """
    uint16_t swap16 "ks_swap16"(uint16_t v)
    uint32_t swap32 "ks_swap32"(uint32_t v)
    uint64_t swap64 "ks_swap64"(uint64_t v)


cdef inline uint16_t be16(const uint8_t* p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return swap16(v)


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return swap32(v)


cdef inline uint64_t be64(const uint8_t* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return swap64(v)


cdef inline void put_be32(uint8_t* p, uint32_t v) noexcept nogil:
    v = swap32(v)
    memcpy(p, &v, 4)


cdef inline void put_be64(uint8_t* p, uint64_t v) noexcept nogil:
    v = swap64(v)
    memcpy(p, &v, 8)


cdef inline const uint8_t* read_uint(const uint8_t* p, const uint8_t* end, uint64_t* value) noexcept nogil:
    """An unsigned integer in any of its five encodings."""
    cdef size_t room = end - p
    if room < 1:
        return NULL
    cdef uint8_t head = p[0]
    if head < 0x80:
        value[0] = head
        return p + 1
    if head == 0xCC and room >= 2:
        value[0] = p[1]
        return p + 2
    if head == 0xCD and room >= 3:
        value[0] = be16(p + 1)
        return p + 3
    if head == 0xCE and room >= 5:
        value[0] = be32(p + 1)
        return p + 5
    if head == 0xCF and room >= 9:
        value[0] = be64(p + 1)
        return p + 9
    return NULL


cdef inline const uint8_t* read_array(const uint8_t* p, const uint8_t* end, uint32_t* count) noexcept nogil:
    """An array's head; its elements follow."""
    cdef size_t room = end - p
    if room < 1:
        return NULL
    cdef uint8_t head = p[0]
    if head & 0xF0 == 0x90:
        count[0] = head & 0x0F
        return p + 1
    if head == 0xDC and room >= 3:
        count[0] = be16(p + 1)
        return p + 3
    if head == 0xDD and room >= 5:
        count[0] = be32(p + 1)
        return p + 5
    return NULL


cdef inline const uint8_t* read_blob(const uint8_t* p, const uint8_t* end,
                                     const uint8_t** data, uint32_t* length) noexcept nogil:
    """bin, str or nil; data is NULL for nil, and never for an empty value."""
    cdef size_t room = end - p
    cdef uint32_t n
    data[0] = NULL
    length[0] = 0
    if room < 1:
        return NULL
    cdef uint8_t head = p[0]
    if (head == 0xC4 or head == 0xD9) and room >= 2:
        n = p[1]
        p += 2
        room -= 2
    elif head & 0xE0 == 0xA0:
        n = head & 0x1F
        p += 1
        room -= 1
    elif head == 0xC0:
        return p + 1
    elif (head == 0xC5 or head == 0xDA) and room >= 3:
        n = be16(p + 1)
        p += 3
        room -= 3
    elif (head == 0xC6 or head == 0xDB) and room >= 5:
        n = be32(p + 1)
        p += 5
        room -= 5
    else:
        return NULL
    if n > room:
        return NULL
    data[0] = p
    length[0] = n
    return p + n


cdef inline bint is_str(uint8_t head) noexcept nogil:
    return head & 0xE0 == 0xA0 or 0xD9 <= head <= 0xDB


cdef inline bint is_array(uint8_t head) noexcept nogil:
    return head & 0xF0 == 0x90 or head == 0xDC or head == 0xDD


cdef inline size_t put_uint32(uint8_t* p, uint32_t v) noexcept nogil:
    """At most 5 bytes, shortest form."""
    if v < 0x80:
        p[0] = <uint8_t>v
        return 1
    if v < 0x100:
        p[0] = 0xCC
        p[1] = <uint8_t>v
        return 2
    if v < 0x10000:
        p[0] = 0xCD
        p[1] = <uint8_t>(v >> 8)
        p[2] = <uint8_t>v
        return 3
    p[0] = 0xCE
    put_be32(p + 1, v)
    return 5


cdef inline size_t put_array(uint8_t* p, uint32_t count) noexcept nogil:
    """At most 5 bytes, shortest form."""
    if count < 16:
        p[0] = <uint8_t>(0x90 | count)
        return 1
    if count < 0x10000:
        p[0] = 0xDC
        p[1] = <uint8_t>(count >> 8)
        p[2] = <uint8_t>count
        return 3
    p[0] = 0xDD
    put_be32(p + 1, count)
    return 5


cdef inline size_t bin_head(uint32_t n) noexcept nogil:
    """Size of the head that put_bin writes."""
    return 2 if n < 0x100 else (3 if n < 0x10000 else 5)


cdef inline size_t put_bin(uint8_t* p, uint32_t n) noexcept nogil:
    """The head of a bin of n bytes, at most 5 bytes, shortest form."""
    if n < 0x100:
        p[0] = 0xC4
        p[1] = <uint8_t>n
        return 2
    if n < 0x10000:
        p[0] = 0xC5
        p[1] = <uint8_t>(n >> 8)
        p[2] = <uint8_t>n
        return 3
    p[0] = 0xC6
    put_be32(p + 1, n)
    return 5


cdef inline size_t put_str(uint8_t* p, uint32_t n) noexcept nogil:
    """The head of a str of n < 256 bytes, shortest form."""
    if n < 32:
        p[0] = <uint8_t>(0xA0 | n)
        return 1
    p[0] = 0xD9
    p[1] = <uint8_t>n
    return 2
