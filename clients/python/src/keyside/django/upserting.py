"""Upserts: what `bulk_create(update_conflicts=True)` changes of rows that are there already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import wraps
from typing import Any

from django.db import models
from django.db.models import QuerySet

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.keeping import is_kept
from keyside.django.lookups import refuse
from keyside.django.telling import bindings, field_named
from keyside.fields import BindingMissing, FieldUnwritable


def hook_upserts() -> None:
    """Put the hook in place; once a process."""
    QuerySet.bulk_create = _bulk_create(QuerySet.bulk_create)


def _bulk_create(original: Any) -> Any:
    @wraps(original)
    def bulk_create(
        self: Any,
        objs: Iterable[Any],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Sequence[str] | None = None,
        unique_fields: Sequence[str] | None = None,
    ) -> Any:
        if update_conflicts and update_fields:
            objs = list(objs)
            update_fields = _upserted(self.model, list(update_fields), unique_fields or ())
            _check_kept(self.model, objs, update_fields)
            if unique_fields:
                unique_fields = [_unique(self.model, name) for name in unique_fields]
        return original(self, objs, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields)

    return bulk_create


def _upserted(model: type[models.Model], names: list[str], unique: Iterable[str]) -> list[str]:
    """The fields that an upsert updates, with the indexes of those that are encrypted.

    Raises BindingMissing for an upsert that may change another row than the one that its values are bound to, or what
    other values are bound to; FieldUnwritable for an index without its field.
    """
    keys = {meta.name for meta in model._meta.pk_fields} if "pk" in unique else set()
    changed = {field for name in names if (field := field_named(model, name))}
    found = changed | {field for name in (*unique, *keys) if (field := field_named(model, name)) and _is_exact(field)}
    for field in changed:
        if isinstance(field, BlindIndexField) and field.source_field not in changed:
            message = f"a blind index is written with its field; name {field.source} in update_fields"
            raise FieldUnwritable(message, model._meta.db_table, field.column)
    check_bindings(model, {field.name for field in changed})
    for field in model._meta.local_concrete_fields:
        if isinstance(field, EncryptedField) and field in changed:
            needed = {local for name in bindings(field) if (local := field_named(model, name))}
            if not needed <= found:
                raise BindingMissing(
                    "an upsert that updates it must find the row by"
                    f" {', '.join(sorted(local.attname for local in needed))}, which it is bound to: name them in"
                    " unique_fields or update_fields, or update such rows one by one",
                    model._meta.db_table,
                    field.column,
                )
            names += [index.name for index, _ in field.indexes if index not in changed]
    return names


def _unique(model: type[models.Model], name: str) -> str:
    """What the database finds the row by: of an encrypted field, its unique index."""
    field = None if name == "pk" else model._meta.get_field(name)
    if isinstance(field, EncryptedField):
        whole = [index for index, declared in field.indexes if declared.normalize.whole]
        if not whole:
            refuse(field, "unique_fields", "declare it with blind_index=BlindIndex(unique=True)")
        # one that is not unique may be so together with other columns; the database knows
        return str(next((index for index in whole if index.unique), whole[0]).name)
    return name


def _check_kept(model: type[models.Model], objs: list[Any], names: list[str]) -> None:
    """Raises FieldUnwritable where NULL would take the place of a value that did not open."""
    for field in model._meta.local_concrete_fields:
        if isinstance(field, EncryptedField) and field.name in names and any(is_kept(field, obj) for obj in objs):
            message = "an object's value was None when it was read, maybe for it did not open: assign None to erase it"
            raise FieldUnwritable(message, model._meta.db_table, field.column)


def _is_exact(field: models.Field) -> bool:
    """Whether a conflict means that the row holds the very value; a text may be spelled otherwise under a collation."""
    return not getattr(getattr(field, "target_field", field), "db_collation", None)


def check_bindings(model: type[models.Model], written: set[str]) -> None:
    """Raises BindingMissing when columns would no longer open after these were changed."""
    for field in model._meta.local_concrete_fields:
        if isinstance(field, EncryptedField) and field.name not in written:
            changed = {local.name for name in bindings(field) if (local := field_named(model, name))} & written
            if changed:
                message = f"it is bound to {', '.join(sorted(changed))}, which changes: write the field as well"
                raise BindingMissing(message, model._meta.db_table, field.column)
