"""What tests of applications assert about encrypted columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keyside.errors import InvalidText
from keyside.fields.declaration import LEAST_ENVELOPE, MAGIC
from keyside.fields.exchange import RoundTrips, counted
from keyside.text import from_text


@contextmanager
def assert_round_trips(max: int, *, unbatched: int = 0) -> Iterator[RoundTrips]:  # noqa: A002  reads as a sentence
    """Fails when the block asks the sidecar more than `max` times, or for more than `unbatched` values one by one.

    Counts the round trips of ORM hooks in all threads. The block gets the counter.
    """
    with counted() as trips:
        yield trips
    assert trips.count <= max, f"{trips.count} round trips to the sidecar; at most {max} were expected"
    assert trips.unbatched <= unbatched, f"{trips.unbatched} values were read or written one by one"


def assert_encrypted(model: Any, field: str, *, bind: Any = None) -> int:
    """Fails unless every stored value of a model's column is an envelope, and there is at least one; returns how many.

    Reads past the hooks. `field`: the attribute's name. `bind`: for SQLAlchemy a Connection, Session or Engine
    (default: the engine that `keyside.sqlalchemy.install` got); for Django the alias of a database (default: the
    model's). Raises ValueError for a name that is no column.
    """
    values = [value for value in _stored(model, field, bind) if value is not None]
    plain = sum(not _is_envelope(value) for value in values)
    name = f"{model.__name__}.{field}"
    assert values, f"{name} holds no value at all"
    assert not plain, f"{plain} of {len(values)} values of {name} are not encrypted"
    return len(values)


def _is_envelope(stored: Any) -> bool:
    if isinstance(stored, str):
        try:
            stored = from_text(stored)
        except InvalidText:
            return False
    if not isinstance(stored, bytes | bytearray | memoryview):
        return False
    stored = bytes(stored)
    return len(stored) >= LEAST_ENVELOPE and stored[:2] == MAGIC


def _stored(model: Any, field: str, bind: Any) -> list[Any]:
    if hasattr(model, "__mapper__") or hasattr(model, "__table__"):
        return _stored_by_sqlalchemy(model, field, bind)
    return _stored_by_django(model, field, bind)


def _stored_by_sqlalchemy(model: Any, field: str, bind: Any) -> list[Any]:
    import sqlalchemy as sa

    from keyside.sqlalchemy import installed_engine

    mapper = sa.inspect(model, raiseerr=False)
    # by the attribute's name: a column may be called otherwise, and another column may be called so
    columns = model.__table__.c if mapper is None else mapper.columns
    if field not in columns:
        raise ValueError(f"{model.__name__} has no column {field!r}; it has {', '.join(sorted(columns.keys()))}")
    column = columns[field]
    bare: sa.ColumnClause[Any] = sa.column(column.name)  # without the column's type: what the database holds
    table = column.table
    statement = sa.select(bare).select_from(sa.table(table.name, bare, schema=table.schema))
    if bind is None:
        bind = installed_engine()
    if isinstance(bind, sa.Engine):
        with bind.connect() as connection:
            return [*connection.execute(statement).scalars()]
    return [*bind.execute(statement).scalars()]


def _stored_by_django(model: Any, field: str, alias: str | None) -> list[Any]:
    from django.db import connections, router

    known = {one.name: one for one in model._meta.concrete_fields}
    if field not in known:
        raise ValueError(f"{model.__name__} has no column {field!r}; it has {', '.join(sorted(known))}")
    connection = connections[alias or router.db_for_read(model)]
    quote = connection.ops.quote_name
    found = known[field]
    # of the parent's table, where the model inherits the field
    column, table = quote(found.column), quote(found.model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table}")  # noqa: S608  names of the model's own, quoted
        return [row[0] for row in cursor.fetchall()]
