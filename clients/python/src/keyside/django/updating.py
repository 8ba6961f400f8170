"""UPDATE and fixtures: indexes follow their columns, and each value is told its row.

What these hooks miss, `keyside.django.writing` refuses: a value without its index, or without the row that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from django.db import connections, models
from django.db.models import Case, QuerySet, Value, When
from django.db.models.functions import Cast
from django.db.models.sql.subqueries import UpdateQuery

from keyside.django.assuming import ASSUMED, Assumed, hook_assumptions
from keyside.django.expressions import Standing, check_written
from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.inserting import hook_inserts
from keyside.django.keeping import is_kept
from keyside.django.pinning import pinned
from keyside.django.telling import Kept, Row, Told, bindings, field_named, row_of_instance, row_of_values
from keyside.django.upserting import check_bindings, hook_upserts
from keyside.fields import BindingMissing, FieldUnwritable

LEAST_PARAMETERS: Final = 32_766
"""What SQLite takes at least; Django 5.2 counts on 999, and its batches are as small."""

_updated: ContextVar[dict[Any, models.Model]] = ContextVar("keyside.django.updated", default={})  # noqa: B039  read only
"""Objects by key, while `bulk_update` runs."""
_from_fixture: ContextVar[bool] = ContextVar("keyside.django.from_fixture", default=False)
"""Whether a fixture's object is being written, as it is."""


def hook_updates() -> None:
    """Put the hooks in place; once a process."""
    QuerySet.bulk_update = _bulk_update(QuerySet.bulk_update)
    UpdateQuery.add_update_values = _add_update_values(UpdateQuery.add_update_values)
    UpdateQuery.add_update_fields = _add_update_fields(UpdateQuery.add_update_fields)
    models.Model._save_table = _save_table(models.Model._save_table)
    hook_inserts()
    hook_upserts()
    hook_assumptions()


