"""Clubs with their members inside, and members by themselves."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from keyside.django.admin import EncryptedAdminMixin

from tests.orm.django.citizens.models import Club, Member


class _ForOfficers:
    """Officers see everything."""

    def has_reveal_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return bool(user.username == "officer")


class MemberInline(_ForOfficers, EncryptedAdminMixin, admin.StackedInline):
    model = Member
    extra = 1


@admin.register(Club)
class ClubAdmin(_ForOfficers, EncryptedAdminMixin, admin.ModelAdmin):
    inlines = (MemberInline,)


@admin.register(Member)
class MemberAdmin(_ForOfficers, EncryptedAdminMixin, admin.ModelAdmin):
    list_display = ("alias", "ssn", "born", "sex")
    search_fields = ("alias", "ssn", "motto", "=born")

    def mask_encrypted(self, field: Any, value: Any) -> Any:
        return f"•••{value[-2:]}" if field.name == "ssn" else super().mask_encrypted(field, value)
