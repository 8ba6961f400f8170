"""What a plain column gives back for a value that is written to it: rows are bound to that.

It is told without asking the database, as Django and its drivers convert values. Of what a field of the application's
own converts, `get_prep_value` can be replayed for every type, and the rest where drivers leave values as they are.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connection, models

from keyside.django.codecs import Convert, as_configured, is_own, restored_moment


class Returned(NamedTuple):
    """What the column gives back. Raises what conversions raise, and ValueError for what it would round."""

    written: Convert
    """For a value as the application has it."""
    compared: Convert
    """For a value that a condition has prepared."""


_AS_THEY_ARE: Final = (models.CharField, models.TextField, models.IntegerField, models.FileField, models.FilePathField)
"""Fields whose values drivers take and give unchanged."""

_LATE: Final = ("get_db_prep_value", "get_db_prep_save")
"""Methods of a field that convert values behind `get_prep_value`."""

_FORESEEN: Final[tuple[type[models.Field], ...]] = (
    *_AS_THEY_ARE, models.BooleanField, models.FloatField, models.DecimalField, models.UUIDField, models.BinaryField,
    models.DateTimeField, models.DateField, models.TimeField, models.DurationField, models.GenericIPAddressField,
)  # fmt: skip


def returned_by(field: models.Field) -> Returned | None:
    """None for a field whose values cannot be foreseen. Raises ValueError while a related model is missing."""
    while field.remote_field:
        if is_own(field, "get_prep_value", *_LATE) or hasattr(field, "from_db_value"):
            return None
        field = field.target_field
    kind = next((kind for kind in _FORESEEN if isinstance(field, kind)), None)
    if kind is None:
        return None
    own = getattr(field, "from_db_value", None)
    if own is None and not is_own(field, *_LATE):
        held = _held(kind, field)
        return Returned(_unless_null(field.get_prep_value, held), held)
    if kind not in _AS_THEY_ARE:
        return None
    read = (lambda value: own(value, None, connection)) if own is not None else (lambda value: value)
    return Returned(
        _unless_null(lambda value: field.get_db_prep_save(value, connection), read),
        _unless_null(lambda value: field.get_db_prep_value(value, connection, prepared=True), read),
    )


def _unless_null(prepare: Convert, read: Convert) -> Convert:
    def converted(value: Any) -> Any:
        held = prepare(value)
        return None if held is None else read(held)

    return converted


def _held(kind: type[models.Field], field: Any) -> Convert:
    """What is read of a value that was prepared for a column of one of Django's types."""
    if kind is models.BinaryField:
        return bytes
    if kind is models.DecimalField:
        return lambda value: _exact(field, models.DecimalField.to_python(field, value))
    if kind is models.DateTimeField:
        return lambda value: _moment(models.DateTimeField.to_python(field, value))
    if kind is models.GenericIPAddressField:
        return lambda value: models.GenericIPAddressField.to_python(field, value) or None
    return lambda value: kind.to_python(field, value)


def _moment(value: datetime) -> datetime:
    return restored_moment(as_configured(value))


def _exact(field: models.DecimalField, value: Decimal) -> Decimal:
    """With the column's decimal places. Raises ValueError for more: databases differ in how they round."""
    if field.decimal_places is None:
        return value
    rounded = value.quantize(Decimal(1).scaleb(-field.decimal_places), context=field.context)
    if rounded != value:
        raise ValueError("more decimal places than the column has")
    return rounded
