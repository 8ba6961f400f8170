"""What is inspected beside SELECT: UPDATE, DELETE, values of INSERT that the database computes, conditions of joins."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.db.models.query_utils import FilteredRelation
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler

from keyside.django.fields import EncryptedField
from keyside.django.grouping import apart
from keyside.django.indexing import BlindIndexField
from keyside.django.inspection import check_assigned, check_chosen, check_conditions, encrypted_in


def hook_statements() -> None:
    """Put the hooks in place; once a process."""
    SQLUpdateCompiler.pre_sql_setup = _pre_sql_setup(SQLUpdateCompiler.pre_sql_setup)
    SQLDeleteCompiler.as_sql = _delete(SQLDeleteCompiler.as_sql)
    Query.as_sql = _subquery(Query.as_sql)
    FilteredRelation.as_sql = _filtered_relation(FilteredRelation.as_sql)


def _pre_sql_setup(original: Any) -> Any:
    @wraps(original)
    def pre_sql_setup(self: Any) -> Any:
        check_conditions(self.query.where)
        for field, owner, value in self.query.values:
            # an index is chosen by the conditions that choose its field's value
            if hasattr(value, "resolve_expression") and not isinstance(field, BlindIndexField):
                if owner is None:  # those of a parent's table come unresolved
                    value = value.resolve_expression(self.query, allow_joins=False, for_save=True)
                if isinstance(field, EncryptedField):
                    check_chosen(value)
                else:
                    check_assigned(field, value)
        return original(self)

    return pre_sql_setup


def _delete(original: Any) -> Any:
    @wraps(original)
    def as_sql(self: Any) -> Any:
        check_conditions(self.query.where)
        return original(self)

    return as_sql


def _subquery(original: Any) -> Any:
    @wraps(original)
    def as_sql(self: Any, compiler: Any, connection: Any) -> Any:
        # here and not where values are prepared: that is done for every value of every row
        if isinstance(compiler, SQLInsertCompiler):
            field = encrypted_in(self)
            if field is not None:
                check_assigned(field, self)
        with apart():
            return original(self, compiler, connection)

    return as_sql


def _filtered_relation(original: Any) -> Any:
    @wraps(original)
    def as_sql(self: Any, compiler: Any, connection: Any) -> Any:
        check_conditions(self.resolved_condition)
        return original(self, compiler, connection)

    return as_sql
