"""A table that was plaintext once, as it was and as it is, for tests of living data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.validators import RegexValidator
from django.db import connections, models
from keyside.django import BlindIndex, EncryptedField, from_context


class Citizen(models.Model):
    """Two columns make its key; text is encrypted in place, other types beside the plain column."""

    class Meta:
        db_table = "citizens"

    pk = models.CompositePrimaryKey("region", "number")
    region = models.CharField(max_length=2)
    number = models.IntegerField()
    tenant = models.IntegerField()
    updated_at = models.DateTimeField(auto_now=True, null=True)
    name = EncryptedField(
        models.CharField(max_length=100, null=True),
        keyring="users",
        partition="tenant",
        bind=["region", "number"],
        storage="text",
        migrating="plaintext",
        blind_index=BlindIndex(normalize="casefold"),
    )
    born_plain = models.DateField(null=True)
    data_plain = models.JSONField(null=True)
    price_plain = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    born = EncryptedField(models.DateField(null=True), keyring="notes")
    data = EncryptedField(models.JSONField(null=True), keyring="notes")
    price = EncryptedField(models.DecimalField(max_digits=8, decimal_places=2, null=True), keyring="notes")


class PlainCitizen(models.Model):
    """The same table without Keyside."""

    class Meta:
        db_table = "citizens"
        managed = False

    pk = models.CompositePrimaryKey("region", "number")
    region = models.CharField(max_length=2)
    number = models.IntegerField()
    tenant = models.IntegerField()
    updated_at = models.DateTimeField(null=True)
    name = models.TextField(null=True)
    name_index = models.BinaryField(null=True)
    born_plain = models.DateField(null=True)
    data_plain = models.JSONField(null=True)
    price_plain = models.DecimalField(max_digits=8, decimal_places=2, null=True)


class Memo(models.Model):
    """In place, in bytes; its partition is told by the code that runs."""

    class Meta:
        db_table = "memos_of_tenants"

    text = EncryptedField(
        models.TextField(null=True), keyring="memos", partition=from_context("tenant"), migrating="plain"
    )


class Club(models.Model):
    name = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    """For forms, serializers and the admin: values of many kinds, and a careless `__str__`."""

    class Sex(models.TextChoices):
        FEMALE = "f", "female"
        MALE = "m", "male"

    club = models.ForeignKey(Club, models.CASCADE)
    alias = models.CharField(max_length=40)
    ssn = EncryptedField(
        models.CharField("social security number", max_length=11, validators=[RegexValidator(r"^[\d-]+$")]),
        keyring="members",
        blind_index=BlindIndex(unique=True, normalize="digits"),
    )
    motto = EncryptedField(
        models.CharField(max_length=80, null=True, blank=True), keyring="members", blind_index=BlindIndex()
    )
    born = EncryptedField(models.DateField(null=True, blank=True), keyring="members", blind_index=BlindIndex())
    sex = EncryptedField(models.CharField(max_length=1, choices=Sex.choices, default="f"), keyring="members")
    vegan = EncryptedField(models.BooleanField(default=False), keyring="members")
    scan = EncryptedField(models.JSONField(default=dict, blank=True), keyring="members")

    def __str__(self) -> str:
        return f"{self.alias} ({self.ssn})"


@contextmanager
def created(alias: str, *chosen: type[models.Model]) -> Iterator[None]:
    """Tables of these models, empty, while the block runs."""
    connection = connections[alias]
    with connection.schema_editor() as editor:
        for model in chosen:
            editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for model in reversed(chosen):
                editor.delete_model(model)
