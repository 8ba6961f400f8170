"""The models: what an application without encryption has, but for the fields around some fields."""

from __future__ import annotations

from uuid import uuid4

from django.db import models
from keyside.django import BlindIndex, EncryptedField
from keyside.fields import last


class Person(models.Model):
    """Each country is a tenant with data keys of its own, and each ciphertext opens in its own row alone."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    country = models.CharField(max_length=40)
    first_name = EncryptedField(
        models.CharField(max_length=80, null=True, blank=True), keyring="persons", partition="country", bind="id"
    )
    last_name = EncryptedField(
        models.CharField(max_length=80, null=True),
        keyring="persons",
        partition="country",
        bind="id",
        blind_index=[BlindIndex(normalize="casefold"), BlindIndex(name="last_name_end", normalize=last(3))],
    )
    born = EncryptedField(
        models.CharField(max_length=10, null=True, blank=True), keyring="persons", partition="country", bind="id"
    )
    weight = EncryptedField(models.PositiveSmallIntegerField(null=True, blank=True), keyring="measures")
    # what `born` was before it was encrypted; the next release drops it
    born_plain = models.CharField(max_length=10, null=True, editable=False)

    def __str__(self) -> str:
        return f"person {self.pk} of {self.country}"
