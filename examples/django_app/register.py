"""What the application does with its persons: nothing here knows of encryption."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models

from examples.django_app.models import Person


def add_all(persons: Iterable[Person], batch: int = 1000) -> None:
    """Insert persons, a batch a statement."""
    Person.objects.bulk_create(persons, batch_size=batch)


def called(last_name: str) -> list[Person]:
    """Everybody of a last name, however it is written."""
    return list(Person.objects.filter(last_name=last_name))


def ending(letters: str) -> int:
    """How many last names end in three letters."""
    return int(Person.objects.filter(last_name_end=letters).count())


def heaviest(country: str) -> Person | None:
    """Sorted in Python, for ciphertexts have no order."""
    persons: models.QuerySet[Person] = Person.objects.filter(country=country)
    return max(persons, key=lambda person: person.weight or 0, default=None)
