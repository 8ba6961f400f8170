"""The row that a value belongs to, told along with it while Django prepares a statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models

from keyside.django.returning import Returned, returned_by
from keyside.fields import MASK, BindingMissing, Field, Index, Placeholder
from keyside.fields.declaration import UNFIT

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


class _Column(NamedTuple):
    """A column that rows are bound to, and what it gives back for a value."""

    field: models.Field
    returned: Returned | None


def _column(model: type[models.Model], name: str) -> _Column | None:
    """As `field_named`; found once a model, since rows ask for each value that is bound to them."""
    known: dict[str, _Column] = model._meta.__dict__.setdefault("_keyside_columns", {})
    if name not in known:
        field = field_named(model, name)
        if field is None:
            return None
        known[name] = _Column(field, returned_by(field))
    return known[name]


def _as_returned(column: _Column, value: Any, prepared: bool = False) -> Any:
    """A value as the database will return it; `prepared`: by a condition, for the database. Raises BindingMissing for
    what cannot be foreseen: expressions, objects, and values that the column does not keep as they are."""
    if value is None:
        return None
    field, returned = column
    if returned is not None and not hasattr(value, "resolve_expression") and not isinstance(value, models.Model):
        try:
            return returned.compared(value) if prepared else returned.written(value)
        except (*UNFIT, ValidationError):
            pass
    message = (
        "encrypted columns of the row depend on it, but its column does not keep what it is set to as it is (an"
        " expression, another type, too many decimal places): write a value that it keeps"
    )
    raise BindingMissing(message, field.model._meta.db_table, field.column)


def row_of_instance(instance: models.Model, model: type[models.Model]) -> Row:
    """What an object says of its row in the table of `model`: its class, or what a proxy or child inherits from."""

    def value(name: str) -> Any:
        column = _column(model, name)
        if column is None:
            raise FieldDoesNotExist(f"{model.__name__} has no field named {name!r} in a table of its own")
        return _as_returned(column, getattr(instance, column.field.attname))

    return value


def row_of_values(
    model: type[models.Model], conditions: Mapping[str, Any], written: Mapping[str, Any] | None = None
) -> Row:
    """What values by attribute name say: those that a statement writes, else those that its conditions name."""

    def value(name: str) -> Any:
        column = _column(model, name)
        if column is None:
            return None
        attname = column.field.attname
        if written is not None and attname in written:
            return _as_returned(column, written[attname])
        return _as_returned(column, conditions.get(attname), prepared=True)

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
