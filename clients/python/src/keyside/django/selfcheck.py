"""Whether Django's internals are the ones that the hooks were made for: what they are called with, and what they do."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, Final

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import QuerySet
from django.db.models.query import RawQuerySet
from django.db.models.query_utils import FilteredRelation
from django.db.models.sql.compiler import (
    SQLAggregateCompiler,
    SQLCompiler,
    SQLDeleteCompiler,
    SQLInsertCompiler,
    SQLUpdateCompiler,
)
from django.db.models.sql.query import Query
from django.db.models.sql.subqueries import UpdateQuery
from django.forms.models import BaseModelFormSet

READING: Final[list[tuple[Any, str, list[str]]]] = [
    (SQLCompiler, "apply_converters", ["rows", "converters"]),
    (SQLCompiler, "execute_sql", ["result_type", "chunked_fetch", "chunk_size"]),
    (SQLCompiler, "get_select", ["with_col_aliases"]),
    (SQLCompiler, "get_qualify_sql", []),
    (SQLCompiler, "pre_sql_setup", ["with_col_aliases"]),
    (SQLCompiler, "get_combinator_sql", ["combinator", "all"]),
    (SQLAggregateCompiler, "as_sql", []),
    (QuerySet, "_fetch_all", []),
    (RawQuerySet, "_fetch_all", []),
    (Query, "set_values", ["fields"]),
    (Query, "_get_only_select_mask", ["opts", "mask", "select_mask"]),
]
WRITING: Final[list[tuple[Any, str, list[str]]]] = [
    (UpdateQuery, "add_update_values", ["values"]),
    (UpdateQuery, "add_update_fields", ["values_seq"]),
    (SQLInsertCompiler, "as_sql", []),
    (SQLInsertCompiler, "pre_save_val", ["field", "obj"]),
    (SQLUpdateCompiler, "pre_sql_setup", []),
    (SQLUpdateCompiler, "execute_sql", ["result_type"]),
    (SQLDeleteCompiler, "as_sql", []),
    (Query, "as_sql", ["compiler", "connection"]),
    (BaseDatabaseSchemaEditor, "effective_default", ["field"]),
    (BaseDatabaseSchemaEditor, "alter_db_table", ["model", "old_db_table", "new_db_table"]),
    (BaseDatabaseSchemaEditor, "add_field", ["model", "field"]),
    (BaseDatabaseSchemaEditor, "alter_field", ["model", "old_field", "new_field", "strict"]),
    (
        models.Model,
        "_save_table",
        ["raw", "cls", "force_insert", "force_update", "using", "update_fields"],
    ),
    (FilteredRelation, "as_sql", ["compiler", "connection"]),
    (models.Model, "_get_unique_checks", ["exclude", "include_meta_constraints"]),
    (models.Model, "_perform_unique_checks", ["unique_checks"]),
    (models.Model, "validate_constraints", ["exclude"]),
    (models.Model, "unique_error_message", ["model_class", "unique_check"]),
    (BaseModelFormSet, "validate_unique", []),
    (models.Model, "refresh_from_db", ["using", "fields", "from_queryset"]),
]


def what_changed(expected: list[tuple[Any, str, list[str]]]) -> str:
    """The first method that is not as expected, empty when all are."""
    for owner, name, parameters in expected:
        method = getattr(owner, name, None)
        if method is None or list(inspect.signature(method).parameters)[1:] != parameters:
            return f"{owner.__name__}.{name}"
    return "" if _converts() else "SQLCompiler.apply_converters"


def _converts() -> bool:
    """Whether `apply_converters` turns rows into lists with converted values, as it is read in its source."""
    compiler: Any = SimpleNamespace(connection=None)
    converters = {1: ([lambda value, expression, connection: value + 1], None)}
    try:
        rows = [list(row) for row in SQLCompiler.apply_converters(compiler, [(1, 1), (2, 2)], converters)]
    except (AttributeError, TypeError, ValueError):
        return False
    return rows == [[1, 2], [2, 3]]
