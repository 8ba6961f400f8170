"""The application as Django registers it."""

from __future__ import annotations

from django.apps import AppConfig


class RegisterConfig(AppConfig):
    """A register of persons."""

    name = "examples.django_app"
    label = "register"
    default_auto_field = "django.db.models.BigAutoField"
