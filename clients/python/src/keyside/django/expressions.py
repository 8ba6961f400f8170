"""SQL expressions that write an encrypted column: literals alone, chosen by conditions, as `bulk_update` makes them."""

from __future__ import annotations

from typing import Any

from django.db.models.expressions import Case, Col, Value
from django.db.models.functions import Cast

from keyside.fields import FieldUnwritable


class Standing(Col):
    """What a column holds already, as the value that it is set to."""


def check_written(field: Any, expression: Any) -> None:
    """Raises FieldUnwritable for an expression that the database would compute: it cannot encrypt."""
    if not _is_literal(field, expression):
        message = "an SQL expression cannot write an encrypted field; read the rows, and write values"
        raise FieldUnwritable(message, field.model._meta.db_table, field.column)


def _is_literal(field: Any, expression: Any) -> bool:
    if isinstance(expression, Value):
        if expression.value is None:
            return True
        return getattr(expression, "_output_field_or_none", None) is not None and expression.output_field == field
    if isinstance(expression, Standing):
        return True
    if isinstance(expression, Case):
        results = [case.result for case in expression.cases] + [expression.default]
        return all(_is_literal(field, result) for result in results)
    if isinstance(expression, Cast):
        return _is_literal(field, expression.get_source_expressions()[0])
    return False
