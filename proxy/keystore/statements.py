"""What is read and written, inside a transaction that the caller began. No dialect's own SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from proxy.keyring import DataKey, Keyring, KeyState, Purpose, Scope, Wrap
from proxy.keystore.errors import AlreadyActive, KeyIdTaken, KeyringExists, KeyringUnknown, KeystoreCorrupt
from proxy.keystore.plans import Plan
from proxy.keystore.schema import NO_PARTITION, data_keys, keyrings, wraps

_KEYRING = select(
    keyrings.c.name, keyrings.c.partitioned, keyrings.c.index_bits, keyrings.c.suite, keyrings.c.created_at
)
_KEY = (
    select(
        data_keys.c.id,
        keyrings.c.name.label("keyring"),
        data_keys.c.partition,
        data_keys.c.purpose,
        data_keys.c.state,
        data_keys.c.generation,
        data_keys.c.messages_leased,
        data_keys.c.created_at,
        wraps.c.provider,
        wraps.c.kek,
        wraps.c.mechanism,
        wraps.c.blob,
        wraps.c.created_at.label("wrapped_at"),
    )
    .join_from(data_keys, keyrings, data_keys.c.keyring_id == keyrings.c.id)
    .outerjoin(wraps, wraps.c.data_key_id == data_keys.c.id)
    .order_by(wraps.c.created_at, wraps.c.provider, wraps.c.kek)
)


# Built once: putting a statement together costs as much as running it. `b_` keeps parameters apart from columns.
_KEYRING_NAMED = _KEYRING.where(keyrings.c.name == bindparam("b_name"))
_KEYRING_ID = select(keyrings.c.id).where(keyrings.c.name == bindparam("b_name"))
_KEY_OF_ID = Plan(_KEY.where(data_keys.c.id == bindparam("b_id")))
_ID_TAKEN = select(data_keys.c.id).where(data_keys.c.id == bindparam("b_id"))
_LATEST_KEY = Plan(
    _KEY.where(
        data_keys.c.id
        == select(data_keys.c.id)
        .join_from(data_keys, keyrings, data_keys.c.keyring_id == keyrings.c.id)
        .where(
            keyrings.c.name == bindparam("b_name"),
            data_keys.c.partition == bindparam("b_partition"),
            data_keys.c.purpose == bindparam("b_purpose"),
        )
        .order_by(data_keys.c.generation.desc())
        .limit(1)
        .scalar_subquery()
    )
)
_DEMOTE = (
    update(data_keys)
    .where(
        data_keys.c.keyring_id == bindparam("b_keyring_id"),
        data_keys.c.partition == bindparam("b_partition"),
        data_keys.c.purpose == bindparam("b_purpose"),
        data_keys.c.state == KeyState.ACTIVE.value,
    )
    .values(state=KeyState.DECRYPT_ONLY.value)
)
_INSERT_KEY = insert(data_keys)
_INSERT_WRAPS = insert(wraps)
_LEASED = (
    select(data_keys.c.messages_leased)
    .where(data_keys.c.id == bindparam("b_id"), data_keys.c.state == KeyState.ACTIVE.value)
    .with_for_update()
)
_SET_LEASED = (
    update(data_keys).where(data_keys.c.id == bindparam("b_id")).values(messages_leased=bindparam("b_messages"))
)


def insert_keyring(connection: Connection, keyring: Keyring) -> Keyring:
    """Store a new keyring. Raises KeyringExists."""
    try:
        connection.execute(
            insert(keyrings).values(
                name=keyring.name,
                partitioned=keyring.partitioned,
                index_bits=keyring.index_bits,
                suite=keyring.suite,
                created_at=keyring.created_at,
            )
        )
    except IntegrityError as error:
        raise KeyringExists(f"a keyring named {keyring.name} exists: use it, or choose another name") from error
    return keyring


def read_keyring(connection: Connection, name: str) -> Keyring | None:
    """The keyring of that name, or None."""
    row = connection.execute(_KEYRING_NAMED, {"b_name": name}).one_or_none()
    return _keyring(row) if row else None


def read_keyrings(connection: Connection) -> list[Keyring]:
    """All keyrings by name."""
    return [_keyring(row) for row in connection.execute(_KEYRING.order_by(keyrings.c.name))]


def count_keys(connection: Connection) -> dict[str, int]:
    """How many data keys of any state and purpose each keyring has, by keyring name."""
    counted = (
        select(keyrings.c.name, func.count(data_keys.c.id))
        .outerjoin_from(keyrings, data_keys, data_keys.c.keyring_id == keyrings.c.id)
        .group_by(keyrings.c.name)
    )
    return {row[0]: row[1] for row in connection.execute(counted)}


def read_key(connection: Connection, key_id: int) -> DataKey | None:
    """The data key of that id with all its wraps, or None."""
    return _data_key(_KEY_OF_ID.rows(connection, b_id=key_id))


def read_latest_key(connection: Connection, scope: Scope, purpose: Purpose) -> DataKey | None:
    """The data key of the highest generation, whatever its state, or None when the scope never had one."""
    partition = scope.partition or NO_PARTITION
    rows = _LATEST_KEY.rows(connection, b_name=scope.keyring, b_partition=partition, b_purpose=int(purpose))
    return _data_key(rows)


def read_any_key(connection: Connection, provider: str) -> DataKey | None:
    """Some data key that still has its wraps, one of `provider` if there is any; or None.

    Whichever is found first: the table may be long.
    """
    wrapped = select(wraps.c.data_key_id).where(wraps.c.provider == provider).limit(1).scalar_subquery()
    whatever = select(data_keys.c.id).where(data_keys.c.state != KeyState.DESTROYED.value).limit(1).scalar_subquery()
    found = connection.execute(_KEY.where(data_keys.c.id == func.coalesce(wrapped, whatever))).all()
    return _data_key([tuple(row) for row in found])


def insert_active(connection: Connection, key: DataKey) -> None:
    """Store `key` as its scope's active one and demote the former. Raises KeyringUnknown, AlreadyActive, KeyIdTaken."""
    keyring_id = connection.scalar(_KEYRING_ID, {"b_name": key.scope.keyring})
    if keyring_id is None:
        raise KeyringUnknown(f"no keyring is named {key.scope.keyring}: create it first")
    if connection.scalar(_ID_TAKEN, {"b_id": key.id}) is not None:
        raise KeyIdTaken("a data key with this id exists: draw another id")
    partition = key.scope.partition or NO_PARTITION
    try:
        if key.generation > 1:
            series = {"b_keyring_id": keyring_id, "b_partition": partition, "b_purpose": int(key.purpose)}
            connection.execute(_DEMOTE, series)
        _insert_key(connection, key, keyring_id, partition)
    except IntegrityError as error:
        raise AlreadyActive(
            f"{key.scope} got its data key of generation {key.generation} from another writer"
        ) from error


