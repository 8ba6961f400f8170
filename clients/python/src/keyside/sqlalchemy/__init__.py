"""Encrypted columns for SQLAlchemy 2.0 and 2.1.

    class Patient(Base):
        email: Mapped[str] = mapped_column(Encrypted(String(320), keyring="patients", partition="clinic_id", bind="id"))
        email_index: Mapped[bytes] = mapped_column(BlindIndex("email", normalize="casefold"), unique=True)

    install(engine, Client())
    session.scalars(select(Patient).where(Patient.email == "a@b.c"))

docs/orm/sqlalchemy.md is the manual.
"""

import keyside.sqlalchemy.mapping  # noqa: F401  it listens to mappers
from keyside.fields import context, from_context, last, whole
from keyside.sqlalchemy.installation import install, uninstall
from keyside.sqlalchemy.masking import MaskedRepr
from keyside.sqlalchemy.registry import installed_engine
from keyside.sqlalchemy.types import BlindIndex, Encrypted

__all__ = [
    "BlindIndex",
    "Encrypted",
    "MaskedRepr",
    "context",
    "from_context",
    "install",
    "installed_engine",
    "last",
    "uninstall",
    "whole",
]
