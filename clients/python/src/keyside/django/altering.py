"""Migrations: what a schema change cannot do to encrypted columns is refused.

A DEFAULT of the database would be one plaintext, or one ciphertext, for all rows.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.sqlite3.schema import DatabaseSchemaEditor as SQLiteSchemaEditor

from keyside.django.fields import EncryptedField
from keyside.fields import FieldUnwritable


def hook_schemas() -> None:
    """Put the hooks in place; once a process."""
    BaseDatabaseSchemaEditor.effective_default = _effective_default(BaseDatabaseSchemaEditor.effective_default)
    BaseDatabaseSchemaEditor.alter_field = _alter_field(BaseDatabaseSchemaEditor.alter_field)
    for owner in (BaseDatabaseSchemaEditor, SQLiteSchemaEditor):
        owner.add_field = _add_field(owner.add_field, owner)


def _effective_default(original: Any) -> Any:
    @wraps(original)
    def effective_default(self: Any, field: Any) -> Any:
        # where rows would need it, it was refused before
        return None if isinstance(field, EncryptedField) else original(self, field)

    return effective_default


def _add_field(original: Any, owner: Any) -> Any:
    @wraps(original)
    def add_field(self: Any, model: type[models.Model], field: Any) -> Any:
        # that of SQLite calls the one beneath for some fields only
        is_first = owner is SQLiteSchemaEditor or not isinstance(self, SQLiteSchemaEditor)
        if is_first and not self.collect_sql:  # sqlmigrate shows SQL of tables that need not be there
            if isinstance(field, EncryptedField) and _needs_value(field) and _has_rows(self, model):
                _refuse_default(field)
        return original(self, model, field)

    return add_field


def _alter_field(original: Any) -> Any:
    @wraps(original)
    def alter_field(self: Any, model: type[models.Model], old_field: Any, new_field: Any, strict: bool = False) -> Any:
        if not self.collect_sql:
            becomes_not_null = isinstance(new_field, EncryptedField) and old_field.null and not new_field.null
            if becomes_not_null and _has_rows(self, model, f"{_quoted(self, old_field.column)} IS NULL"):
                _refuse_default(new_field)
        return original(self, model, old_field, new_field, strict)

    return alter_field


def _needs_value(field: EncryptedField) -> bool:
    """Whether rows that are there would have to hold something in a new column."""
    return not field.null or (field.has_default() and field.get_default() is not None)


def _refuse_default(field: EncryptedField) -> None:
    raise FieldUnwritable(
        "rows that are there would take a default, which no migration can encrypt for each of them: add the column with"
        " null=True and without a default, fill it (RunPython, or keyside_backfill --from), then make it NOT NULL",
        field.model._meta.db_table,
        field.column,
    )


def _has_rows(editor: Any, model: type[models.Model], condition: str = "1 = 1") -> bool:
    with editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {_quoted(editor, model._meta.db_table)} WHERE {condition} LIMIT 1")  # noqa: S608  own names
        return cursor.fetchone() is not None


def _quoted(editor: Any, name: str) -> str:
    return str(editor.connection.ops.quote_name(name))
