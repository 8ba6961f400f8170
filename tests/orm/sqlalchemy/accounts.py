"""Tables that are written in every odd way: each kind of binding in a column of its own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from keyside.sqlalchemy import BlindIndex, Encrypted
from sqlalchemy import Column, Engine, ForeignKey, Integer, Numeric, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SECRET = "tell-nobody"


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str | None] = mapped_column(String(40), unique=True)
    parent: Mapped[int | None]
    clinic: Mapped[int | None]
    note: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="notes", storage="text"))
    mail: Mapped[str | None] = mapped_column("email", Encrypted(String(100), keyring="notes", storage="text"))
    mail_index: Mapped[bytes | None] = mapped_column("email_index", BlindIndex("email"))
    secret: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="notes", bind="id"))
    shared: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="patients", partition="clinic"))


class Greeting(Base):
    """Its value comes from Python when an application says nothing."""

    __tablename__ = "greetings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(String(40))
    text: Mapped[str | None] = mapped_column(
        Encrypted(String(100), keyring="notes"), default=lambda: "hello", onupdate=lambda: "again"
    )
    text_index: Mapped[bytes | None] = mapped_column(BlindIndex("text"))


class Priced(Base):
    """Keys that have several spellings in Python."""

    __tablename__ = "priced"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    by_id: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="notes", bind="id"))
    by_amount: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="notes", bind=("amount",)))


class Invoice(Base):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    state: Mapped[str | None] = mapped_column(String(40))


renamed = Table(
    "renamed",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("code", String(40), unique=True),
    Column("value_column", Encrypted(String(100), keyring="notes", storage="text", bind="id"), key="value"),
)


def stored(engine: Engine, table: str = "accounts") -> list[dict[str, Any]]:
    """What is in the database, as it is, in the order of the keys."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY id")
        return [dict(row) for row in rows.mappings()]


def shows_nothing(engine: Engine, table: str = "accounts") -> bool:
    rows = repr(
        [{key: bytes(v) if isinstance(v, memoryview) else v for key, v in row.items()} for row in stored(engine, table)]
    )
    return SECRET not in rows.lower()
