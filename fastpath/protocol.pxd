"""Numbers of docs/spec/wire.md and docs/spec/envelope.md. The specification is the authority."""

cdef enum Op:
    OP_HELLO = 0
    OP_ENCRYPT = 1
    OP_DECRYPT = 2
    OP_BLIND_INDEX = 3
    OP_REENCRYPT = 4
    OP_COUNT = 5

cdef enum Code:
    OK = 0
    PARTIAL = 1
    BAD_REQUEST = 16
    DENIED = 17
    UNKNOWN_KEYRING = 18
    UNKNOWN_KEY = 19
    INVALID_CIPHERTEXT = 20
    KEY_DISABLED = 21
    RATE_LIMITED = 22
    OVERLOADED = 23
    KMS_UNAVAILABLE = 24
    INTERNAL = 25
    SHUTTING_DOWN = 26

cdef enum Purpose:
    FIELD = 0
    INDEX = 1
    PURPOSES = 2

cdef enum:
    ENVELOPE_MAGIC = 0xC1
    SUITE_AES_256_GCM = 0x01
    HEADER_BYTES = 10          # magic, suite, data key id
    NONCE_AT = 10
    SEALED_AT = 22
    ENVELOPE_OVERHEAD = 38     # header, nonce, tag
    KEYRING_MAX = 64
    PARTITION_MAX = 128
    NAME_MAX = 193             # keyring, '/', partition
    CONTEXT_MAX = 65535
    ITEMS_MAX = 131072
    ITEM_GROWTH = 48           # an item's response is at most so many bytes longer than its request
