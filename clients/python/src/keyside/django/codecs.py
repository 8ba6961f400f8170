"""How the values of a field become encodings and come back, so that they keep their Python type.

A codec speaks of three forms: the application's value, the value that `keyside.values` encodes, and the text (or, for
binary fields, the bytes) that the column held before it was encrypted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.backends.utils import format_number
from django.utils.duration import duration_string
from django.utils.timezone import get_default_timezone, is_naive, make_aware, make_naive

from keyside.fields.codec import Reading
from keyside.fields.declaration import UNFIT
from keyside.values import InvalidValue, Json, Kind, encode, text_encoding

Convert = Callable[[Any], Any]

_UTC: Final = timezone.utc  # noqa: UP017  Python 3.10 has no datetime.UTC


@dataclass(frozen=True)
class Codec(Reading):
    """`prepare` and `restore` map between the application's value and the one that is encoded; `kind` is what an
    encoding of the column must be, None for any; `read_plain` and `write_plain` speak with the column as it was."""

    prepare: Convert
    read_plain: Convert
    write_plain: Convert = str
    kind: Kind | None = None
    restore: Convert | None = None
    read: Callable[[bytes], Any] | None = None
    text_as_it_is: bool = False
    """Whether `prepare` changes nothing about a str."""
    is_null: Callable[[Any], bool] | None = None
    """Whether a plain column would hold NULL in a value's place, where a field makes NULL of some."""

    def to_bytes(self) -> Callable[[Any], bytes]:
        """A function, since it runs for every value that is written."""
        prepare = self.prepare
        if not self.text_as_it_is:
            return lambda value: encode(prepare(value))
        return lambda value: text_encoding(value) if type(value) is str else encode(prepare(value))


def codec_of(inner: models.Field) -> Codec:
    """The codec of a field's values."""
    if isinstance(inner, models.JSONField):
        return _json(inner)  # which tells SQL's NULL from its own
    if isinstance(inner, models.BinaryField):
        return Codec(_binary, _binary, _binary, Kind.BYTES)
    if hasattr(inner, "base_field") and inner.get_internal_type() == "ArrayField":
        return _array(codec_of(inner.base_field))
    codec = _simple(inner)
    # an address is Django's own that makes NULL of an empty text
    empties = isinstance(inner, models.GenericIPAddressField)
    if empties or is_own(inner, "get_prep_value", "get_db_prep_value", "get_db_prep_save"):
        codec = replace(codec, is_null=lambda value: _is_null(inner, value))
    own = getattr(inner, "from_db_value", None)
    if own is None:
        return codec
    # a field of the application's own, over one of Django's: what a plain column would hold is what is encrypted
    return replace(
        codec,
        prepare=lambda value: inner.get_db_prep_save(value, connection),
        read_plain=lambda stored: own(stored, None, connection),
        write_plain=lambda value: str(inner.get_db_prep_save(value, connection)),
        kind=None,
        restore=lambda value: own(value, None, connection),
        text_as_it_is=False,
    )


def is_own(inner: models.Field, *methods: str) -> bool:
    """Whether a field's class is the application's, and converts values in a way of its own."""
    for name in methods:
        owner = next(kind for kind in type(inner).__mro__ if name in vars(kind))
        if not owner.__module__.startswith("django.db.models."):
            return True
    return False


def _is_null(inner: models.Field, value: Any) -> bool:
    try:
        return inner.get_db_prep_save(value, connection) is None
    except (*UNFIT, ValidationError):
        return False  # found, and told, where the value is encrypted


_KINDS: Final[list[tuple[type[models.Field], Kind]]] = [
    (models.BooleanField, Kind.BOOLEAN),
    (models.FloatField, Kind.FLOAT),
    (models.IntegerField, Kind.INTEGER),
    (models.TimeField, Kind.TIME),
    (models.UUIDField, Kind.UUID),
    (models.CharField, Kind.TEXT),
    (models.TextField, Kind.TEXT),
    (models.GenericIPAddressField, Kind.TEXT),
    (models.FilePathField, Kind.TEXT),
]


