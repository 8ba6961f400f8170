"""SQLAlchemy's tables: the same three texts plain, encrypted by Keyside, and encrypted value by value."""

from __future__ import annotations

import os
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from keyside.sqlalchemy import Encrypted
from sqlalchemy import LargeBinary, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.orm import KEYRING

NONCE_BYTES: Final = 12


class Base(DeclarativeBase):
    pass


class OneByOne(TypeDecorator[str]):
    """What people write themselves: AES-GCM with one key in the process, a call for each value."""

    impl = LargeBinary
    cache_ok = True
    aead: Final = AESGCM(AESGCM.generate_key(256))

    def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
        if value is None:
            return None
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.aead.encrypt(nonce, value.encode(), b"people.a")

    def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return self.aead.decrypt(bytes(value[:NONCE_BYTES]), bytes(value[NONCE_BYTES:]), b"people.a").decode()


class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    a: Mapped[str] = mapped_column(Text)
    b: Mapped[str] = mapped_column(Text)
    c: Mapped[str] = mapped_column(Text)


class Sealed(Base):
    __tablename__ = "sealed"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    a: Mapped[str] = mapped_column(Encrypted(String(200), keyring=KEYRING))
    b: Mapped[str] = mapped_column(Encrypted(String(200), keyring=KEYRING))
    c: Mapped[str] = mapped_column(Encrypted(String(200), keyring=KEYRING))


class Singly(Base):
    __tablename__ = "singly"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    a: Mapped[str] = mapped_column(OneByOne)
    b: Mapped[str] = mapped_column(OneByOne)
    c: Mapped[str] = mapped_column(OneByOne)


class PersonCopied(Base):
    """A plain column and its plain copy."""

    __tablename__ = "person_copied"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    email: Mapped[str] = mapped_column(Text)
    copy: Mapped[str | None] = mapped_column(Text)


class Person(Base):
    """A living table: a plain column, and the encrypted column that takes its place."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    email: Mapped[str] = mapped_column(Text)
    email_sealed: Mapped[str | None] = mapped_column(Encrypted(String(200), keyring=KEYRING))
