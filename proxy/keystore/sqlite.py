"""The SQLite dialect: how to connect, what each failure means, and the file it lives in. No other module knows it.

Write-ahead log and synchronous=FULL: a transaction that was committed survives the loss of power.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from proxy.keystore.errors import (
    KeystoreCorrupt,
    KeystoreError,
    KeystoreExposed,
    KeystoreFailing,
    KeystoreFull,
    KeystoreLocked,
    KeystoreMissing,
    KeystoreReadOnly,
)

CHECKED_AT_START_BYTES: Final = 64 << 20
"""Files up to this size are searched for damage when opened; larger ones would hold the start-up up for seconds."""

WRITES: Final = "keyside_writes"
"""Execution option of a connection. True: it takes the write lock when its transaction begins, not at its first change.
False: each statement is a transaction of its own, which is all that a read of one statement needs."""


class SqliteFile:
    """The database file at `path`, checked and opened by `engine`."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        """`busy_timeout` in seconds: how long to wait for another process's lock."""
        self.path = path
        self._busy_timeout = busy_timeout
        self._identity: tuple[int, int] | None = None

    def check_custody(self) -> None:
        """Raise KeystoreMissing, KeystoreExposed, KeystoreReadOnly unless it is there, ours alone and writable."""
        folder = self.path.parent
        try:
            _refuse_exposed(folder, folder.stat())
            found = self.path.stat()
        except FileNotFoundError as error:
            raise KeystoreMissing(
                f"there is no keystore at {self.path}: mount its volume, restore it from a backup, "
                "or, for a new installation, make it with `keyside init`"
            ) from error
        except OSError as error:
            raise KeystoreFailing(f"the keystore at {self.path} cannot be looked at: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise KeystoreCorrupt(f"{self.path} is not a file: point keystore.path at the keystore's file")
        _refuse_exposed(self.path, found)
        for place in (folder, self.path):
            if not os.access(place, os.W_OK, effective_ids=True):
                raise KeystoreReadOnly(
                    f"{place} cannot be written by uid {os.geteuid()}: change its owner or mode, or remount "
                    "it read-write"
                )
        self._identity = (found.st_dev, found.st_ino)

    def create(self) -> None:
        """Make the empty file, mode 0600, and its folder, mode 0700, where they are missing. Raises KeystoreFailing."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            _flush_folder(self.path.parent)
        except OSError as error:
            raise KeystoreFailing(f"the keystore cannot be made at {self.path}: {error.strerror}") from error

    def engine(self) -> Engine:
        """Connections to the file, with the settings that durability and foreign keys need."""
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": self._busy_timeout},
            hide_parameters=True,  # the blob of a wrap has no business in a message
            pool_size=2,
            max_overflow=0,
        )
        event.listen(engine, "connect", _settings)
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what the database driver raises into KeystoreError."""
        try:
            yield
        except DBAPIError as error:
            raise self._failure(error.orig) from error

    def check_in_place(self) -> None:
        """Raise KeystoreMissing when the file was moved or replaced since it was opened: commits would be lost."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise KeystoreMissing(
                f"the keystore's file {self.path} was taken away while in use: restore it and restart"
            ) from error
        if (found.st_dev, found.st_ino) != self._identity:
            raise KeystoreMissing(
                f"the keystore's file {self.path} was replaced while in use: restart to use the new one"
            )

    def search_damage(self, connection: Connection) -> None:
        """Raise KeystoreCorrupt when a small database's pages do not fit together."""
        if self.path.stat().st_size > CHECKED_AT_START_BYTES:
            return
        if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise KeystoreCorrupt(_DAMAGED.format(path=self.path))

    def _failure(self, error: BaseException | None) -> KeystoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        kind, advice = _MEANING.get(code & 0xFF, (KeystoreFailing, _FAILING))
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return kind(f"{advice.format(path=self.path)} [{name}]")


_DAMAGED: Final = (
    "the keystore {path} is damaged or no keystore: stop the sidecar, keep a copy of the file, restore from a backup"
)
_FAILING: Final = (
    "the keystore {path} cannot be read or written: look for a full or failing disk, a quota, a file-size limit "
    "(ulimit -f) or changed permissions"
)
_MEANING: Final[dict[int, tuple[type[KeystoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (
        KeystoreLocked,
        "the keystore {path} is locked by another process (a backup, an sqlite3 shell?): let it finish or end it",
    ),
    sqlite3.SQLITE_LOCKED: (KeystoreLocked, "the keystore {path} is locked by another connection: try again"),
    sqlite3.SQLITE_READONLY: (
        KeystoreReadOnly,
        "the keystore {path} cannot be written: remount its volume read-write, or give the file back "
        "to the sidecar's uid",
    ),
    sqlite3.SQLITE_FULL: (KeystoreFull, "no space is left for the keystore {path}: free some on its volume"),
    sqlite3.SQLITE_CORRUPT: (KeystoreCorrupt, _DAMAGED),
    sqlite3.SQLITE_NOTADB: (KeystoreCorrupt, _DAMAGED),
}


def _refuse_exposed(place: Path, found: os.stat_result) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise KeystoreExposed(
            f"{place} belongs to uid {found.st_uid}, not to uid {os.geteuid()} that runs the sidecar: "
            "chown it, or run as that user"
        )
    if found.st_mode & 0o022:
        raise KeystoreExposed(
            f"{place} may be written by others (mode {stat.S_IMODE(found.st_mode):04o}): chmod go-w it"
        )


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settings(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin and end where we say: the driver would commit around DDL
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    if writes is not False:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
