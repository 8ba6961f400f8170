"""`EncryptedField`: what is encrypted, and how it behaves towards the rest of Django: as the field inside it does."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from django.core import checks
from django.db import models
from django.db.models import NOT_PROVIDED
from django.db.models.query_utils import DeferredAttribute

from keyside.django import settings
from keyside.django.attributes import Get, Set, TypedField
from keyside.django.checking import problems, require_app
from keyside.django.codecs import Codec, codec_of
from keyside.django.expressions import check_written, without_null
from keyside.django.indexing import BlindIndex, BlindIndexField
from keyside.django.keeping import KeptAttribute, is_kept
from keyside.django.lookups import lookup_of, refuse
from keyside.django.schemas import refuse_hidden_bindings
from keyside.django.telling import Kept, Told, Written, row_of_instance, tell
from keyside.fields import (
    Field,
    FieldUnwritable,
    Index,
    OnFieldError,
    Partition,
    Placeholder,
    Stage,
    note_unbatched,
    open_one,
    stage_of,
)
from keyside.fields.declaration import UNFIT

if TYPE_CHECKING:
    from keyside.django.attributes import Attribute

Storage: TypeAlias = "Literal['bytes', 'text'] | models.Field"

_DATABASE_OPTIONS: Final = {
    "primary_key": (False, "a key must be comparable; encrypt another column"),
    "_unique": (False, "ciphertexts of equal values differ; declare blind_index=BlindIndex(unique=True)"),
    "db_index": (False, "ciphertexts of equal values differ; declare blind_index=BlindIndex()"),
    "db_default": (NOT_PROVIDED, "the database cannot encrypt; use default="),
    "unique_for_date": (None, "the database sees ciphertext only"),
    "unique_for_month": (None, "the database sees ciphertext only"),
    "unique_for_year": (None, "the database sees ciphertext only"),
}


class EncryptedField(TypedField[Set, Get]):
    """A column whose values are encrypted by the Keyside sidecar; in Python they are what `inner` makes of them.

    `inner`: the field that the column would have, with its null, blank, default, choices, validators and names.
    `keyring`: name of the keyring, `partition`: name of the field (or `keyside.from_context(name)`) that chooses the
    partition of a partitioned one. `bind`: field, or fields, of the row's key; a ciphertext then opens in its own row
    alone. They must be known to Python when the row is inserted. `context`: text in place of `table.column`, for a
    table or column that was renamed. `blind_index`: a BlindIndex, or several. `storage`: "bytes" (bytea, BLOB),
    "text" (the `ks1.` form) or a field such as CharField(max_length=600). `on_error`: "none" reads a value that does
    not open as None. `migrating`: "plain" or "plaintext" while rows may still hold plaintext
    (docs/orm/encrypt-a-column.md), "rotating" is for people only.

    Raises ValueError for what cannot be encrypted.
    """

    description = "An encrypted field"

    def __init__(
        self,
        inner: Attribute[Set, Get],
        *,
        keyring: str,
        partition: Partition = None,
        bind: str | Iterable[str] = (),
        context: str = "",
        blind_index: BlindIndex | Iterable[BlindIndex] = (),
        storage: Storage = "bytes",
        on_error: OnFieldError = "raise",
        migrating: str | Stage | None = None,
    ) -> None:
        # of its own: the model names it, and another field or a historical model may be made with the same one
        self.inner = field = copy.deepcopy(_encryptable(inner))
        self.keyring = keyring
        self.partition = partition
        self.bind = (bind,) if isinstance(bind, str) else tuple(bind)
        self.context = context
        self.blind_indexes = (blind_index,) if isinstance(blind_index, BlindIndex) else tuple(blind_index)
        self.storage = storage
        self.on_error = on_error
        self.stage = stage_of(migrating)
        if on_error not in ("raise", "none"):
            raise ValueError("on_error: expected 'raise' or 'none'")
        if on_error == "none":
            self.descriptor_class = KeptAttribute
        self.stored = _stored_field(storage)
        super().__init__(
            verbose_name=field._verbose_name,
            name=None if hasattr(field, "model") else field.name,
            max_length=field.max_length,
            blank=field.blank,
            null=field.null,
            default=field.default,
            editable=field.editable,
            serialize=field.serialize,
            choices=field.choices,
            help_text=field.help_text,
            db_column=field.db_column,
            db_tablespace=field._db_tablespace,
            db_comment=field.db_comment,
            error_messages=field._error_messages,
        )
        self.empty_strings_allowed = field.empty_strings_allowed
        self.empty_values = field.empty_values
        for name in ("encoder", "decoder", "max_digits", "decimal_places"):
            if hasattr(field, name):
                setattr(self, name, getattr(field, name))

    # being part of a model and of migrations

    def __deepcopy__(self, memo: dict[int, Any]) -> EncryptedField:
        fresh: EncryptedField = super().__deepcopy__(memo)
        fresh.inner = copy.deepcopy(self.inner, memo)
        fresh._forget()
        return fresh

    def _forget(self) -> None:
        for stale in ("declaration", "indexes", "_declared_indexes", "codec"):
            self.__dict__.pop(stale, None)

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        self._forget()
        self.inner.name = self.name  # what it was called before a migration renamed it is past
        self.inner.set_attributes_from_name(name)
        self.inner.model = cls
        super().contribute_to_class(cls, name, private_only)
        # update_or_create writes, beside what it is told, each field whose class has a pre_save of its own
        if type(self).pre_save is models.Field.pre_save:
            if type(self.inner).pre_save is models.Field.pre_save:
                self.__dict__["pre_save"] = self._pre_save
            else:
                kind: Any = type(self)
                self.__class__ = _stamped(kind)
        names = [index.name or f"{self.name}_index" for index in self.blind_indexes]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{cls.__name__}.{self.name}: its blind indexes need names of their own, BlindIndex(name=…)"
            )
        here = {field.name for field in cls._meta.local_fields}
        for index, own in zip(self.blind_indexes, names, strict=True):
            if own not in here:
                cls.add_to_class(own, index.field_for(self.name))
        refuse_hidden_bindings(cls)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Without the indexes: their columns are fields that migrations name themselves."""
        options: dict[str, tuple[Any, Any]] = {
            "partition": (self.partition, None),
            "bind": (list(self.bind), []),
            "context": (self.context, ""),
            "storage": (self.storage, "bytes"),
            "on_error": (self.on_error, "raise"),
            "migrating": (self.stage.value, Stage.ENCRYPTED.value),
        }
        given = {name: value for name, (value, default) in options.items() if value != default}
        return self.name, "keyside.django.EncryptedField", [self.inner], {"keyring": self.keyring, **given}

    def check(self, **options: Any) -> list[checks.CheckMessage]:
        return [*self.inner.check(**options), *problems(self, options.get("databases"))]

    def get_internal_type(self) -> str:
        # serializers of XML ask it whether values are JSON documents; the column's type is told below
        told = self.inner if isinstance(self.inner, models.JSONField) else self.stored
        return str(told.get_internal_type())

    def db_check(self, connection: Any) -> str | None:
        found: str | None = self.stored.db_check(connection)
        return found

    def cast_db_type(self, connection: Any) -> str | None:
        found: str | None = self.stored.cast_db_type(connection)
        return found

    def db_type(self, connection: Any) -> str | None:
        found: str | None = self.stored.db_type(connection)
        return found

    @cached_property
    def codec(self) -> Codec:
        """How values become encodings."""
        return codec_of(self.inner)

    @cached_property
    def declaration(self) -> Field:
        """The declaration in Keyside's terms. Raises ImproperlyConfigured without the application: here every read and
        write comes by."""
        require_app()
        codec = self.codec
        return Field(
            self.model._meta.db_table,
            self.column,
            self.keyring,
            self.partition,
            self.context,
            bind=self.bind,
            on_error=self.on_error,
            stage=self.stage,
            storage="bytes" if isinstance(self.stored, models.BinaryField) else "text",
            to_bytes=codec.to_bytes(),
            from_bytes=codec.from_bytes(),
            from_column=codec.from_column(),
            from_plaintext=self.from_plain,
        )

    @cached_property
    def indexes(self) -> list[tuple[BlindIndexField, Index]]:
        """Its blind indexes: the field of each column, and the declaration in Keyside's terms."""
        fields = self.model._meta.local_concrete_fields
        mine = [field for field in fields if isinstance(field, BlindIndexField) and field.source == self.name]
        return [(field, field.declaration) for field in mine]

    @cached_property
    def _declared_indexes(self) -> list[Index]:
        return [declared for _, declared in self.indexes]

    # as the field inside

    def formfield(self, **options: Any) -> Any:
        return self.inner.formfield(**options)

    def to_python(self, value: Any) -> Any:
        return self.inner.to_python(value)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        self.inner.validate(value, model_instance)

    def run_validators(self, value: Any) -> None:
        self.inner.run_validators(value)

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        return self.inner.clean(value, model_instance)

    def value_to_string(self, obj: models.Model) -> Any:
        return self.inner.value_to_string(obj)

    def value_from_object(self, obj: models.Model) -> Any:
        return self.inner.value_from_object(obj)

    def save_form_data(self, instance: models.Model, data: Any) -> None:
        if data in self.empty_values and is_kept(self, instance):
            return  # a form shows nothing of a value that did not open
        self.inner.save_form_data(instance, data)

    def get_default(self) -> Any:
        return self.inner.get_default()

    @cached_property
    def validators(self) -> list[Any]:
        return list(self.inner.validators)

    # values on their way to the database

    def _pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = self.inner.pre_save(model_instance, add)
        if value is None:
            kept = not add and is_kept(self, model_instance)
            return Kept(row_of_instance(model_instance, self.model)) if kept else None
        if self.declaration.needs_row and not hasattr(value, "resolve_expression"):
            return Told(value, row_of_instance(model_instance, self.model))
        return value

    def get_prep_value(self, value: Any) -> Any:
        """Unchanged: what the field inside would raise may quote the value."""
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """What stands for the value until the statement is encrypted; NULL stays NULL."""
        row = None
        if isinstance(value, Told):
            value, row = value.value, value.row
        if value is None or hasattr(value, "as_sql") or isinstance(value, Placeholder):
            return value
        if self.holds_null(value):
            return None
        written = Written(self.declaration, value, self._declared_indexes)
        if self.stage is Stage.PLAIN:
            written.sealed = self._plain(value)
        return tell(written, row)

    def holds_null(self, value: Any) -> bool:
        """Whether a plain column would hold NULL for a value, since the field inside makes NULL of it."""
        return self.codec.is_null is not None and self.codec.is_null(value)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if hasattr(value, "as_sql"):
            check_written(self, value)
            return without_null(value)
        return self.get_db_prep_value(value, connection)

    def _plain(self, value: Any) -> str | bytes | None:
        try:
            plain = self.to_plain(value)
        except UNFIT:
            message = f"a value of type {type(value).__name__} does not fit the field"
            raise FieldUnwritable(message, self.model._meta.db_table, self.column) from None
        stored: str | bytes | None = self.declaration.as_plaintext(plain)
        return stored

    def to_plain(self, value: Any) -> str | bytes | None:
        """What the column holds of a value in plaintext. Raises what conversions raise."""
        if value is None:
            return None
        plain: str | bytes = self.codec.write_plain(value)
        if isinstance(plain, str) and self.declaration.storage == "bytes":
            return plain.encode()
        return plain

    def from_plain(self, stored: Any) -> Any:
        """The value of a plaintext that the column holds. Raises what conversions raise."""
        if isinstance(stored, bytes | bytearray | memoryview) and not isinstance(self.inner, models.BinaryField):
            stored = str(bytes(stored), "utf-8")
        return self.codec.read_plain(stored)

    # and back

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """A value that was not decrypted with its chunk takes a round trip of its own."""
        if value is None:
            return None
        declared = self.declaration
        note_unbatched(declared, settings.unbatched())
        return open_one(declared, value, settings.send())

    # conditions

    def get_lookup(self, lookup_name: str) -> Any:
        return lookup_of(self, lookup_name)

    def get_transform(self, lookup_name: str) -> Any:
        refuse(self, lookup_name, "the database sees ciphertext only; compute it in Python")

    def slice_expression(self, expression: Any, start: int, length: int | None) -> Any:
        refuse(self, "a slice", "the database sees ciphertext only; compute it in Python")


