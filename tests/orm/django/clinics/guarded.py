"""Tables whose ciphertexts depend on their row in every way that a statement could get wrong."""

from __future__ import annotations

from django.db import models
from keyside.django import BlindIndex, EncryptedField


class Ward(models.Model):
    name = models.CharField(max_length=50)
    secret = EncryptedField(models.CharField(max_length=50, default="s"), keyring="wards", blind_index=BlindIndex())


class Bound(models.Model):
    """Bound to its key, to a text that is unique, and to a partition."""

    id = models.IntegerField(primary_key=True)
    code = models.CharField(max_length=50, null=True, unique=True)
    name = models.CharField(max_length=9, default="n")
    mother = models.ForeignKey("self", models.CASCADE, null=True, db_constraint=False)
    ward = models.ForeignKey(Ward, models.CASCADE, null=True, db_constraint=False)
    sec = EncryptedField(models.CharField(max_length=50, null=True), keyring="wards", bind="id")
    bycode = EncryptedField(models.CharField(max_length=50, null=True), keyring="wards", bind="code")
    par = EncryptedField(
        models.CharField(max_length=50, null=True), keyring="wards", partition="ward_id", blind_index=BlindIndex()
    )


class Visit(models.Model):
    id = models.IntegerField(primary_key=True)
    code = models.CharField(max_length=50, null=True)
    bound = models.ForeignKey(Bound, models.CASCADE, related_name="visits", db_constraint=False)


class Suite(Bound):
    """A table of its own beside that of what it is bound to."""

    stars = models.IntegerField(default=1)


class Person(models.Model):
    """Columns that a search must not mix up."""

    name = models.CharField(max_length=50, default="n")
    code = models.CharField(max_length=50, null=True, unique=True)
    ward = models.ForeignKey(Ward, models.CASCADE, null=True, db_constraint=False)
    ssn = EncryptedField(models.CharField(max_length=50, null=True), keyring="people", blind_index=BlindIndex())
    other = EncryptedField(models.CharField(max_length=50, null=True), keyring="people", blind_index=BlindIndex())
    phone = EncryptedField(models.CharField(max_length=50, null=True), keyring="people", storage="text")
    alike = EncryptedField(
        models.CharField(max_length=50, null=True),
        keyring="people",
        blind_index=[BlindIndex(name="one_index", context="same"), BlindIndex(name="two_index", context="same")],
    )


class Tenant(models.Model):
    """Each tenant's index under a key of its own."""

    tenant = models.CharField(max_length=20, null=True)
    ssn = EncryptedField(
        models.CharField(max_length=20),
        keyring="tenants",
        partition="tenant",
        blind_index=BlindIndex(partitioned=True, unique=True),
    )


class Lenient(models.Model):
    """What does not open reads as None."""

    name = models.CharField(max_length=9, default="n")
    ward_id = models.IntegerField(default=1)
    value = EncryptedField(
        models.CharField(max_length=50, null=True, blank=True),
        keyring="notes",
        on_error="none",
        blind_index=BlindIndex(),
    )
    within = EncryptedField(
        models.CharField(max_length=50, null=True), keyring="notes", partition="ward_id", on_error="none"
    )


class Before(models.Model):
    """Still plaintext, in both kinds of column."""

    text = EncryptedField(
        models.CharField(max_length=200, null=True), keyring="notes", storage="text", migrating="plain"
    )
    raw = EncryptedField(models.BinaryField(null=True), keyring="notes", migrating="plain")


class Halfway(models.Model):
    """Plaintext and ciphertext side by side, compared exactly."""

    text = EncryptedField(
        models.CharField(max_length=200, null=True),
        keyring="notes",
        storage="text",
        migrating="plaintext",
        blind_index=BlindIndex(),
    )


GUARDED: tuple[type[models.Model], ...] = (
    Ward, Bound, Visit, Suite, Person, Tenant, Lenient, Before, Halfway,
)  # fmt: skip