def _simple(inner: models.Field) -> Codec:
    to_python = _strict(inner.to_python)
    prepare = _strict(inner.get_prep_value)
    if isinstance(inner, models.DecimalField):
        return Codec(lambda value: _quantized(inner, to_python(value)), to_python, str, Kind.DECIMAL)
    if isinstance(inner, models.DateTimeField):
        return Codec(
            lambda value: _moment(inner, to_python, value),
            lambda stored: restored_moment(as_configured(to_python(stored))),
            lambda value: str(_moment(inner, to_python, value).isoformat()),
            Kind.DATETIME,
            restored_moment,
        )
    if isinstance(inner, models.DateField):
        return Codec(to_python, to_python, lambda value: str(to_python(value).isoformat()), Kind.DATE)
    if isinstance(inner, models.DurationField):
        return Codec(to_python, to_python, lambda value: duration_string(to_python(value)), Kind.DURATION)
    for field, kind in _KINDS:
        if isinstance(inner, field):
            # a plain column gives back what the database holds, so the value itself and no subclass of its type
            own = kind is Kind.TEXT and _converts_as_django(inner)
            return Codec(prepare, to_python, lambda value: str(prepare(value)), kind, text_as_it_is=own)
    return Codec(prepare, to_python)


def _converts_as_django(inner: models.Field) -> bool:
    """Whether a field of text leaves a str as it is, as Django's own do; a subclass may strip or fold it."""
    own = (models.CharField, models.TextField)
    return any(
        type(inner).to_python is one.to_python and type(inner).get_prep_value is one.get_prep_value for one in own
    )


def _strict(convert: Convert) -> Convert:
    """The conversion, with an error that does not quote the value in place of Django's."""

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except ValidationError:
            raise ValueError("the field does not accept the value") from None

    return converted


def _quantized(inner: models.DecimalField, value: Decimal) -> Decimal:
    """With the digits that a plain column would keep. Raises InvalidOperation when there are too many."""
    text = format_number(value, inner.max_digits, inner.decimal_places)
    return Decimal(text)


def _moment(inner: models.DateTimeField, to_python: Convert, value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # as Django reads a date
    moment: datetime = to_python(value)
    if settings.USE_TZ and is_naive(moment):
        # Django's warning, without the value
        name = f"{inner.model.__name__}.{inner.name}" if hasattr(inner, "model") else "(unbound)"
        message = f"DateTimeField {name} received a naive datetime while time zone support is active."
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return as_configured(moment)


def as_configured(moment: datetime) -> datetime:
    """As the project keeps moments: aware where it uses time zones, else naive and in the default zone."""
    if settings.USE_TZ:
        return make_aware(moment, get_default_timezone()) if is_naive(moment) else moment
    return moment if is_naive(moment) else make_naive(moment, get_default_timezone())


def restored_moment(moment: datetime) -> datetime:
    """As a plain column returns it: in UTC where the project uses time zones, else naive."""
    if moment.tzinfo is None:
        return moment
    return moment.astimezone(_UTC) if settings.USE_TZ else make_naive(moment, get_default_timezone())


def _binary(value: Any) -> bytes:
    if isinstance(value, str):
        raise TypeError("text in place of bytes")
    return bytes(value)


def _json(inner: models.JSONField) -> Codec:
    own = type(inner).from_db_value is not models.JSONField.from_db_value

    def dumps(value: Any) -> str:
        return json.dumps(value, cls=inner.encoder)

    def prepare(value: Any) -> Json:
        value = inner.get_prep_value(value)
        return Json(value) if inner.encoder is None else Json(text=dumps(value))

    def loads(text: Any) -> Any:
        return inner.from_db_value(text, None, connection) if own else json.loads(text, cls=inner.decoder)

    def read(data: bytes) -> Any:
        if data[:1] != b"\x1c":
            raise InvalidValue("not JSON, which the field asks for")
        return loads(str(data[1:], "utf-8"))

    def read_plain(stored: Any) -> Any:
        return loads(stored) if isinstance(stored, str) else stored

    return Codec(prepare, read_plain, dumps, Kind.JSON, read=read if own or inner.decoder else None)


def _array(item: Codec) -> Codec:
    def each(convert: Convert | None, values: Any) -> Any:
        if isinstance(values, list | tuple):
            return [each(convert, value) for value in values]
        return values if values is None or convert is None else convert(values)

    def prepare(values: Any) -> Any:
        if not isinstance(values, list | tuple):
            raise TypeError("no array")
        return each(item.prepare, values)

    def read_plain(stored: Any) -> Any:
        return each(item.read_plain, json.loads(stored) if isinstance(stored, str) else stored)

    def restore(values: Any) -> Any:
        return each(item.restore, values)

    return Codec(prepare, read_plain, lambda values: json.dumps(each(item.write_plain, values)), Kind.ARRAY, restore)
