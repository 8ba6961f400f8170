"""The Django application: what it puts in place when the project starts."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from keyside.django.checking import setting_problems
from keyside.django.hooks import install


class KeysideConfig(AppConfig):
    """`keyside.django` in INSTALLED_APPS."""

    name = "keyside.django"
    label = "keyside"
    verbose_name = "Keyside"

    def ready(self) -> None:
        install()
        checks.register(setting_problems)