def _bulk_update(original: Any) -> Any:
    @wraps(original)
    def bulk_update(self: Any, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> Any:
        objs, fields = tuple(objs), list(fields)
        token = _updated.set({obj.pk: obj for obj in objs})
        try:
            return original(self, objs, fields, _batch_size(self, objs, fields, batch_size))
        finally:
            _updated.reset(token)

    bulk_update.alters_data = True  # type: ignore[attr-defined]  # as Django marks it for templates
    return bulk_update


def _save_table(original: Any) -> Any:
    @wraps(original)
    def save_table(self: Any, raw: bool = False, *arguments: Any, **named: Any) -> Any:
        if not raw:
            return original(self, raw, *arguments, **named)
        token = _from_fixture.set(True)
        try:
            return original(self, raw, *arguments, **named)
        finally:
            _from_fixture.reset(token)

    return save_table


def _batch_size(queryset: Any, objs: tuple[Any, ...], names: list[str], wanted: int | None) -> int | None:
    """Rows a statement: those of encrypted fields have parameters that Django does not count."""
    meta = queryset.model._meta
    encrypted = [field for field in meta.concrete_fields if isinstance(field, EncryptedField) and field.name in names]
    if not encrypted or not objs or (wanted is not None and wanted <= 0):
        return wanted
    columns = len(names) + sum(len(field.indexes) for field in encrypted)
    assumed = len({name for field in encrypted for name in bindings(field)})
    queryset._for_write = True  # as Django does before it asks for the alias
    limit: int | None = connections[queryset.db].features.max_query_params
    if limit is None or limit < LEAST_PARAMETERS:
        return wanted
    most = max(1, limit // (2 + 2 * columns + assumed))
    return most if wanted is None else min(wanted, most)


def _add_update_values(original: Any) -> Any:
    @wraps(original)
    def add_update_values(self: Any, values: dict[str, Any]) -> Any:
        meta = self.get_meta()
        followed = dict(values)
        parents: dict[type[models.Model], set[str]] = {}
        for name, value in values.items():
            field = meta.get_field(name)
            if isinstance(field, BlindIndexField):
                message = f"a blind index is written with its field; write {field.source}"
                raise FieldUnwritable(message, field.model._meta.db_table, field.column)
            if field.model._meta.concrete_model is not meta.concrete_model:
                # a parent's column, in a statement of its own that the other hook does not see
                parents.setdefault(field.model._meta.concrete_model, set()).add(field.name)
                if isinstance(field, EncryptedField):
                    _refuse_row_of_parent(field)
                    if hasattr(value, "resolve_expression"):
                        check_written(field, value)
                        followed[name] = _each_told(field, value, field)
                    followed |= {index.name: _for_index(field, index, value) for index, _ in field.indexes}
        for parent, written in parents.items():
            check_bindings(parent, written)
        return original(self, followed)

    return add_update_values


def _refuse_row_of_parent(field: EncryptedField) -> None:
    if field.declaration.needs_row:
        name = field.model.__name__
        message = f"it is bound to its row in the table of {name}: update it through {name}, or save the objects"
        raise BindingMissing(message, field.model._meta.db_table, field.column)


def _add_update_fields(original: Any) -> Any:
    @wraps(original)
    def add_update_fields(self: Any, values_seq: Iterable[Any]) -> Any:
        values = list(values_seq)
        if any(hasattr(field.model, "_meta") and _concerns(field) for field, _, _ in values):
            values = _Update(self, values).followed()
        return original(self, values)

    return add_update_fields


def _concerns(field: Any) -> bool:
    """Whether a table has encrypted columns at all."""
    return any(isinstance(one, EncryptedField) for one in field.model._meta.local_concrete_fields)


class _Update:
    """The values of one UPDATE."""

    def __init__(self, query: Any, values: list[Any]) -> None:
        self._query = query
        self._values = values
        self._model = query.get_meta().concrete_model
        self._written = {field.name for field, _, _ in values}
        alias = query.get_initial_alias()
        self._pins = pinned(query.where, alias)
        new = {field.attname: _saved(field, value) for field, _, value in values if not isinstance(value, Told | Kept)}
        self._row = row_of_values(self._model, self._pins, new)
        self._alias = alias
        self._assumed = Assumed(self._model, alias)

    def followed(self) -> list[Any]:
        """The values, told their row, and those of the indexes that follow them."""
        followed = []
        for field, owner, value in self._values:
            if isinstance(field, BlindIndexField):
                continue  # again below, from the value that it indexes
            if not isinstance(field, EncryptedField):
                followed.append((field, owner, value))
                continue
            told = self._told(field, value)
            followed.append((field, owner, told))
            followed += [(index, owner, _for_index(field, index, told, self._row)) for index, _ in field.indexes]
        check_bindings(self._model, self._written)
        setattr(self._query, ASSUMED, self._assumed)
        return followed

    def _told(self, field: EncryptedField, value: Any) -> Any:
        """The value with its row, as far as the statement tells it."""
        if value is None and field.on_error == "none" and _from_fixture.get():
            value = Kept(self._row)  # a dump shows None where a value did not open
        if value is None:
            return None
        if isinstance(value, Kept):
            self._assume_kept(field, self._saved_row(value.row))
            return Standing(self._alias, field)
        if hasattr(value, "resolve_expression"):
            check_written(field, value)
            if field.declaration.needs_row:
                self._assume_each(field, value)
            return _each_told(field, value, field, self._row if field.declaration.needs_row else None)
        if not field.declaration.needs_row:
            return value
        if isinstance(value, Told):
            row = self._saved_row(value.row)
            self._assume(field, row)
            return Told(value.value, row)
        self._assume_pins(field)
        return Told(value, self._row)

    def _saved_row(self, row: Row) -> Row:
        """An object's row, as the statement leaves it: a field's `pre_save` may return what the object does not say."""

        def value(name: str) -> Any:
            local = field_named(self._model, name)
            return self._row(name) if local is not None and local.name in self._written else row(name)

        return value

    def _assume_pins(self, field: EncryptedField) -> None:
        """Raises BindingMissing when the statement does not say for which partition it encrypts.

        `keyside.context` says which partition code works for, not in which one the rows are that a statement updates.
        """
        chooser = field.declaration.partition_column
        local = None if chooser is None else field_named(self._model, chooser)
        if chooser is not None and local is not None and local.name not in self._written and self._row(chooser) is None:
            message = f"its partition is the value of {chooser}, which this UPDATE does not tell: filter by {chooser}"
            raise BindingMissing(f"{message}, or write it as well", self._model._meta.db_table, field.column)
        self._assume(field, self._row)

    def _assume(self, field: EncryptedField, row: Row, key: Any = None) -> None:
        needed = {name: local for name in bindings(field) if (local := field_named(self._model, name))}
        keys = self._model._meta.pk_fields
        said = [local for local in needed.values() if local in keys or local.attname in self._pins]
        values = {local: row(name) for name, local in needed.items() if local.name not in self._written}
        self._assumed.add(field, values, said, key)

    def _assume_kept(self, field: EncryptedField, row: Row, key: Any = None) -> None:
        needed = {name: local for name in bindings(field) if (local := field_named(self._model, name))}
        values = {local: row(name) for name, local in needed.items() if local.name in self._written}
        self._assumed.add_kept(field, values, key)

    def _assume_each(self, field: EncryptedField, expression: Any) -> None:
        """What `bulk_update` made: each object's value is right in the object's row."""
        if isinstance(expression, Cast):
            self._assume_each(field, expression.get_source_expressions()[0])
            return
        if isinstance(expression, Value):
            if expression.value is not None:
                self._assume_pins(field)
            return
        self._assume_each(field, expression.default)
        for case in expression.cases:
            instance = _object_of(case.condition)
            if instance is None:
                self._assume_each(field, case.result)
                continue
            self._assumed.object(instance.pk)
            if is_kept(field, instance):
                self._assume_kept(field, row_of_instance(instance, field.model), instance.pk)
            elif getattr(instance, field.attname) is not None:
                self._assume(field, row_of_instance(instance, field.model), instance.pk)


def _saved(field: models.Field, value: Any) -> Any:
    """What Django writes of an object that a relation is set to; it asks only when the statement is compiled."""
    related = field.remote_field and hasattr(value, "prepare_database_save")
    return value.prepare_database_save(field) if related else value


def _for_index(field: EncryptedField, index: BlindIndexField, value: Any, row: Row | None = None) -> Any:
    if isinstance(value, Standing):
        return Standing(value.alias, index)
    if hasattr(value, "resolve_expression"):
        check_written(field, value)
        return _each_told(field, value, index, row if field.declaration.needs_row else None)
    return value


def _each_told(field: EncryptedField, expression: Any, target: Any, row: Row | None = None) -> Any:
    """What `bulk_update` made for an encrypted field, for this field or one of its indexes, every value with its
    row."""
    if isinstance(expression, Value):
        value = expression.value
        if row is not None and value is not None and not isinstance(value, Told):
            value = Told(value, row)
        return Value(value, output_field=target)
    if isinstance(expression, Cast):
        (inner,) = expression.get_source_expressions()
        return Cast(_each_told(field, inner, target, row), output_field=target)
    if isinstance(expression, Standing):
        return Standing(expression.alias, target)
    cases = [When(case.condition, then=_result(field, case, target, row)) for case in expression.cases]
    return Case(*cases, default=_each_told(field, expression.default, target, row), output_field=target)


def _result(field: EncryptedField, case: Any, target: Any, row: Row | None) -> Any:
    instance = _object_of(case.condition)
    if instance is None:
        return _each_told(field, case.result, target, row)
    if is_kept(field, instance):
        return Standing(field.model._meta.db_table, target)
    return _each_told(field, case.result, target, row_of_instance(instance, field.model))


def _object_of(condition: Any) -> Any:
    """The object of a condition `pk=…`, while `bulk_update` runs."""
    pinned = [child for child in getattr(condition, "children", ()) if isinstance(child, tuple) and child[0] == "pk"]
    return _updated.get().get(pinned[0][1]) if len(pinned) == 1 else None