@cache
def _stamped(kind: Any) -> Any:
    """The class of a field whose inner one may choose its value when it is saved, as `auto_now` does."""

    def pre_save(self: EncryptedField, model_instance: models.Model, add: bool) -> Any:
        return self._pre_save(model_instance, add)

    return type(kind.__name__, (kind,), {"pre_save": pre_save, "__module__": kind.__module__, "__doc__": kind.__doc__})


def _encryptable(inner: Any) -> models.Field:
    if not isinstance(inner, models.Field) or isinstance(inner, EncryptedField):
        raise ValueError("inner: expected the field that the column would have without encryption")
    kind = type(inner).__name__
    if inner.is_relation or inner.generated or isinstance(inner, models.AutoField | models.BigAutoField):
        raise ValueError(f"a {kind} cannot be encrypted: the database must understand it")
    if inner.descriptor_class is not DeferredAttribute:
        raise ValueError(f"a {kind} cannot be encrypted: its values are not what the column holds")
    for name, (wanted, advice) in _DATABASE_OPTIONS.items():
        implied = name == "db_index" and isinstance(inner, models.SlugField)
        if getattr(inner, name, wanted) is not wanted and not implied:
            raise ValueError(f"{name.strip('_')} of the field inside an EncryptedField: {advice}")
    return inner


def _stored_field(storage: Storage) -> models.Field:
    if isinstance(storage, models.CharField | models.TextField):
        return storage
    if storage not in ("bytes", "text"):
        raise ValueError("storage: expected 'bytes', 'text' or a field such as CharField(max_length=600)")
    return models.BinaryField() if storage == "bytes" else models.TextField()
