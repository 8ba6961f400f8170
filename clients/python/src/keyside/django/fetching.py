"""Results with encrypted columns in PostgreSQL's binary format, where that changes nothing (keyside.fields.formats)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from keyside.django.fields import EncryptedField
from keyside.fields import FieldUnavailable
from keyside.fields.formats import BINARY, has_formats, same_in_both

MOST_STATEMENTS: Final = 2000

compiling: ContextVar[Any] = ContextVar("keyside.django.compiling", default=None)
"""The compiler whose statement is executed."""

_in_binary: dict[tuple[str, str], bool] = {}
"""Statements that were executed before, by alias and text: whether the next result may come in binary."""


def fetch_in_binary(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """An execute wrapper (django.db.connection.execute_wrapper). Raises FieldUnavailable."""
    compiler, wrapper, connection = compiling.get(), context["cursor"], context["connection"]
    if compiler is None or many or not has_formats(wrapper.cursor):
        return execute(sql, params, many, context)
    key = (connection.alias, sql)
    known = _in_binary.get(key)
    if not known:
        outcome = execute(sql, params, many, context)
        if known is None:
            _remember(key, _selects_encrypted(compiler) and same_in_both(wrapper.cursor))
        return outcome
    if connection.execute_wrappers[-1] is not fetch_in_binary:
        return execute(sql, params, many, context)  # the application's own wrappers see what Django made
    with connection.wrap_database_errors:
        merged = _to_binary(wrapper, sql, params)
    outcome = execute(*merged, many, context)
    if not same_in_both(wrapper.cursor):
        _in_binary.pop(key, None)  # unless another thread has done so
        message = "columns that are selected beside encrypted ones have changed their types; try again"
        raise FieldUnavailable(message, compiler.query.model._meta.db_table)
    return outcome


def _remember(key: tuple[str, str], may_be_binary: bool) -> None:
    if len(_in_binary) >= MOST_STATEMENTS:
        _in_binary.clear()
    _in_binary[key] = may_be_binary


def _to_binary(wrapper: Any, sql: Any, params: Any) -> tuple[Any, Any]:
    """Let a cursor's next result come in binary. Returns the statement and parameters that it is to execute then.

    Django's usual cursor merges parameters into the statement itself, and knows text only. Another one takes its place.
    """
    cursor, psycopg = wrapper.cursor, sys.modules["psycopg"]
    if isinstance(cursor, psycopg.ClientCursor):
        sql, params = cursor.mogrify(sql, params), None
        wrapper.cursor = psycopg.Cursor(cursor.connection)
        cursor.close()
    wrapper.cursor.format = BINARY
    return sql, params


def _selects_encrypted(compiler: Any) -> bool:
    return any(isinstance(getattr(one, "target", None), EncryptedField) for one, _, _ in compiler.select or ())
