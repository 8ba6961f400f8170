"""What a keystore can answer instead of a result.

    KeystoreError
    ├── KeystoreUnusable           it cannot be opened at all
    │   ├── KeystoreMissing        no file there
    │   ├── KeystoreExposed        others may write the file or its folder
    │   ├── AnotherInstance        another sidecar has it open
    │   ├── KeystoreTooNew         written by a newer release
    │   └── KeystoreClosed         used after close
    ├── KeystoreUnavailable        it may work again without a change to the data; `retryable`
    │   ├── KeystoreLocked         another process holds its lock
    │   ├── KeystoreReadOnly       it cannot be written
    │   ├── KeystoreFull           no space left
    │   └── KeystoreFailing        the operating system refuses to read or write it
    ├── KeystoreCorrupt            its contents are damaged
    └── KeystoreConflict           it refuses this one change
        ├── KeyringExists
        ├── KeyringUnknown
        ├── AlreadyActive          another writer made this generation first
        └── KeyIdTaken             a data key with this id exists

Each message says what to do next. None holds the contents of a wrap.
"""

from typing import ClassVar


class KeystoreError(Exception):
    """Base of everything that a keystore raises by design."""

    retryable: ClassVar[bool] = False


class KeystoreUnusable(KeystoreError):
    """The keystore cannot be opened."""


class KeystoreMissing(KeystoreUnusable):
    """There is no keystore where the configuration says."""


class KeystoreExposed(KeystoreUnusable):
    """Somebody else may change the keystore's file, or replace it."""


class AnotherInstance(KeystoreUnusable):
    """Another process has this keystore open for itself; the message names its pid."""


class KeystoreTooNew(KeystoreUnusable):
    """The schema is newer than this release knows."""


class KeystoreClosed(KeystoreUnusable):
    """The keystore was closed."""


class KeystoreUnavailable(KeystoreError):
    """The database cannot do it now."""

    retryable = True


class KeystoreLocked(KeystoreUnavailable):
    """Another process held the database's lock for longer than the busy timeout."""


class KeystoreReadOnly(KeystoreUnavailable):
    """The database cannot be written."""


class KeystoreFull(KeystoreUnavailable):
    """The disk, or the database's own limit, is full."""


class KeystoreFailing(KeystoreUnavailable):
    """The operating system refuses to open, read or write the database."""


class KeystoreCorrupt(KeystoreError):
    """The contents of the database are damaged, or it is no keystore."""


class KeystoreConflict(KeystoreError):
    """The change contradicts what is stored."""


class KeyringExists(KeystoreConflict):
    """A keyring of that name exists."""


class KeyringUnknown(KeystoreConflict):
    """No keyring has that name."""


class AlreadyActive(KeystoreConflict):
    """Another writer made an active data key for this scope, purpose and generation first: read it."""


class KeyIdTaken(KeystoreConflict):
    """Two data keys drew the same 64 random bits: draw again."""
