"""An UPDATE changes only rows that are as its values were encrypted for them.

A value may be bound to a column that the statement does not write: an object was read before somebody moved its row, or
says something of its row that is not saved along. Such a row would take a ciphertext that never opens in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any, Final, TypeAlias

from django.db import models
from django.db.models.expressions import RawSQL
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLUpdateCompiler
from django.db.models.sql.where import AND, WhereNode

from keyside.django.comparing import exactly, is_inexact
from keyside.fields import BindingMissing

_Place: TypeAlias = "tuple[models.Field, Any]"
"""A field, and the one whose ciphertext depends on it where that is not written: then NULL may be anywhere."""
_Values: TypeAlias = "dict[_Place, Any]"

ASSUMED: Final = "_keyside_assumed"


class Assumed:
    """What an UPDATE takes for granted of its rows.

    `said`: fields that its conditions name already; they are repeated where the database would compare them loosely,
    or where the conditions are worked out before the update.
    """

    def __init__(self, model: type[models.Model], alias: str) -> None:
        self._model = model
        self._alias = alias
        self._all: _Values = {}
        self._by_key: dict[Any, _Values] = {}
        self._said: set[models.Field] = set()
        self._bound = ""
        self._before: Any = None
        self._condition: WhereNode | None = None

    @property
    def least(self) -> int:
        """How many rows are changed when all are as they are thought to be."""
        return len(self._by_key) or 1

    def object(self, key: Any) -> None:
        """The statement has a value for the row with this primary key."""
        self._by_key.setdefault(key, {})

    def add(self, bound: Any, values: dict[models.Field, Any], said: Iterable[models.Field], key: Any = None) -> None:
        """A value of the field `bound` is right in rows with these values; `key`: in the row with this primary key."""
        self._bound = bound.column
        self._said.update(said)
        self._values(key).update({(field, None): value for field, value in values.items()})

    def add_kept(self, kept: Any, values: dict[models.Field, Any], key: Any = None) -> None:
        """What the field `kept` holds, unless it is NULL, stays right in rows with these values only."""
        self._bound = kept.column
        self._values(key).update({(field, kept): value for field, value in values.items()})

    def _values(self, key: Any) -> _Values:
        return self._all if key is None else self._by_key.setdefault(key, {})

    def apply(self, compiler: Any, moved: bool) -> None:
        """Add to the conditions of an UPDATE; `moved`: they became a list of keys, or a subquery."""
        self._before, self._condition = compiler.query.where, None
        parts = [self._holds(compiler, place, value) for place, value in self._told(compiler, self._all, moved)]
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for key, values in self._by_key.items():
            # each group names its keys
            groups.setdefault(tuple(self._told(compiler, values, False)), []).append(key)
        if any(groups):
            parts.append(_either([self._group(compiler, values, keys) for values, keys in groups.items()]))
        if parts:
            sql = " AND ".join(text for text, _ in parts)
            condition = RawSQL(sql, [one for _, given in parts for one in given], models.BooleanField())  # noqa: S611  of compiled parts
            self._condition = WhereNode([condition], AND)
            compiler.query.where = WhereNode([self._before, self._condition], AND)
        if self._may_leave_some_out(compiler.connection):
            self.check(compiler)

    def _may_leave_some_out(self, connection: Any) -> bool:
        """Whether conditions that the database compares loosely may find several rows, of which only some are as the
        values were encrypted: how many are changed says nothing of the others then."""
        loose = any(
            field in self._said and isinstance(value, str) and is_inexact(field, connection)
            for (field, _), value in self._all.items()
        )
        return loose and not any(field.unique for field in self._said)

    def check(self, compiler: Any) -> None:
        """Before the update, or after fewer rows were changed than expected: raises BindingMissing when one is left out
        for what it holds."""
        if self._condition is None:
            return
        query = compiler.query.chain(klass=Query)
        query.clear_ordering(force=True)
        query.where = WhereNode([self._before, WhereNode([self._condition], AND, negated=True)], AND)
        if query.has_results(compiler.using):
            fields = {field.attname for values in (self._all, *self._by_key.values()) for field, _ in values}
            names = ", ".join(sorted(fields))
            raise BindingMissing(
                f"it is encrypted for a row with another {names} than the row has now: write {names} as well, name the"
                " value as the row holds it, or read the row again",
                self._model._meta.db_table,
                self._bound,
            )

    def _told(self, compiler: Any, values: _Values, moved: bool) -> list[tuple[_Place, Any]]:
        connection = compiler.connection
        return [
            ((field, kept), value)
            for (field, kept), value in values.items()
            if field not in self._said or moved or (isinstance(value, str) and is_inexact(field, connection))
        ]

    def _holds(self, compiler: Any, place: _Place, value: Any) -> tuple[str, list[Any]]:
        field, kept = place
        sql, parameters = self._equal(compiler, field, value)
        if kept is not None:
            column, _ = compiler.compile(kept.get_col(self._alias))
            sql = f"({column} IS NULL OR {sql})"
        return sql, parameters

    def _equal(self, compiler: Any, field: models.Field, value: Any) -> tuple[str, list[Any]]:
        """Never NULL, so that it can be negated."""
        column = field.get_col(self._alias)
        held, _ = compiler.compile(column)
        if value is None:
            return f"{held} IS NULL", []
        given, parameters = Exact(column, value).process_rhs(compiler, compiler.connection)
        compared = (held, given)
        if isinstance(value, str):
            compared = (exactly(held, compiler.connection), exactly(given, compiler.connection))
        return f"({held} IS NOT NULL AND {compared[0]} = {compared[1]})", list(parameters)

    def _group(self, compiler: Any, values: tuple[Any, ...], keys: list[Any]) -> tuple[str, list[Any]]:
        primary = self._model._meta.pk
        parts = [compiler.compile(primary.get_lookup("in")(primary.get_col(self._alias), keys))]
        parts += [self._holds(compiler, place, value) for place, value in values]
        return " AND ".join(sql for sql, _ in parts), [one for _, given in parts for one in given]


def _either(parts: list[tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
    """One of them holds. As a balanced tree: SQLite bounds the depth of expressions."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    (left, first), (right, second) = _either(parts[:half]), _either(parts[half:])
    return f"(({left}) OR ({right}))", first + second


