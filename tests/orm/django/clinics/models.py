"""Tables with every kind of encrypted column."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import uuid4

from django.contrib.postgres.fields import ArrayField
from django.db import models
from keyside.django import BlindIndex, EncryptedField, from_context, last


class Clinic(models.Model):
    name = EncryptedField(models.CharField(max_length=100), keyring="clinics")


class Patient(models.Model):
    """Bound to its row, each clinic with keys of its own."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    number = models.IntegerField()
    clinic = models.ForeignKey(Clinic, models.CASCADE, related_name="patients", db_constraint=False)
    email = EncryptedField(
        models.CharField(max_length=320),
        keyring="patients",
        partition="clinic_id",
        bind="id",
        blind_index=[
            BlindIndex(unique=True, normalize="casefold"),
            BlindIndex(name="email_domain", normalize="domain"),
        ],
    )
    born = EncryptedField(models.DateField(null=True), keyring="notes")
    notes = EncryptedField(models.JSONField(default=dict), keyring="notes")

    class Meta:
        ordering = ("number",)


class Card(models.Model):
    """Bound to nothing but its column; keys made by the database."""

    number = EncryptedField(
        models.CharField(max_length=19, null=True),
        keyring="cards",
        storage="text",
        blind_index=[BlindIndex(normalize="digits"), BlindIndex(name="last_four", normalize=last(4))],
    )
    limit = EncryptedField(
        models.DecimalField(max_digits=10, decimal_places=2, null=True), keyring="cards", blind_index=BlindIndex()
    )


class GoldCard(Card):
    """A table of its own beside its parent's."""

    club = EncryptedField(models.CharField(max_length=20), keyring="cards", blind_index=BlindIndex())


class Badge(models.Model):
    """Unique together with another column."""

    clinic = models.ForeignKey(Clinic, models.CASCADE, db_constraint=False)
    holder = EncryptedField(models.CharField(max_length=40), keyring="badges", blind_index=BlindIndex())

    class Meta:
        constraints = (models.UniqueConstraint(fields=["clinic", "holder_index"], name="one_badge_a_clinic"),)


class Memo(models.Model):
    """Its partition is the tenant for whom the code runs."""

    text = EncryptedField(models.TextField(), keyring="memos", partition=from_context("tenant"))
    lenient = EncryptedField(models.TextField(null=True), keyring="notes", on_error="none")


class Letter(models.Model):
    """On its way from plaintext to ciphertext, in place."""

    text = EncryptedField(
        models.CharField(max_length=50, null=True),
        keyring="notes",
        storage=models.CharField(max_length=300),
        migrating="plaintext",
        blind_index=BlindIndex(normalize="casefold"),
    )


class Handle(models.CharField):
    """The application's own: NULL in place of nothing, and kept without its @."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return value.removeprefix("@") or None if value is not None else None


class Tag:
    def __init__(self, word: str) -> None:
        self.word = word


class TagField(models.TextField):
    """The application's own: an object of its own from and to the column."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return value.word

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return Tag(value)


class SortedField(models.JSONField):
    """The application's own: another document than the one that it is given."""

    def get_prep_value(self, value: Any) -> Any:
        return sorted(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        found = super().from_db_value(value, expression, connection)
        return found if found is None else tuple(found)


class Peculiar(models.Model):
    """Fields that convert values in ways of their own."""

    address = EncryptedField(models.GenericIPAddressField(null=True), keyring="all", blind_index=BlindIndex())
    handle = EncryptedField(Handle(max_length=20, null=True), keyring="all", blind_index=BlindIndex(unique=True))
    tag = EncryptedField(TagField(null=True), keyring="all")
    words = EncryptedField(SortedField(null=True), keyring="all")
    size = EncryptedField(models.IntegerField(name="grade", choices=((1, "One"),), null=True), keyring="all")


class Everything(models.Model):
    """A column of every type, for values that keep their type."""

    text = EncryptedField(models.TextField(null=True), keyring="all")
    slug = EncryptedField(models.SlugField(null=True), keyring="all")
    mail = EncryptedField(models.EmailField(null=True), keyring="all", storage="text")
    count = EncryptedField(models.BigIntegerField(null=True), keyring="all")
    ratio = EncryptedField(models.FloatField(null=True), keyring="all")
    price = EncryptedField(models.DecimalField(max_digits=8, decimal_places=2, null=True), keyring="all")
    flag = EncryptedField(models.BooleanField(null=True), keyring="all")
    day = EncryptedField(models.DateField(null=True), keyring="all")
    moment = EncryptedField(models.DateTimeField(null=True), keyring="all")
    hour = EncryptedField(models.TimeField(null=True), keyring="all")
    span = EncryptedField(models.DurationField(null=True), keyring="all")
    code = EncryptedField(models.UUIDField(null=True), keyring="all")
    raw = EncryptedField(models.BinaryField(null=True), keyring="all")
    data = EncryptedField(models.JSONField(null=True), keyring="all")
    address = EncryptedField(models.GenericIPAddressField(null=True), keyring="all")
    tags = EncryptedField(ArrayField(models.DateField(), null=True), keyring="all")


def patient(number: int, clinic: int = 1, **values: Any) -> Patient:
    plain: dict[str, Any] = {
        "number": number,
        "clinic_id": clinic,
        "email": f"P{number}@Example.ORG",
        "born": date(2000, 1, 1 + number % 28),
        "notes": {"n": number},
    }
    return Patient(**(plain | values))
