"""Blind indexes: the declaration beside an encrypted field, and the column that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.core import checks
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from keyside.django.checking import require_app
from keyside.django.expressions import without_null
from keyside.django.index_lookups import INDEX_LOOKUPS
from keyside.django.telling import SearchPlaceholder, Told, row_of_instance, tell
from keyside.fields import (
    BindingMissing,
    FieldUnwritable,
    Index,
    Normalization,
    Normalize,
    NotSearchable,
    Placeholder,
    normalization,
)
from keyside.fields.declaration import ReadIndex

MYSQL_BYTES = 64
"""MySQL indexes no BLOB; the longest index has 32 bytes."""


@dataclass(frozen=True)
class BlindIndex:
    """A blind index of an encrypted field: a hidden column `<field>_index`, or `name`.

    `normalize`: what counts as equal: "exact", "trim", "casefold", "digits", a part of the value ("domain",
    `last(4)`), which is searched by the column itself, or a function whose results never change, which counts as a
    part unless it is marked with `@whole`. `unique`: no two rows with equal values. `partitioned`: under the key of the
    row's partition, which a search names beside the value or takes from `keyside.context`. `context`: text in place of
    `table.column`; equal ones make columns comparable.
    """

    unique: bool = False
    normalize: Normalize = "exact"
    name: str = ""
    partitioned: bool = False
    context: str = ""

    def __post_init__(self) -> None:
        normalization(self.normalize)  # found where it is declared

    def field_for(self, source: str) -> BlindIndexField:
        """The column's field."""
        return BlindIndexField(source, self.normalize, self.partitioned, self.context, unique=self.unique)


class _IndexAttribute(DeferredAttribute):
    """On an object, an index column stands for the value that it indexes, so that it always follows it.

    None where there is no index: Django asks it for what must be unique.
    """

    def __get__(self, instance: models.Model | None, owner: type[models.Model] | None = None) -> Any:
        if instance is None:
            return self
        value = getattr(instance, self.field.source_field.attname)
        if value is None or hasattr(value, "resolve_expression") or self.field.source_field.holds_null(value):
            return None
        try:
            return None if self.field.declaration.encode(value) is None else self.field.compared(instance, value)
        except FieldUnwritable:
            return None  # found, and told, where the value is validated or written

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = None  # tells Django that the column is not deferred


class BlindIndexField(models.Field):
    """The column of a blind index; migrations name it, models declare `BlindIndex` with the encrypted field.

    It is written with its source, and compared with plain values: `filter(ssn_last_four="6789")`.
    """

    description = "The blind index of an encrypted field"
    empty_strings_allowed = False
    descriptor_class = _IndexAttribute

    def __init__(
        self,
        source: str,
        normalize: Normalize = "exact",
        partitioned: bool = False,
        context: str = "",
        *,
        unique: bool = False,
        db_column: str | None = None,
    ) -> None:
        self.source = source
        self.normalize = normalization(normalize)
        self._choice = normalize
        self.partitioned = partitioned
        self.context = context
        super().__init__(
            unique=unique,
            db_index=not unique,
            db_column=db_column,
            null=True,
            blank=True,
            editable=False,
            serialize=False,
        )

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        name = self.name
        written = self._choice.name if isinstance(self._choice, Normalization) else self._choice
        named = {
            "normalize": (written, "exact"),
            "partitioned": (self.partitioned, False),
            "context": (self.context, ""),
        }
        named |= {"unique": (self._unique, False), "db_column": (self.db_column, None)}
        options = {option: value for option, (value, default) in named.items() if value != default}
        return name, "keyside.django.BlindIndexField", [self.source], options

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        for stale in ("source_field", "declaration"):
            self.__dict__.pop(stale, None)
        fields = cls._meta.local_fields
        # an encrypted field has put one in place, and a copied model brings its own
        fields[:] = [field for field in fields if field.name != name or not isinstance(field, BlindIndexField)]
        super().contribute_to_class(cls, name, private_only)
        self.pre_save = self._pre_save  # no method of the class: as in an EncryptedField

    @cached_property
    def source_field(self) -> Any:
        """The encrypted field. Raises FieldDoesNotExist."""
        return self.model._meta.get_field(self.source)

    @cached_property
    def declaration(self) -> Index:
        """The declaration in Keyside's terms. Raises ImproperlyConfigured without the application."""
        require_app()
        source = self.source_field
        prepare, apply = source.codec.prepare, self.normalize.apply
        return Index(
            self.model._meta.db_table,
            self.column,
            source.keyring,
            source.partition if self.partitioned else None,
            self.context,
            source=source.column,
            normalize=Normalization(
                self.normalize.name, lambda value: apply(prepare(value)), whole=self.normalize.whole
            ),
        )

    def compared(self, instance: models.Model, value: Any) -> Any:
        """What finds rows with an object's value; None while the object does not tell the partition."""
        chooser = self.declaration.partition_column
        if chooser is None:
            return value
        row = row_of_instance(instance, self.model)
        try:
            return None if row(chooser) is None else Told(value, row)
        except BindingMissing:
            return None

    def check(self, **options: Any) -> list[checks.CheckMessage]:
        source = next((one for one in self.model._meta.local_fields if one.name == self.source), None)
        if not hasattr(type(source), "declaration") or isinstance(source, BlindIndexField):
            message = f"It indexes {self.source!r}, which is no EncryptedField of the model."
            return [checks.Error(message, obj=self, id="keyside.E004")]
        return list(super().check(**options))

    def get_internal_type(self) -> str:
        return "BinaryField"

    def db_type(self, connection: Any) -> str | None:
        return f"varbinary({MYSQL_BYTES})" if connection.vendor == "mysql" else super().db_type(connection)

    def _pre_save(self, model_instance: models.Model, add: bool) -> Any:
        source = self.source_field.attname
        if not add and source not in model_instance.__dict__:
            return None  # not written, since its field is not: an UPDATE makes it of the value alone
        value = getattr(model_instance, source)
        if self.declaration.needs_row and value is not None:
            return Told(value, row_of_instance(model_instance, self.model))
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """What stands for the index of a value that is looked for."""
        row = None
        if isinstance(value, Told):
            value, row = value.value, value.row
        if value is None or hasattr(value, "as_sql"):
            return value
        if isinstance(value, ReadIndex):
            return connection.Database.Binary(value)
        if isinstance(value, bytes | bytearray | memoryview) and not self._indexes_bytes:
            message = "bytes are no value of the field, and no index that a query read; give it the value"
            raise NotSearchable(message, self.model._meta.db_table, self.column)
        return tell(SearchPlaceholder(self.declaration, value), row)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> ReadIndex | None:
        """An index as a search knows it again."""
        return None if value is None else ReadIndex(value)

    @property
    def _indexes_bytes(self) -> bool:
        return isinstance(self.source_field.inner, models.BinaryField)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """What stands for the index of a value that is written."""
        row = None
        if isinstance(value, Told):
            value, row = value.value, value.row
        if value is None or hasattr(value, "as_sql") or isinstance(value, Placeholder):
            return without_null(value)
        if self.source_field.holds_null(value):
            return None
        return tell(Placeholder(self.declaration, value), row)

    def get_lookup(self, lookup_name: str) -> Any:
        return INDEX_LOOKUPS.get(lookup_name)

    def get_transform(self, lookup_name: str) -> Any:
        raise NotSearchable(f"{lookup_name}: a blind index knows equality only", self.model._meta.db_table, self.column)
