"""Validation of what must be unique: the database holds it by blind indexes, people are told of the fields."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any

from django.db import models
from django.forms.models import BaseModelFormSet

from keyside.django.indexing import BlindIndexField
from keyside.django.telling import row_of_instance
from keyside.fields import BindingMissing, FieldUnwritable


class _Indexed(str):
    """The name of an encrypted field in a check of uniqueness, which looks for the value by an index of it."""

    column: str
    index: BlindIndexField

    def __new__(cls, index: BlindIndexField) -> _Indexed:
        self = super().__new__(cls, index.source)
        self.column = str(index.name)
        self.index = index
        return self


class _Typed(dict[str, Any]):
    """What was typed into a form of a formset; what an index says of it, where the forms are compared."""

    def __init__(self, form: Any) -> None:
        super().__init__(form.cleaned_data)
        self._instance = form.instance

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if not isinstance(name, _Indexed) or value is None or name.index.source_field.holds_null(value):
            return value
        declared = name.index.declaration
        try:
            encoding = declared.encode(value)
            if encoding is None or declared.partition_column is None:
                return encoding
            return row_of_instance(self._instance, name.index.model)(declared.partition_column), encoding
        except (FieldUnwritable, BindingMissing):
            return value  # found, and told, where the value is written


def hook_validation() -> None:
    """Put the hooks in place; once a process."""
    models.Model._get_unique_checks = _get_unique_checks(models.Model._get_unique_checks)
    models.Model._perform_unique_checks = _perform_unique_checks(models.Model._perform_unique_checks)
    models.Model.validate_constraints = _validate_constraints(models.Model.validate_constraints)
    models.Model.unique_error_message = _unique_error_message(models.Model.unique_error_message)
    BaseModelFormSet.validate_unique = _validate_unique(BaseModelFormSet.validate_unique)


def _get_unique_checks(original: Any) -> Any:
    @wraps(original)
    def get_unique_checks(self: Any, exclude: Any = None, include_meta_constraints: bool = False) -> Any:
        checks, dated = original(self, _followed(self, exclude), include_meta_constraints)
        return [(owner, tuple([_named(owner, name) for name in names])) for owner, names in checks], dated

    return get_unique_checks


def _perform_unique_checks(original: Any) -> Any:
    @wraps(original)
    def perform_unique_checks(self: Any, unique_checks: Iterable[Any]) -> Any:
        checks = list(unique_checks)
        found = original(self, [(owner, tuple([_index_of(name) for name in names])) for owner, names in checks])
        sources = {_index_of(name): str(name) for _, names in checks for name in names}
        errors: dict[str, list[Any]] = {}
        for name, told in found.items():
            errors.setdefault(sources.get(name, name), []).extend(told)
        return errors

    return perform_unique_checks


def _validate_constraints(original: Any) -> Any:
    @wraps(original)
    def validate_constraints(self: Any, exclude: Any = None) -> None:
        original(self, _followed(self, exclude))

    return validate_constraints


def _unique_error_message(original: Any) -> Any:
    @wraps(original)
    def unique_error_message(self: Any, model_class: Any, unique_check: Iterable[str]) -> Any:
        return original(self, model_class, tuple([_named(model_class, name) for name in unique_check]))

    return unique_error_message


def _validate_unique(original: Any) -> Any:
    @wraps(original)
    def validate_unique(self: Any) -> None:
        forms = []
        if any(isinstance(field, BlindIndexField) for field in self.model._meta.concrete_fields):
            forms = [form for form in self.forms if hasattr(form, "cleaned_data")]
        for form in forms:
            form.cleaned_data = _Typed(form)
        try:
            original(self)
        finally:
            for form in forms:
                form.cleaned_data = dict(form.cleaned_data)

    return validate_unique


def _followed(instance: models.Model, exclude: Iterable[str] | None) -> Iterable[str] | None:
    """Fields that are not to be validated: an index is when its field is, whatever a form has."""
    indexes = [field for field in instance._meta.concrete_fields if isinstance(field, BlindIndexField)]
    if exclude is None or not indexes:
        return exclude
    found = {exclude} if isinstance(exclude, str) else set(exclude)
    for field in indexes:
        (found.add if field.source in found else found.discard)(field.name)
    return found


def _named(model: Any, name: str) -> str:
    field = model._meta.get_field(name)
    return _Indexed(field) if isinstance(field, BlindIndexField) else name


def _index_of(name: str) -> str:
    return name.column if isinstance(name, _Indexed) else name
