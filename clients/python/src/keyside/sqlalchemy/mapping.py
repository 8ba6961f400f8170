"""What classes declare over encrypted columns is checked when they are mapped: a query may bring it in unseen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, event
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.orm import Mapper

from keyside.sqlalchemy.declaring import check_bindings, note_inherited
from keyside.sqlalchemy.inspection import check_expression
from keyside.sqlalchemy.types import BlindIndex, Encrypted, encrypted_columns, index_columns


@event.listens_for(Mapper, "after_mapper_constructed")
def _note_inherited_keys(mapper: Any, class_: type[Any]) -> None:
    if mapper.inherits is not None and not mapper.concrete:
        for column in mapper.local_table.primary_key:
            for key in column.foreign_keys:
                if _refers(key, mapper.inherits.tables):
                    note_inherited(key)


def _refers(key: Any, tables: list[Any]) -> bool:
    try:
        return key.column.table in tables
    except NoReferenceError:
        return False  # of a table that is declared later


@event.listens_for(Mapper, "mapper_configured")
def _check_mapper(mapper: Any, class_: type[Any]) -> None:
    """Raise ValueError for declarations that cannot work, NotSearchable for expressions that ask ciphertexts."""
    for table in mapper.tables:
        for column in encrypted_columns(table):
            check_bindings(column)
        for column in index_columns(table):
            assert isinstance(column.type, BlindIndex)
            column.type.source_column  # noqa: B018  raises when it is not there
    _check_deferred(mapper)
    for attribute in mapper.column_attrs:
        for expression in attribute.columns:
            if not isinstance(expression, Column):
                check_expression(expression)
    for relationship in mapper.relationships:
        for condition in (relationship.primaryjoin, relationship.secondaryjoin):
            if condition is not None:
                check_expression(condition)


def _check_deferred(mapper: Any) -> None:
    """Raise ValueError for a column that is loaded without what it is bound to, whatever the query."""
    for table in mapper.tables:
        for column in encrypted_columns(table):
            assert isinstance(column.type, Encrypted)
            own = _attribute_of(mapper, column)
            for name in column.type.needs:
                needed = _attribute_of(mapper, table.c[name])
                if own is not None and needed is not None and needed.deferred and not own.deferred:
                    raise ValueError(
                        f"{table.name}.{column.name}: it needs {name}, which is deferred; defer it as well, or neither"
                    )


def _attribute_of(mapper: Any, column: Any) -> Any:
    """The attribute of a column, None for a column that is not mapped."""
    return next((attribute for attribute in mapper.column_attrs if column in attribute.columns), None)
