"""The row that a value belongs to, told along with it while Django prepares a statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from django.core.exceptions import ValidationError
from django.db import models

from keyside.fields import MASK, BindingMissing, Field, Index, Placeholder

Row: TypeAlias = Callable[[str], Any]
"""The value of a field, by the name that `bind=` or `partition=` calls it; None when it is not known."""


class Told:
    """A value and its row."""

    __slots__ = ("row", "value")

    def __init__(self, value: Any, row: Row) -> None:
        self.value = value
        self.row = row

    def __repr__(self) -> str:
        return MASK


class Kept:
    """In place of a None that an object of this row has only because its value did not open."""

    __slots__ = ("row",)

    def __init__(self, row: Row) -> None:
        self.row = row


class Written(Placeholder):
    """A value that a statement stores in an encrypted column. `indexes`: what it must store beside it."""

    __slots__ = ("indexes",)

    def __init__(self, place: Field, value: Any, indexes: Sequence[Index]) -> None:
        super().__init__(place, value)
        self.indexes = indexes


class SearchPlaceholder(Placeholder):
    """A value in a condition on a blind index, where no index would be a condition that is never true."""

    __slots__ = ()


class PlainPlaceholder(Placeholder):
    """A value that is compared with plaintext; `sealed` from the beginning."""

    __slots__ = ()

    def __init__(self, place: Field | Index, value: Any, plain: Any) -> None:
        super().__init__(place, value)
        self.sealed = plain


def field_named(model: type[models.Model], name: str) -> models.Field | None:
    """A field of the model's own table by its name, its attribute's (`clinic_id`) or its column's."""
    for field in model._meta.local_concrete_fields:
        if name in (field.name, field.attname, field.column):
            return field
    return None


def bindings(field: Any) -> list[str]:
    """Names of the fields that an encrypted field's ciphertexts depend on."""
    return [*field.bind, *([field.partition] if isinstance(field.partition, str) else [])]


def cleaned(field: models.Field, value: Any) -> Any:
    """A value as the database will return it. Raises BindingMissing for an expression or an object, and for what the
    field does not accept."""
    if value is None:
        return None
    if not hasattr(value, "resolve_expression") and not isinstance(value, models.Model):
        try:
            return field.to_python(value)
        except ValidationError:
            pass
    message = "encrypted columns of the row depend on it, but what it is set to is no value of its type: write a value"
    raise BindingMissing(message, field.model._meta.db_table, field.column)


def row_of_instance(instance: models.Model, model: type[models.Model]) -> Row:
    """What an object says of its row in the table of `model`: its class, or what a proxy or child inherits from."""

    def value(name: str) -> Any:
        field = field_named(model, name) or model._meta.get_field(name)
        return cleaned(field, getattr(instance, field.attname))

    return value


def row_of_values(model: type[models.Model], *told: Mapping[str, Any]) -> Row:
    """What values by attribute name say; the first that knows a field is believed."""

    def value(name: str) -> Any:
        field = field_named(model, name)
        if field is not None:
            for values in told:
                if field.attname in values:
                    return cleaned(field, values[field.attname])
        return None

    return value


def tell(placeholder: Placeholder, row: Row | None) -> Placeholder:
    """The placeholder, which knows now what its place needs of the row."""
    place = placeholder.place
    if row is not None and place.needs_row:
        if isinstance(place, Field) and place.bind:
            placeholder.key = tuple([row(name) for name in place.bind])
        if place.partition_column is not None:
            placeholder.partition = row(place.partition_column)
    return placeholder
