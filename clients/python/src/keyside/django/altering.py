"""Migrations: what a schema change cannot do to encrypted columns, and would do to their indexes silently, is refused.

A DEFAULT of the database would be one plaintext, or one ciphertext, for all rows; and an index is computed for its
column's name, so that one that is renamed finds nothing any more.
"""

from __future__ import annotations

import warnings
from functools import wraps
from typing import Any, Final

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.sqlite3.schema import DatabaseSchemaEditor as SQLiteSchemaEditor
from django.db.backends.utils import strip_quotes

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.fields import FieldUnwritable

_ANEW: Final = "RemoveField and AddField it, then run keyside_backfill, which computes it anew"
_NAMED: Final = f"give it context={{!r}} in an AlterField before this operation, and in its BlindIndex; or {_ANEW}"


class IndexIncomplete(UserWarning):
    """Rows hold values that a new blind index does not know yet: searches miss them until a backfill."""


def hook_schemas() -> None:
    """Put the hooks in place; once a process."""
    BaseDatabaseSchemaEditor.effective_default = _effective_default(BaseDatabaseSchemaEditor.effective_default)
    BaseDatabaseSchemaEditor.alter_field = _alter_field(BaseDatabaseSchemaEditor.alter_field)
    BaseDatabaseSchemaEditor.alter_db_table = _alter_db_table(BaseDatabaseSchemaEditor.alter_db_table)
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
            if isinstance(field, EncryptedField) and _needs_value(field) and _has_rows(self, model._meta.db_table):
                _refuse_default(field)
            if isinstance(field, BlindIndexField):
                _warn_of_rows_without(self, model, field)
        return original(self, model, field)

    return add_field


def _alter_field(original: Any) -> Any:
    @wraps(original)
    def alter_field(self: Any, model: type[models.Model], old_field: Any, new_field: Any, strict: bool = False) -> Any:
        if not self.collect_sql:
            becomes_not_null = isinstance(new_field, EncryptedField) and old_field.null and not new_field.null
            if becomes_not_null and _has_rows(self, model._meta.db_table, f"{_quoted(self, old_field.column)} IS NULL"):
                _refuse_default(new_field)
            if isinstance(old_field, BlindIndexField) and isinstance(new_field, BlindIndexField):
                _refuse_stale(self, model._meta.db_table, old_field, new_field)
        return original(self, model, old_field, new_field, strict)

    return alter_field


def _alter_db_table(original: Any) -> Any:
    @wraps(original)
    def alter_db_table(self: Any, model: type[models.Model], old_db_table: str, new_db_table: str) -> Any:
        # SQLite's editor fills a new table and gives it the name of the old one
        is_filled = strip_quotes(old_db_table) == f"new__{strip_quotes(new_db_table)}"
        if not self.collect_sql and not is_filled and old_db_table != new_db_table:
            for field in model._meta.local_concrete_fields:
                if isinstance(field, BlindIndexField) and not field.context:
                    advice = _NAMED.format(f"{old_db_table}.{field.column}")
                    _refuse_if_indexed(self, old_db_table, field.column, advice)
        return original(self, model, old_db_table, new_db_table)

    return alter_db_table


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


def _warn_of_rows_without(editor: Any, model: type[models.Model], index: BlindIndexField) -> None:
    source = next((one for one in model._meta.local_concrete_fields if one.name == index.source), None)
    if not isinstance(source, EncryptedField) or source.stage.reads_plaintext:
        return  # there, rows without an index are searched as the plaintext that they hold
    if _has_rows(editor, model._meta.db_table, f"{_quoted(editor, source.column)} IS NOT NULL"):
        message = (
            f"{model._meta.db_table}.{index.column}: rows hold values that this new index does not know; until"
            f" `keyside_backfill {model._meta.label}.{source.name}` is through, searches miss them and unique=True lets"
            " duplicates in"
        )
        warnings.warn(message, IndexIncomplete, stacklevel=2)


def _refuse_stale(editor: Any, table: str, old: BlindIndexField, new: BlindIndexField) -> None:
    """Raises FieldUnwritable when the indexes that rows have would be none of those that are looked for afterwards."""
    was, becomes = (one.context or f"{table}.{one.column}" for one in (old, new))
    alike = old.normalize.name == new.normalize.name or old.normalize.apply is new.normalize.apply
    if was != becomes:
        _refuse_if_indexed(editor, table, old.column, _NAMED.format(was))
    elif not alike or old.partitioned != new.partitioned:
        _refuse_if_indexed(editor, table, old.column, _ANEW)


def _refuse_if_indexed(editor: Any, table: str, column: str, advice: str) -> None:
    if _has_rows(editor, table, f"{_quoted(editor, column)} IS NOT NULL"):
        message = f"rows hold indexes that were computed otherwise, and searches would miss them: {advice}"
        raise FieldUnwritable(message, table, column)


def _has_rows(editor: Any, table: str, condition: str = "1 = 1") -> bool:
    with editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {_quoted(editor, table)} WHERE {condition} LIMIT 1")  # noqa: S608  own names
        return cursor.fetchone() is not None


def _quoted(editor: Any, name: str) -> str:
    return str(editor.connection.ops.quote_name(name))
