"""The keystore as the rest of the control plane sees it: awaitable, typed, and raising KeystoreError alone."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine, make_url

from proxy.keyring import DEFAULT_INDEX_BITS, SUITE_AES_256_GCM, DataKey, Keyring, KeyState, Purpose, Scope, utc_now
from proxy.keystore import statements
from proxy.keystore.grouping import GroupedTransactions
from proxy.keystore.instance import InstanceLock
from proxy.keystore.sqlite import WRITES, SqliteFile
from proxy.keystore.versions import bring_up_to_date, found_version

DEFAULT_BUSY_TIMEOUT = 2.0
"""Seconds to wait for another process's lock: well under the time that requests may wait for a data key."""


def file_of(url: str) -> Path:
    """The file of the keystore at a database URL."""
    return Path(make_url(url).database or "")


class Keystore:
    """Keyrings, data keys and their wraps, on disk. Made by `open`.

    Every write returns once it is durable: committed and flushed. Reads see every write that has returned. Methods may
    be called from any event loop. Besides what each says, all raise KeystoreUnavailable, KeystoreMissing,
    KeystoreCorrupt and KeystoreClosed.
    """

    def __init__(self, database: SqliteFile, engine: Engine, resources: ExitStack) -> None:
        self._database = database
        self._engine = engine
        self._resources = resources
        self._writer = GroupedTransactions("keystore-write", self._begin_writing, savepoints=True)
        self._reading = _Held(database, engine)
        self._reader = GroupedTransactions("keystore-read", self._reading.begin, savepoints=False)

    @classmethod
    def open(
        cls, url: str, *, create: bool = False, exclusive: bool = True, busy_timeout: float = DEFAULT_BUSY_TIMEOUT
    ) -> Self:
        """Open the keystore at a database URL (`Config.keystore.location`); blocks for the time of a few file accesses.

        `create`: make it where it is missing. `exclusive`: hold the file against other instances. An older schema is
        brought up to date. Raises KeystoreUnusable, KeystoreUnavailable or KeystoreCorrupt.
        """
        database = SqliteFile(file_of(url).resolve(), busy_timeout)
        with ExitStack() as resources:
            if create:
                database.create()
            database.check_custody()
            if exclusive:
                resources.callback(InstanceLock(database.path).release)
            engine = database.engine()
            resources.callback(engine.dispose)
            with _writing(database, engine) as connection:
                database.search_damage(connection)
                bring_up_to_date(connection, create=create)
            return cls(database, engine, resources.pop_all())

    async def create_keyring(
        self, name: str, *, partitioned: bool = False, index_bits: int = DEFAULT_INDEX_BITS
    ) -> Keyring:
        """Make a keyring. Raises KeyringExists; InvalidName or InvalidKeyring (proxy.keyring) for bad properties."""
        keyring = Keyring(name, partitioned, index_bits, SUITE_AES_256_GCM, utc_now())
        return await self._writer.run(lambda connection: statements.insert_keyring(connection, keyring))

    async def keyring(self, name: str) -> Keyring | None:
        """The keyring of that name, or None."""
        return await self._reader.run(lambda connection: statements.read_keyring(connection, name))

    async def keyrings(self) -> list[Keyring]:
        """All keyrings, by name."""
        return await self._reader.run(statements.read_keyrings)

    async def data_key_counts(self) -> dict[str, int]:
        """How many data keys, of any state, each keyring has."""
        return await self._reader.run(statements.count_keys)

    async def key(self, key_id: int) -> DataKey | None:
        """The data key of that id with its wraps, or None."""
        return await self._reader.run(lambda connection: statements.read_key(connection, key_id))

    async def any_key(self, provider: str) -> DataKey | None:
        """Some data key that still has its wraps, one of `provider` if there is any; None when there are no data keys.

        For finding out whether that provider can unwrap what is here.
        """
        return await self._reader.run(lambda connection: statements.read_any_key(connection, provider))

    async def latest_key(self, scope: Scope, purpose: Purpose) -> DataKey | None:
        """The scope's data key of the highest generation, whatever its state; None when it never had one."""
        return await self._reader.run(lambda connection: statements.read_latest_key(connection, scope, purpose))

    async def active_key(self, scope: Scope, purpose: Purpose) -> DataKey | None:
        """The scope's active data key, or None."""
        latest = await self.latest_key(scope, purpose)
        return latest if latest is not None and latest.state is KeyState.ACTIVE else None

    async def insert_active(self, key: DataKey) -> None:
        """Store a new active data key, its wraps and its first lease, demoting the former active one to decrypt-only.

        Raises AlreadyActive when another writer made that generation first, KeyIdTaken, KeyringUnknown.
        """
        await self._writer.run(lambda connection: statements.insert_active(connection, key))

    async def lease(self, key_id: int, messages: int, limit: int) -> int:
        """Take up to `messages` from what the key has left of `limit`; returns how many, 0 when spent or not active."""
        return await self._writer.run(lambda connection: statements.lease(connection, key_id, messages, limit))

    async def set_state(self, key_id: int, state: KeyState) -> bool:
        """Move a data key to another state; False when there is none of that id."""
        return await self._writer.run(lambda connection: statements.set_state(connection, key_id, state))

    async def check(self) -> None:
        """Return when the keystore can be read and its write lock be had; raises what stands in the way."""
        await self._reader.run(found_version)
        await self._writer.run(lambda connection: None)

    def stats(self) -> dict[str, int]:
        """Counters since the keystore was opened."""
        return {
            "writes": self._writer.jobs,
            "write_transactions": self._writer.transactions,
            "reads": self._reader.jobs,
            "read_transactions": self._reader.transactions,
        }

    async def close(self) -> None:
        """Finish what was asked for, then let go of the file. Idempotent."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._reader.close()
        self._reading.close()
        self._resources.close()

    @contextmanager
    def _begin_writing(self) -> Iterator[Connection]:
        self._database.check_in_place()
        with _writing(self._database, self._engine) as connection:
            yield connection


class _Held:
    """The connection that the reading thread keeps: taking one from the pool costs as much as reading a key."""

    def __init__(self, database: SqliteFile, engine: Engine) -> None:
        self._database = database
        self._engine = engine
        self._connection: Connection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Reads, each a transaction by itself. A connection on which anything failed is not used again."""
        with self._database.failures():
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(**{WRITES: False})
            try:
                with self._connection.begin():
                    yield self._connection
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the connection back. In the reading thread, or after its end."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


@contextmanager
def _writing(database: SqliteFile, engine: Engine) -> Iterator[Connection]:
    with database.failures(), engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        with connection.begin():
            yield connection
