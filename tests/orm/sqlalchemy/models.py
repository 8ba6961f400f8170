"""Tables with every kind of encrypted column."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from keyside.fields import last
from keyside.sqlalchemy import BlindIndex, Encrypted, MaskedRepr, from_context
from sqlalchemy import JSON, Date, Enum, ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(MaskedRepr, DeclarativeBase):
    pass


class Clinic(Base):
    __tablename__ = "clinics"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Encrypted(String(100), keyring="clinics"))
    patients: Mapped[list[Patient]] = relationship(back_populates="clinic", order_by="Patient.number")


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    number: Mapped[int]
    clinic_id: Mapped[int] = mapped_column(ForeignKey("clinics.id"))
    email: Mapped[str] = mapped_column(Encrypted(String(320), keyring="patients", partition="clinic_id", bind="id"))
    email_index: Mapped[bytes] = mapped_column(BlindIndex("email", normalize="casefold"), unique=True)
    email_domain: Mapped[bytes] = mapped_column(BlindIndex("email", normalize="domain"), index=True)
    born: Mapped[date | None] = mapped_column(Encrypted(Date, keyring="notes"))
    notes: Mapped[dict[str, Any]] = mapped_column(Encrypted(JSON, keyring="notes"))
    clinic: Mapped[Clinic] = relationship(back_populates="patients")


class Status(enum.Enum):
    NEW = "n"
    PAID = "p"


class Card(Base):
    """Bound to nothing but its column; keys made by the database."""

    __tablename__ = "cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(Encrypted(String(19), keyring="cards", storage="text"))
    number_index: Mapped[bytes | None] = mapped_column(BlindIndex("number", normalize="digits"))
    last_four: Mapped[bytes | None] = mapped_column(BlindIndex("number", normalize=last(4)))
    limit: Mapped[Decimal | None] = mapped_column(Encrypted(Numeric(10, 2), keyring="cards"))
    status: Mapped[Status | None] = mapped_column(Encrypted(Enum(Status), keyring="cards"))


class Memo(Base):
    """Its partition is the tenant for whom the code runs."""

    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Encrypted(String, keyring="memos", partition=from_context("tenant")))


def patient(number: int, clinic: int = 1, **values: Any) -> Patient:
    plain: dict[str, Any] = {
        "number": number,
        "clinic_id": clinic,
        "email": f"P{number}@Example.ORG",
        "born": date(2000, 1, 1 + number % 28),
        "notes": {"n": number},
    }
    return Patient(**(plain | values))
