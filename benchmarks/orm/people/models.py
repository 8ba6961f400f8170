"""The same three texts plain, encrypted by Keyside, and encrypted value by value; and a living table."""

from __future__ import annotations

from typing import Any

from django.db import models
from keyside.django import EncryptedField

from benchmarks.orm import KEYRING
from benchmarks.orm.models import OneByOne

_one_by_one = OneByOne()


class OneByOneField(models.BinaryField):
    """What people write themselves: AES-GCM with one key in the process, a call for each value."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(_one_by_one.process_bind_param(value, None), connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        return _one_by_one.process_result_value(value, None)


class Plain(models.Model):
    id = models.BigIntegerField(primary_key=True)
    a = models.TextField()
    b = models.TextField()
    c = models.TextField()


class Sealed(models.Model):
    id = models.BigIntegerField(primary_key=True)
    a = EncryptedField(models.CharField(max_length=200), keyring=KEYRING)
    b = EncryptedField(models.CharField(max_length=200), keyring=KEYRING)
    c = EncryptedField(models.CharField(max_length=200), keyring=KEYRING)


class Singly(models.Model):
    id = models.BigIntegerField(primary_key=True)
    a = OneByOneField()
    b = OneByOneField()
    c = OneByOneField()


class Person(models.Model):
    id = models.BigIntegerField(primary_key=True)
    email = models.TextField()
    email_sealed = EncryptedField(models.CharField(max_length=200, null=True), keyring=KEYRING)

    class Meta:
        db_table = "person"  # the one of benchmarks.orm.models
