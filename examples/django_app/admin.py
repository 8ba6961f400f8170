"""The admin: it finds persons by last name and never shows what is encrypted."""

from __future__ import annotations

from django.contrib import admin
from keyside.django.admin import EncryptedAdminMixin

from examples.django_app.models import Person


@admin.register(Person)
class PersonAdmin(EncryptedAdminMixin, admin.ModelAdmin):
    """Those who may see everything do."""

    list_display = ("id", "country", "first_name", "last_name", "born")
    list_filter = ("country",)
    search_fields = ("country", "last_name")
