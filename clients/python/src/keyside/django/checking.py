"""System checks: declarations that cannot work, found before the first query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks

from keyside.django.telling import field_named


def problems(field: Any) -> list[checks.CheckMessage]:
    """What is wrong with how a model uses an encrypted field."""
    found: list[checks.CheckMessage] = []
    for name in [*field.bind, *([field.partition] if isinstance(field.partition, str) else [])]:
        local = field_named(field.model, name)
        if local is None or local is field:
            message = f"It depends on {name!r}, which is no other field of its table."
            found.append(checks.Error(message, obj=field, id="keyside.E001"))
    for where in _uses(field):
        message = f"{where} refers to {field.name!r}, whose ciphertexts have no order and never repeat."
        hint = "name its blind index in place of it" if field.indexes else "declare a BlindIndex and name that"
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E002"))
    return found


def _uses(field: Any) -> Iterator[str]:
    meta = field.model._meta
    for names in meta.unique_together:
        if field.name in names:
            yield "'unique_together'"
    for option in (*meta.constraints, *meta.indexes):
        if field.name in (getattr(option, "fields", None) or ()):
            yield f"{type(option).__name__} {option.name!r}"
    for name in meta.ordering:
        if isinstance(name, str) and name.lstrip("-") == field.name:
            yield "'ordering'"