def hook_assumptions() -> None:
    """Put the hooks in place; once a process."""
    SQLUpdateCompiler.pre_sql_setup = _pre_sql_setup(SQLUpdateCompiler.pre_sql_setup)
    SQLUpdateCompiler.execute_sql = _execute_sql(SQLUpdateCompiler.execute_sql)
    if hasattr(SQLUpdateCompiler, "execute_returning_sql"):  # since Django 6.0
        SQLUpdateCompiler.execute_returning_sql = _execute_returning_sql(SQLUpdateCompiler.execute_returning_sql)


def _pre_sql_setup(original: Any) -> Any:
    @wraps(original)
    def pre_sql_setup(self: Any) -> Any:
        before = self.query.where
        outcome = original(self)
        assumed = getattr(self.query, ASSUMED, None)
        if assumed is not None:
            assumed.apply(self, self.query.where is not before)
        return outcome

    return pre_sql_setup


def _execute_sql(original: Any) -> Any:
    @wraps(original)
    def execute_sql(self: Any, result_type: Any) -> Any:
        rows = original(self, result_type)
        _check(self, rows or 0)
        return rows

    return execute_sql


def _execute_returning_sql(original: Any) -> Any:
    @wraps(original)
    def execute_returning_sql(self: Any, returning_fields: Any) -> Any:
        rows = original(self, returning_fields)
        _check(self, len(rows))
        return rows

    return execute_returning_sql


def _check(compiler: Any, rows: int) -> None:
    assumed = getattr(compiler.query, ASSUMED, None)
    if assumed is not None and rows < assumed.least:
        assumed.check(compiler)
