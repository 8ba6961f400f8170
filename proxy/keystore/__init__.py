"""Where keyrings, data keys and wraps are kept: docs/spec/keystore.md. Nothing in it is usable without the HSM or KMS.

`errors` draws the tree of what it raises.
"""

from proxy.keystore.errors import (
    AlreadyActive,
    AnotherInstance,
    KeyIdTaken,
    KeyringExists,
    KeyringUnknown,
    KeystoreClosed,
    KeystoreConflict,
    KeystoreCorrupt,
    KeystoreError,
    KeystoreExposed,
    KeystoreFailing,
    KeystoreFull,
    KeystoreLocked,
    KeystoreMissing,
    KeystoreReadOnly,
    KeystoreTooNew,
    KeystoreUnavailable,
    KeystoreUnusable,
)
from proxy.keystore.store import Keystore, file_of

__all__ = [
    "AlreadyActive",
    "AnotherInstance",
    "KeyIdTaken",
    "KeyringExists",
    "KeyringUnknown",
    "Keystore",
    "KeystoreClosed",
    "KeystoreConflict",
    "KeystoreCorrupt",
    "KeystoreError",
    "KeystoreExposed",
    "KeystoreFailing",
    "KeystoreFull",
    "KeystoreLocked",
    "KeystoreMissing",
    "KeystoreReadOnly",
    "KeystoreTooNew",
    "KeystoreUnavailable",
    "KeystoreUnusable",
    "file_of",
]
