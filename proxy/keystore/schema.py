"""The tables, for every dialect. docs/spec/keystore.md says what each column means and what is authenticated.

A change here is a new file in migrations/versions and a new SCHEMA_VERSION; a test holds the two to the same schema.
"""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    event,
    text,
)

SCHEMA_VERSION: Final = "0001"

NO_PARTITION: Final = ""
"""Stored for a scope without a partition (no partition is empty): in a unique constraint NULLs would all differ."""


class KeyId(TypeDecorator[int]):
    """A data key id: unsigned 64 bits, stored as the signed integer of the same bits: databases have no wider."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return value if value is None or value < 1 << 63 else value - (1 << 64)

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else value & ((1 << 64) - 1)


class Utc(TypeDecorator[datetime]):
    """An instant. Aware in Python; UTC in the database, where SQLite would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

keyrings = Table(
    "keyrings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("partitioned", Boolean(create_constraint=False), nullable=False),
    Column("index_bits", SmallInteger, nullable=False),
    Column("suite", SmallInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    CheckConstraint("index_bits BETWEEN 8 AND 256 AND index_bits % 8 = 0", name="index_bits"),
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("id", KeyId, primary_key=True, autoincrement=False),
    Column("keyring_id", Integer, ForeignKey(keyrings.c.id), nullable=False),
    Column("partition", String(128), nullable=False),
    Column("purpose", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("messages_leased", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("keyring_id", "partition", "purpose", "generation"),
    CheckConstraint("purpose IN (0, 1)", name="purpose"),
    CheckConstraint("generation >= 1", name="generation"),
    CheckConstraint("state IN ('active', 'decrypt_only', 'disabled', 'destroyed')", name="state"),
    CheckConstraint("messages_leased BETWEEN 0 AND 4294967296", name="messages_leased"),
)

ONE_ACTIVE = text("state = 'active'")
_one_active_index = Index(
    "uq_data_keys_active",
    data_keys.c.keyring_id,
    data_keys.c.partition,
    data_keys.c.purpose,
    unique=True,
    sqlite_where=ONE_ACTIVE,
)


@event.listens_for(data_keys, "before_create")
def _one_active_on_postgresql(table: Table, connection: Connection, **_: object) -> None:
    # `postgresql_where=` above would load that dialect, 2.4 MB of resident memory, into every sidecar on SQLite
    if connection.dialect.name == "postgresql":
        _one_active_index.dialect_options["postgresql"]["where"] = ONE_ACTIVE


wraps = Table(
    "wraps",
    metadata,
    Column("data_key_id", KeyId, ForeignKey(data_keys.c.id, ondelete="CASCADE"), primary_key=True),
    Column("provider", String(64), primary_key=True),
    Column("kek", String(512), primary_key=True),
    Column("mechanism", String(64), nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("created_at", Utc, nullable=False),
)

schema_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
