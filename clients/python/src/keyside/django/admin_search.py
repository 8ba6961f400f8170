"""`search_fields` of an admin class: what is encrypted among them is compared as a whole, by blind index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from django.core import checks
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models
from django.utils.text import unescape_string_literal

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField

PREFIXES: Final = "^@="
WHOLE: Final = ("", "exact", "iexact")
"""Lookups that mean the whole value."""


class Searched(NamedTuple):
    """What a name of `search_fields` leads to, through relations too: `^club__ssn__startswith`."""

    path: str
    field: EncryptedField | BlindIndexField
    prefix: str
    lookup: str


def searched_at(model: type[models.Model], name: str) -> Searched | None:
    """The encrypted field or blind index that a name leads to; None for anything else."""
    parts = name.lstrip(PREFIXES).split("__")
    options = model._meta
    for at, part in enumerate(parts):
        try:
            field = options.get_field(options.pk.name if part == "pk" else part)
        except FieldDoesNotExist:
            return None
        if isinstance(field, EncryptedField | BlindIndexField):
            prefix = name[: len(name) - len(name.lstrip(PREFIXES))]
            return Searched("__".join(parts[: at + 1]), field, prefix, "__".join(parts[at + 1 :]))
        if hasattr(field, "path_infos"):
            options = field.path_infos[-1].to_opts
    return None


def unquoted(word: str) -> str:
    quoted = len(word) > 1 and word[0] in "\"'" and word[0] == word[-1]
    return str(unescape_string_literal(word)) if quoted else word


def condition_of(places: Iterable[Searched], text: str) -> models.Q:
    """Rows of which one of the fields is what the text says; none for a text that none of them can hold."""
    conditions = models.Q(pk__in=[])
    for place in places:
        try:
            value = _compared(place.field, text)
        except (ValidationError, ValueError, TypeError):
            continue  # a date, say, is never equal to a name
        if value is not None:
            conditions |= models.Q((f"{place.path}__exact", value))
    return conditions


def _compared(field: EncryptedField | BlindIndexField, text: str) -> Any:
    """The value to compare with; None for a text without an index, as a name has none to digits."""
    if isinstance(field, BlindIndexField):
        return _part(field, text)
    value = field.to_python(text)
    index = next(declared for _, declared in field.indexes if declared.normalize.whole)
    return None if index.encode(value) is None else value


def _part(index: BlindIndexField, text: str) -> Any:
    """The part to compare with; None for a text that says more: a whole number is not looked for by its last digits."""
    declared = index.declaration
    value = index.source_field.to_python(text) if declared.normalize.whole else text.strip()
    if declared.encode(value) is None:
        return None
    part, said = _letters(declared.normalize.apply(value)), _letters(value)
    return None if not declared.normalize.whole and part != said and part in said else value


def _letters(value: Any) -> str:
    return "".join(character for character in str(value).casefold() if character.isalnum())


def unsearchable(admin: Any) -> list[checks.Error]:
    """What stands in `search_fields` and no blind index can answer."""
    found = []
    for name in map(str, getattr(admin, "search_fields", None) or ()):
        place = searched_at(admin.model, name)
        if place is None:
            continue
        field, reason = place.field, ""
        if isinstance(field, EncryptedField) and not any(index.normalize.whole for _, index in field.indexes):
            reason = "which has no blind index to be searched by"
            hint = f"give {field.name} a BlindIndex of the whole value"
        elif set(place.prefix) & {"^", "@"}:
            reason, hint = "but ciphertexts have no beginnings and no words", "leave the prefix out"
        elif place.lookup not in WHOLE:
            reason, hint = f"but {place.lookup} cannot be asked of ciphertexts", "leave the lookup out"
        if reason:
            message = f"The value of 'search_fields' refers to {name!r}, {reason}."
            found.append(checks.Error(message, hint=hint, obj=type(admin), id="keyside.E102"))
    return found
