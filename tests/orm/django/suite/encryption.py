"""Fields of Django's test applications, encrypted where they are declared: no file of theirs is touched."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import wraps
from typing import Any

from django.db import models
from django.db.models.base import ModelBase
from django.db.models.fields.files import FileField
from keyside.django import BlindIndex, EncryptedField

KEYRING = "suite"


class Encrypting:
    """Makes every model of some applications declare its fields as `EncryptedField(…)`.

    `plain`: fields that stay as they are, as "application.Model.field". `sorted_by_less`: models by "application.Model"
    that keep only so many names of their ordering. `encrypted`, `left`: what was found.
    """

    def __init__(self, applications: list[str], plain: frozenset[str], sorted_by_less: dict[str, int]) -> None:
        self._applications = applications
        self._plain = plain
        self._sorted_by_less = sorted_by_less
        self.encrypted: list[str] = []
        self.left: list[str] = []

    def install(self) -> None:
        """Before the first of the applications is imported."""
        original = ModelBase.__new__

        @wraps(original)
        def new(kind: Any, name: str, bases: Any, attributes: dict[str, Any], **options: Any) -> Any:
            application = _application(attributes.get("__module__", ""))
            if application in self._applications:
                attributes = self._declared(application, name, attributes)
            return original(kind, name, bases, attributes, **options)

        ModelBase.__new__ = new

    def _declared(self, application: str, model: str, attributes: dict[str, Any]) -> dict[str, Any]:
        kept = self._sorted_by_less.get(f"{application}.{model}")
        if kept is not None:
            attributes["Meta"].ordering = attributes["Meta"].ordering[:kept]
        used = set(_used_by_the_database(attributes))
        declared = dict(attributes)
        for name, field in attributes.items():
            if not isinstance(field, models.Field):
                continue
            label = f"{application}.{model}.{name}"
            if name in used or label in self._plain or not _can_be(field):
                self.left.append(label)
            else:
                self.encrypted.append(label)
                declared[name] = _encrypted(field)
        return declared


def _application(module: str) -> str:
    """Of a module of models; empty for another, such as a test that makes models of its own."""
    application, _, rest = module.partition(".")
    return application if rest.split(".")[0] == "models" else ""


def _can_be(field: models.Field) -> bool:
    """Whether the manual allows it: what it refuses is a key, a relation, computed by the database, or a file."""
    not_columns = field.is_relation or field.generated or isinstance(field, FileField | models.CompositePrimaryKey)
    dated = field.unique_for_date or field.unique_for_month or field.unique_for_year
    in_database = field.primary_key or dated or field.has_db_default()
    return not (not_columns or in_database or isinstance(field, models.AutoField | models.BigAutoField))


def _encrypted(field: models.Field) -> EncryptedField:
    inner = copy(field)
    inner._unique = inner.db_index = False
    # JSON and binary values are seldom looked for; an index of them works all the same
    declared = EncryptedField(inner, keyring=KEYRING, blind_index=BlindIndex(unique=field._unique))
    declared.creation_counter = field.creation_counter  # the order of the columns is that of the declarations
    return declared


def _used_by_the_database(attributes: dict[str, Any]) -> Iterator[str]:
    """Names of fields that the database sorts by, computes with or keeps unique together with others."""
    meta = attributes.get("Meta")
    for name in (*getattr(meta, "ordering", ()), *_several(getattr(meta, "get_latest_by", ()))):
        yield from _names(name)
    for together in _several(getattr(meta, "unique_together", ())):
        yield from _several(together)
    for option in (*getattr(meta, "constraints", ()), *getattr(meta, "indexes", ())):
        yield from getattr(option, "fields", ())
        yield from getattr(option, "include", ())
        yield from _names(getattr(option, "condition", None))
        for expression in getattr(option, "expressions", ()):
            yield from _names(expression)
    for field in attributes.values():
        if isinstance(field, models.GeneratedField):
            yield from _names(field.expression)
        elif hasattr(field, "fk_field"):
            yield field.fk_field  # of a generic relation


def _several(names: Any) -> Any:
    return (names,) if isinstance(names, str) else names or ()


def _names(expression: Any) -> Iterator[str]:
    if isinstance(expression, str):
        yield expression.lstrip("-").split("__")[0]
    elif isinstance(expression, models.F):
        yield from _names(expression.name)
    elif isinstance(expression, models.Q):
        for child in expression.children:
            name, value = child if isinstance(child, tuple) else (child, None)
            yield from _names(name)
            if not isinstance(value, str):
                yield from _names(value)
    elif hasattr(expression, "get_source_expressions"):
        for child in expression.get_source_expressions():
            yield from _names(child)