def lease(connection: Connection, key_id: int, messages: int, limit: int) -> int:
    """Grant an active key up to `messages` of what is left of `limit`, and count them. Returns how many."""
    leased: int | None = connection.scalar(_LEASED, {"b_id": key_id})
    if leased is None:
        return 0
    granted = max(0, min(messages, limit - leased))
    if granted:
        connection.execute(_SET_LEASED, {"b_id": key_id, "b_messages": leased + granted})
    return granted


def set_state(connection: Connection, key_id: int, state: KeyState) -> bool:
    """Move a data key to another state; False when there is none of that id."""
    changed = connection.execute(update(data_keys).where(data_keys.c.id == key_id).values(state=state.value))
    return changed.rowcount == 1


def _insert_key(connection: Connection, key: DataKey, keyring_id: int, partition: str) -> None:
    connection.execute(
        _INSERT_KEY,
        {
            "id": key.id,
            "keyring_id": keyring_id,
            "partition": partition,
            "purpose": int(key.purpose),
            "generation": key.generation,
            "state": KeyState.ACTIVE.value,
            "messages_leased": key.messages_leased,
            "created_at": key.created_at,
        },
    )
    connection.execute(
        _INSERT_WRAPS,
        [
            {
                "data_key_id": key.id,
                "provider": wrap.provider,
                "kek": wrap.kek,
                "mechanism": wrap.mechanism,
                "blob": wrap.blob,
                "created_at": wrap.created_at,
            }
            for wrap in key.wraps
        ],
    )


def _data_key(rows: list[tuple[Any, ...]]) -> DataKey | None:
    """The key of rows of `_KEY`, one for each of its wraps."""
    if not rows:
        return None
    key_id, keyring, partition, purpose, state, generation, leased, created_at = rows[0][:8]
    wrapped = tuple(Wrap(*row[8:]) for row in rows if row[8] is not None)
    with _senseless(f"data key {key_id:016x}"):
        return DataKey(
            id=key_id,
            scope=Scope(keyring, partition or None),
            purpose=Purpose(purpose),
            state=KeyState(state),
            generation=generation,
            messages_leased=leased,
            wraps=wrapped,
            created_at=created_at,
        )


def _keyring(row: Row[str, bool, int, int, datetime]) -> Keyring:
    with _senseless("a keyring"):
        return Keyring(*row)


@contextmanager
def _senseless(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise KeystoreCorrupt(f"the keystore's row of {what} makes no sense: restore it from a backup") from error
