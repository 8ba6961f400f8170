"""UPDATE, upserts and fixtures: indexes follow their columns, and each value is told its row.

What these hooks miss, `keyside.django.writing` refuses: a value without its index, or without the row that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

from django.db import models
from django.db.models import Case, QuerySet, Value, When
from django.db.models.expressions import Col
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.db.models.sql.compiler import SQLInsertCompiler
from django.db.models.sql.subqueries import UpdateQuery

from keyside.django.expressions import check_written
from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.lookups import refuse
from keyside.django.telling import Row, Told, field_named, row_of_instance, row_of_values
from keyside.fields import BindingMissing, FieldUnwritable

_updated: ContextVar[dict[Any, models.Model]] = ContextVar("keyside.django.updated", default={})  # noqa: B039  read only
"""Objects by key, while `bulk_update` runs."""


def hook_updates() -> None:
    """Put the hooks in place; once a process."""
    QuerySet.bulk_update = _bulk_update(QuerySet.bulk_update)
    QuerySet.bulk_create = _bulk_create(QuerySet.bulk_create)
    UpdateQuery.add_update_values = _add_update_values(UpdateQuery.add_update_values)
    UpdateQuery.add_update_fields = _add_update_fields(UpdateQuery.add_update_fields)
    SQLInsertCompiler.pre_save_val = _pre_save_val(SQLInsertCompiler.pre_save_val)


def _bulk_update(original: Any) -> Any:
    @wraps(original)
    def bulk_update(self: Any, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> Any:
        objs = tuple(objs)
        token = _updated.set({obj.pk: obj for obj in objs})
        try:
            return original(self, objs, fields, batch_size)
        finally:
            _updated.reset(token)

    bulk_update.alters_data = True  # type: ignore[attr-defined]  # as Django marks it for templates
    return bulk_update


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
            update_fields = _upserted(self.model, list(update_fields), unique_fields or ())
            if unique_fields:
                unique_fields = [_unique(self.model, name) for name in unique_fields]
        return original(self, objs, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields)

    return bulk_create


def _upserted(model: type[models.Model], names: list[str], unique: Iterable[str]) -> list[str]:
    """The fields that an upsert updates, with the indexes of those that are encrypted.

    Raises BindingMissing for an upsert that may change another row than the one that its values are bound to.
    """
    keys = {meta.name for meta in model._meta.pk_fields} if "pk" in unique else set()
    found = {_attribute(model, name) for name in [*names, *unique, *keys]}
    for field in model._meta.local_concrete_fields:
        if isinstance(field, EncryptedField) and field.name in names:
            needed = {_attribute(model, name) for name in _bindings(field)}
            if not needed <= found:
                raise BindingMissing(
                    f"an upsert that updates it must find the row by {', '.join(sorted(needed))}, which it is bound to:"
                    " name them in unique_fields or update_fields, or update such rows one by one",
                    model._meta.db_table,
                    field.column,
                )
            names += [index.name for index, _ in field.indexes if index.name not in names]
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


def _attribute(model: type[models.Model], name: str) -> str:
    field = field_named(model, name)
    return name if field is None else str(field.attname)


def _bindings(field: EncryptedField) -> list[str]:
    """Names of the fields that its ciphertexts depend on."""
    declared = field.declaration
    return [*declared.bind, *([declared.partition_column] if declared.partition_column else [])]


def _add_update_values(original: Any) -> Any:
    @wraps(original)
    def add_update_values(self: Any, values: dict[str, Any]) -> Any:
        meta = self.get_meta()
        followed = dict(values)
        for name, value in values.items():
            field = meta.get_field(name)
            if isinstance(field, BlindIndexField):
                message = f"a blind index is written with its field; write {field.source}"
                raise FieldUnwritable(message, field.model._meta.db_table, field.column)
            if isinstance(field, EncryptedField) and field.model is not meta.concrete_model:
                # a parent's column, in a statement of its own that the other hook does not see
                followed |= {index.name: _for_index(field, index, value) for index, _ in field.indexes}
        return original(self, followed)

    return add_update_values


def _add_update_fields(original: Any) -> Any:
    @wraps(original)
    def add_update_fields(self: Any, values_seq: Iterable[Any]) -> Any:
        values = list(values_seq)
        if any(hasattr(field.model, "_meta") and _concerns(field) for field, _, _ in values):
            values = _followed(self, values)
        return original(self, values)

    return add_update_fields


def _concerns(field: Any) -> bool:
    """Whether a table has encrypted columns at all."""
    return any(isinstance(one, EncryptedField) for one in field.model._meta.local_concrete_fields)


def _followed(query: Any, values: list[Any]) -> list[Any]:
    """The values of an UPDATE, told their row, and those of the indexes that follow them."""
    model = query.get_meta().concrete_model
    written = {field.name for field, _, _ in values}
    new = {field.attname: value for field, _, value in values if not isinstance(value, Told)}
    row = row_of_values(model, new, _pinned(query.where))
    followed = []
    for field, owner, value in values:
        if isinstance(field, BlindIndexField):
            continue  # again below, from the value that it indexes
        if not isinstance(field, EncryptedField):
            followed.append((field, owner, value))
            continue
        told = _told(field, value, row)
        followed.append((field, owner, told))
        followed += [(index, owner, _for_index(field, index, told)) for index, _ in field.indexes]
    _check_bindings(model, written)
    return followed


def _check_bindings(model: type[models.Model], written: set[str]) -> None:
    """Raises BindingMissing when columns would no longer open after the update."""
    for field in model._meta.local_concrete_fields:
        if isinstance(field, EncryptedField) and field.name not in written:
            changed = {local.name for name in _bindings(field) if (local := field_named(model, name))} & written
            if changed:
                message = f"it is bound to {', '.join(sorted(changed))}, which changes: write the field as well"
                raise BindingMissing(message, model._meta.db_table, field.column)


def _told(field: EncryptedField, value: Any, row: Row) -> Any:
    """The value with its row, as far as the statement tells it."""
    if isinstance(value, Told) or value is None:
        return value
    if hasattr(value, "resolve_expression"):
        check_written(field, value)
        return _each_told(field, value, field)
    needs = field.declaration.needs_row or any(index.needs_row for _, index in field.indexes)
    return Told(value, row) if needs else value


def _for_index(field: EncryptedField, index: BlindIndexField, value: Any) -> Any:
    if hasattr(value, "resolve_expression"):
        check_written(field, value)
        return _each_told(field, value, index)
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
        return Cast(_each_told(field, inner, target), output_field=target)
    cases = [
        When(case.condition, then=_each_told(field, case.result, target, _row_of(case.condition)))
        for case in expression.cases
    ]
    return Case(*cases, default=_each_told(field, expression.default, target), output_field=target)


def _row_of(condition: Any) -> Row | None:
    """The object of a condition `pk=…`, while `bulk_update` runs."""
    pinned = [child for child in getattr(condition, "children", ()) if isinstance(child, tuple) and child[0] == "pk"]
    instance = _updated.get().get(pinned[0][1]) if len(pinned) == 1 else None
    return None if instance is None else row_of_instance(instance)


def _pinned(where: Any) -> dict[str, Any]:
    """Columns that the WHERE clause holds to one value."""
    found: dict[str, Any] = {}
    if where.negated or where.connector != "AND":
        return found
    for child in where.children:
        if hasattr(child, "children"):
            found |= _pinned(child)
        elif isinstance(child, Exact) and isinstance(child.lhs, Col) and child.rhs_is_direct_value():
            found[child.lhs.target.attname] = child.rhs
    return found


def _pre_save_val(original: Any) -> Any:
    @wraps(original)
    def pre_save_val(self: Any, field: Any, obj: Any) -> Any:
        value = original(self, field, obj)
        if self.query.raw and isinstance(field, EncryptedField | BlindIndexField) and value is not None:
            # a fixture's object is written as it is, without pre_save
            return Told(value, row_of_instance(obj))
        return value

    return pre_save_val
