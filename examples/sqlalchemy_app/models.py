"""The models: what an application without encryption has, but for the types of some columns."""

from __future__ import annotations

from uuid import UUID, uuid4

from keyside.fields import last
from keyside.sqlalchemy import BlindIndex, Encrypted, MaskedRepr
from sqlalchemy import Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(MaskedRepr, DeclarativeBase):
    """A `repr` shows `<encrypted>` in place of values."""


class Person(Base):
    """Each country is a tenant with data keys of its own, and each ciphertext opens in its own row alone."""

    __tablename__ = "persons"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    country: Mapped[str] = mapped_column(String(40))
    first_name: Mapped[str | None] = mapped_column(Encrypted(String, "persons", partition="country", bind="id"))
    last_name: Mapped[str | None] = mapped_column(Encrypted(String, "persons", partition="country", bind="id"))
    last_name_index: Mapped[bytes | None] = mapped_column(BlindIndex("last_name", normalize="casefold"), index=True)
    last_name_end: Mapped[bytes | None] = mapped_column(BlindIndex("last_name", normalize=last(3)), index=True)
    born: Mapped[str | None] = mapped_column(Encrypted(String, "persons", partition="country", bind="id"))
    weight: Mapped[int | None] = mapped_column(Encrypted(Integer, "measures"))
