"""SQL expressions that write an encrypted column: literals alone, chosen by conditions, as `bulk_update` makes them."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.expressions import Case, Col, Value
from django.db.models.functions import Cast

from keyside.fields import FieldUnwritable


class Standing(Col):
    """What a column holds already, as the value that it is set to."""


def check_written(field: Any, expression: Any) -> None:
    """Raises FieldUnwritable for an expression that the database would compute: it cannot encrypt."""
    if not _is_literal(field, expression):
        message = (
            "an SQL expression cannot write an encrypted field, nor can JSON's null; read the rows, and write values,"
            " or None for NULL"
        )
        raise FieldUnwritable(message, field.model._meta.db_table, field.column)


def without_null(value: Any) -> Any:
    """The value, or None in place of an expression that says no more: another field's NULL may be something else."""
    return None if type(value) is Value and value.value is None else value


def _is_literal(field: Any, expression: Any) -> bool:
    if type(expression) is Value:  # and no subclass, such as JSONNull, which says something else than its value
        target = expression._output_field_or_none
        if expression.value is None:
            # Django writes JSON's null for one of JSON's type
            return target == field or not isinstance(target, models.JSONField)
        return target is not None and target == field
    if isinstance(expression, Standing):
        return True
    if isinstance(expression, Case):
        results = [case.result for case in expression.cases] + [expression.default]
        return all(_is_literal(field, result) for result in results)
    if isinstance(expression, Cast):
        return _is_literal(field, expression.get_source_expressions()[0])
    return False
