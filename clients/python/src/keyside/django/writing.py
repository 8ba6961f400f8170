"""Writing and searching: the values of a statement are encrypted in one round trip, just before the driver is called.

Until then placeholders stand in the parameters, so what Django logs, collects under DEBUG and quotes is `<encrypted>`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db.backends.base.operations import BaseDatabaseOperations

from keyside.django import arrays, settings
from keyside.django.telling import PlainPlaceholder, SearchPlaceholder, Written
from keyside.fields import MASK, FieldUnwritable, Index, NotSearchable, Placeholder, seal


def encrypt_parameters(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """An execute wrapper (django.db.connection.execute_wrapper). Raises FieldError; then nothing was sent."""
    if many and params is not None and not isinstance(params, list | tuple):
        params = list(params)
    placeholders = list(_placeholders(params))
    if not placeholders:
        return execute(sql, params, many, context)
    _check_indexes(placeholders)
    unsealed = {id(one): one for one in placeholders if one.sealed is None}
    if unsealed:
        seal(list(unsealed.values()), settings.send())
    connection = context["connection"]
    if connection.vendor == "postgresql" and not many:
        sql, params = _for_postgresql(sql, params, _sealed_for(connection))
        return execute(sql, params, many, context)
    return execute(sql, _replaced(params, _sealed_for(connection)), many, context)


def _placeholders(params: Any) -> Iterator[Placeholder]:
    """All of them, however deep: rows of executemany, arrays of UNNEST."""
    for value in params.values() if isinstance(params, Mapping) else params or ():
        if isinstance(value, Placeholder):
            yield value
        elif type(value) in (list, tuple, dict):
            yield from _placeholders(value)


def _replaced(params: Any, replace: Callable[[Placeholder], Any]) -> Any:
    if isinstance(params, Placeholder):
        return replace(params)
    if type(params) in (list, tuple):
        return type(params)([_replaced(value, replace) for value in params])
    if type(params) is dict:
        return {name: _replaced(value, replace) for name, value in params.items()}
    return params


def _for_postgresql(sql: Any, params: Any, replace: Callable[[Placeholder], Any]) -> tuple[Any, Any]:
    """The statement and its parameters with arrays in a form that is quicker than a list.

    Arrays of placeholders come from UNNEST, where Django names their type: `(%s)::bytea[]`.
    """
    if type(params) not in (list, tuple) or not isinstance(sql, str):
        return sql, _replaced(params, replace)
    parts = sql.split("%s")
    if len(parts) != len(params) + 1:  # there are percent signs of another meaning
        return sql, _replaced(params, replace)
    text, sent = parts[0], []
    for one, part in zip(params, parts[1:], strict=True):
        if type(one) is list and Placeholder in _bases(one) and part.startswith(")::"):
            elements = [_stored(value) if isinstance(value, Placeholder) else value for value in one]
            stands, array = arrays.parameter(elements)
            sent.append(array)
        else:
            stands = "%s"
            sent.append(_replaced(one, replace))
        text += stands + part
    return text, type(params)(sent)


def _bases(values: list[Any]) -> set[type]:
    return {base for kind in set(map(type, values)) for base in kind.__mro__}


def _stored(placeholder: Placeholder) -> Any:
    """What the column holds. Raises NotSearchable for a search that would never be true."""
    value = placeholder.sealed
    if value is None and isinstance(placeholder, SearchPlaceholder):
        place = placeholder.place
        kind = place.normalize.name if isinstance(place, Index) else ""
        message = (
            f"the value has no index under the column's normalisation ({kind}), so that no row can match: look before"
            " the search whether it has what is indexed, and answer with none()"
        )
        raise NotSearchable(message, place.table, place.column)
    return value


def _sealed_for(connection: Any) -> Callable[[Placeholder], Any]:
    binary = connection.Database.Binary

    def sealed(placeholder: Placeholder) -> Any:
        value = _stored(placeholder)
        # as BinaryField does: some drivers want to be told that bytes are binary
        return binary(value) if type(value) is bytes else value

    return sealed


def _check_indexes(placeholders: list[Placeholder]) -> None:
    """A statement that writes values must write their indexes. Raises FieldUnwritable."""
    values = [one for one in placeholders if isinstance(one, Written)]
    if not any(one.indexes for one in values):
        return
    compared = (SearchPlaceholder, PlainPlaceholder)
    count = Counter(id(one.place) for one in placeholders if not isinstance(one, compared))
    for one in {id(one.place): one for one in values}.values():
        for index in one.indexes:
            if count[id(index)] != count[id(one.place)]:
                message = f"the statement writes it, but not its blind index {index.column}"
                raise FieldUnwritable(message, one.place.table, one.place.column)


def masked_last_query(connection: Any) -> Callable[[Any, Any, Any], Any]:
    """`last_executed_query` of a connection, showing `<encrypted>` for what is encrypted."""
    own = type(connection.ops).last_executed_query

    def last_executed_query(cursor: Any, sql: Any, params: Any) -> Any:
        if next(_placeholders(params), None) is None:
            return own(connection.ops, cursor, sql, params)
        shown = _replaced(params, lambda placeholder: MASK)
        if connection.vendor == "sqlite":
            return own(connection.ops, cursor, sql, shown)
        # what the driver sent holds ciphertext; this shows the statement and its parameters
        return BaseDatabaseOperations.last_executed_query(connection.ops, cursor, sql, shown)

    return last_executed_query


def shown_query(query: Any) -> str:
    """`str(queryset.query)`, showing `<encrypted>` for what is encrypted."""
    sql, params = query.sql_with_params()
    return str(sql % _replaced(params, lambda placeholder: MASK))
