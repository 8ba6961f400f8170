"""Encrypted fields for Django 5.2 and newer.

    INSTALLED_APPS += ["keyside.django"]
    KEYSIDE = {"SOCKET": "/run/keyside/keyside.sock"}

    class Patient(models.Model):
        ssn = EncryptedField(models.CharField(max_length=11), keyring="patients", blind_index=BlindIndex(unique=True))

    Patient.objects.filter(ssn="123-45-6789")

docs/orm/django.md is the manual.
"""

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndex, BlindIndexField
from keyside.django.settings import client
from keyside.fields import context, from_context, last, whole

__all__ = [
    "BlindIndex",
    "BlindIndexField",
    "EncryptedField",
    "client",
    "context",
    "from_context",
    "last",
    "whole",
]
