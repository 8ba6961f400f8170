"""INSERT: a row says what it is when its values are prepared, and its fields may choose that in `pre_save`."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.db import models
from django.db.models.sql.compiler import SQLInsertCompiler

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.telling import Told, bindings, field_named, row_of_instance
from keyside.fields import BindingMissing


def hook_inserts() -> None:
    """Put the hooks in place; once a process."""
    SQLInsertCompiler.as_sql = _as_sql(SQLInsertCompiler.as_sql)
    SQLInsertCompiler.pre_save_val = _pre_save_val(SQLInsertCompiler.pre_save_val)


def _as_sql(original: Any) -> Any:
    @wraps(original)
    def as_sql(self: Any) -> Any:
        choosing = set() if self.query.raw else _choosing(self.query.fields)
        if choosing:
            # each field is asked once, in their order, and encrypted ones must know what the others chose
            self.query.fields = sorted(self.query.fields, key=_is_encrypted)
            self.pre_save_val = _agreeing(self.pre_save_val, choosing)
        return original(self)

    return as_sql


def _is_encrypted(field: models.Field) -> bool:
    return isinstance(field, EncryptedField | BlindIndexField)


def _choosing(fields: list[models.Field]) -> set[models.Field]:
    """Fields that rows are bound to, and that may choose their value when it is saved, as `auto_now` does."""
    encrypted = [field for field in fields if isinstance(field, EncryptedField)]
    bound = {field_named(field.model, name) for field in encrypted for name in bindings(field)}
    return {field for field in bound if field is not None and type(field).pre_save is not models.Field.pre_save}


def _agreeing(original: Any, choosing: set[models.Field]) -> Any:
    def pre_save_val(field: models.Field, obj: models.Model) -> Any:
        value = original(field, obj)
        if field in choosing and value != getattr(obj, field.attname):
            message = (
                "encrypted columns of the row depend on it, and its pre_save returned another value than the object"
                " has: let it set the attribute as well"
            )
            raise BindingMissing(message, field.model._meta.db_table, field.column)
        return value

    return pre_save_val


def _pre_save_val(original: Any) -> Any:
    @wraps(original)
    def pre_save_val(self: Any, field: Any, obj: Any) -> Any:
        value = original(self, field, obj)
        if self.query.raw and isinstance(field, EncryptedField | BlindIndexField) and value is not None:
            # a fixture's object is written as it is, without pre_save
            return Told(value, row_of_instance(obj, field.model))
        return value

    return pre_save_val
