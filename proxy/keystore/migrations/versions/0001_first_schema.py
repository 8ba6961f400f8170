"""Keyrings, data keys and wraps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "keyrings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("partitioned", sa.Boolean, nullable=False),
        sa.Column("index_bits", sa.SmallInteger, nullable=False),
        sa.Column("suite", sa.SmallInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("index_bits BETWEEN 8 AND 256 AND index_bits % 8 = 0", name="ck_keyrings_index_bits"),
        sa.PrimaryKeyConstraint("id", name="pk_keyrings"),
        sa.UniqueConstraint("name", name="uq_keyrings_name"),
    )
    op.create_table(
        "data_keys",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("keyring_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.String(128), nullable=False),
        sa.Column("purpose", sa.SmallInteger, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("messages_leased", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("purpose IN (0, 1)", name="ck_data_keys_purpose"),
        sa.CheckConstraint("generation >= 1", name="ck_data_keys_generation"),
        sa.CheckConstraint("state IN ('active', 'decrypt_only', 'disabled', 'destroyed')", name="ck_data_keys_state"),
        sa.CheckConstraint("messages_leased BETWEEN 0 AND 4294967296", name="ck_data_keys_messages_leased"),
        sa.PrimaryKeyConstraint("id", name="pk_data_keys"),
        sa.ForeignKeyConstraint(["keyring_id"], ["keyrings.id"], name="fk_data_keys_keyring_id"),
        sa.UniqueConstraint(
            "keyring_id",
            "partition",
            "purpose",
            "generation",
            name="uq_data_keys_keyring_id_partition_purpose_generation",
        ),
    )
    one_active = sa.text("state = 'active'")
    op.create_index(
        "uq_data_keys_active",
        "data_keys",
        ["keyring_id", "partition", "purpose"],
        unique=True,
        sqlite_where=one_active,
        postgresql_where=one_active,
    )
    op.create_table(
        "wraps",
        sa.Column("data_key_id", sa.BigInteger, nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("kek", sa.String(512), nullable=False),
        sa.Column("mechanism", sa.String(64), nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("data_key_id", "provider", "kek", name="pk_wraps"),
        sa.ForeignKeyConstraint(["data_key_id"], ["data_keys.id"], name="fk_wraps_data_key_id", ondelete="CASCADE"),
    )
