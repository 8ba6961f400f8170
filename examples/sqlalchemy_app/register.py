"""What the application does with its persons: nothing here knows of encryption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from examples.sqlalchemy_app.models import Person


def add_all(session: Session, rows: Sequence[dict[str, Any]], batch: int = 1000) -> None:
    """Insert persons, a batch a statement."""
    for start in range(0, len(rows), batch):
        session.execute(insert(Person), rows[start : start + batch])
    session.commit()


def called(session: Session, last_name: str) -> Sequence[Person]:
    """Everybody of a last name, however it is written."""
    return session.scalars(select(Person).where(Person.last_name == last_name)).all()


def ending(session: Session, letters: str) -> int:
    """How many last names end in three letters."""
    return session.scalar(select(func.count()).where(Person.last_name_end == letters)) or 0


def heaviest(session: Session, country: str) -> Person | None:
    """Sorted in Python, for ciphertexts have no order."""
    persons: Iterable[Person] = session.scalars(select(Person).where(Person.country == country))
    return max(persons, key=lambda person: person.weight or 0, default=None)
