"""Objects on their way to the database: what a flush must write beside the attributes that the application changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Column, Table, Update, event
from sqlalchemy.orm import Mapper, Session, attributes, object_mapper
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

from keyside.sqlalchemy.assignments import assigned, column_of, needed
from keyside.sqlalchemy.types import encrypted_columns, index_columns

Rows = list[dict[str, Any]]
States = dict[tuple[Any, tuple[Any, ...]], Any]


class _Flush(NamedTuple):
    session: ref[Session]
    states: States
    """States of objects that the flush may update, once a statement asks for one."""

    def look_again(self) -> None:
        """Listeners may have changed more objects meanwhile."""
        session = self.session()
        if session is None or not getattr(session, "_flushing", True):
            return
        for instance in session.dirty:
            mapper = object_mapper(instance)
            for table in mapper.tables:
                if isinstance(table, Table) and _bound(table):
                    key = table, _committed_key(instance, mapper, table)
                    self.states[key] = attributes.instance_state(instance)


_flushes: ContextVar[tuple[_Flush, ...]] = ContextVar("keyside.flushes", default=())
"""Flushes that are going on; a listener may flush another session."""

_indexes: WeakKeyDictionary[Session, list[tuple[Any, list[str]]]] = WeakKeyDictionary()
"""Objects that hold indexes which a flush writes anew."""


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, context: Any, instances: Any) -> None:
    """An UPDATE that changes a row key or partition writes anew what is bound to it."""
    layouts: dict[Mapper[Any], list[tuple[Table, list[Column[Any]], list[Column[Any]]]]] = {}
    for instance in session.dirty:
        mapper = object_mapper(instance)
        if mapper not in layouts:
            tables = [table for table in mapper.tables if isinstance(table, Table)]
            layouts[mapper] = [(table, _bound(table), index_columns(table)) for table in tables]
        for table, bound, indexes in layouts[mapper]:
            _forget_copied_indexes(instance, mapper, indexes)
            if bound:
                _write_bound(instance, mapper, table, bound)
    _end(session)
    _flushes.set((*_flushes.get(), _Flush(ref(session), {})))


def _bound(table: Table) -> list[Column[Any]]:
    return [column for column in encrypted_columns(table) if needed(column)]


def _write_bound(instance: Any, mapper: Mapper[Any], table: Table, bound: list[Column[Any]]) -> None:
    for column in bound:
        keys = [_attribute(mapper, table.c[name]) for name in needed(column) if name in table.c]
        own = _attribute(mapper, column)
        if own is None:
            continue
        moved = any(attributes.get_history(instance, key).has_changes() for key in keys if key)
        if moved or attributes.get_history(instance, own).has_changes():
            for key in (own, *keys):
                getattr(instance, key or own)  # loaded, so that there is a value to write
        if moved and not attributes.get_history(instance, own).has_changes():
            attributes.flag_modified(instance, own)


def _attribute(mapper: Mapper[Any], column: Any) -> str | None:
    """The attribute of a column, None for one that the class does not map."""
    found = mapper._columntoproperty.get(column)
    return None if found is None else found.key


def _committed(state: Any, key: str | None) -> Any:
    """What the database has of an attribute, None when the object does not know."""
    if key is None:
        return None
    history = state.get_history(key, PASSIVE_NO_INITIALIZE)
    known = history.deleted or (() if history.added else history.unchanged)
    return known[0] if known else None


def known_columns(state: Any) -> dict[str, Any]:
    """What an object knows of its row as it is in the database, by the keys of the columns."""
    mapper = state.mapper
    found = {attribute.columns[0].key: _committed(state, attribute.key) for attribute in mapper.column_attrs}
    found |= dict(zip([column.key for column in mapper.primary_key], state.identity or (), strict=False))
    return {key: value for key, value in found.items() if value is not None}


def unknown_bindings(state: Any) -> list[Column[Any]]:
    """Columns that ciphertexts are bound to, and that an object was given new values of without knowing the old."""
    pending = [column for column in state.mapper.columns if _attribute(state.mapper, column) in state.committed_state]
    return [
        column
        for column in pending
        if any(column.key in needed(encrypted) for encrypted in encrypted_columns(column.table))
        and _committed(state, _attribute(state.mapper, column)) is None
        and not column.primary_key
    ]


def _committed_key(instance: Any, mapper: Mapper[Any], table: Table) -> tuple[Any, ...]:
    state = attributes.instance_state(instance)
    return tuple([_committed(state, _attribute(mapper, column)) for column in table.primary_key])


def with_known_partitions(statement: Any, rows: Rows) -> Rows:
    """Parameters of a flush's UPDATE with the partitions, and other keys, that its WHERE clause does not tell.

    They are written with the values bound to them: should another transaction have changed them, the row still opens.
    """
    flushes = _flushes.get()
    if not flushes or not rows or not isinstance(statement, Update):
        return rows
    table = statement.table
    told = dict(equalities(statement._where_criteria, table))
    written = {*rows[0], *[getattr(column_of(statement, name), "key", name) for name, _ in assigned(statement)]}
    lacking = {
        name
        for column in encrypted_columns(table)
        if column.key in written
        for name in needed(column) - written - set(told)
    }
    keys = [told.get(column.key) for column in table.primary_key]
    if not lacking or not all(key is not None and key.key in rows[0] for key in keys):
        return rows
    identities = [(table, tuple([row[key.key] for key in keys if key is not None])) for row in rows]
    found = _states(flushes, identities)
    if None in found:
        for flush in flushes:
            flush.look_again()
        found = _states(flushes, identities)
    for name in lacking:
        values = [
            None if state is None else _committed(state, _attribute(state.mapper, table.c[name])) for state in found
        ]
        if None not in values:
            rows = [row | {name: value} for row, value in zip(rows, values, strict=True)]
    return rows


def _states(flushes: tuple[_Flush, ...], identities: list[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    known: States = {}
    for flush in flushes:
        known |= flush.states
    return [known.get(identity) for identity in identities]


def equalities(criteria: Any, table: Any) -> Iterator[tuple[str, BindParameter[Any]]]:
    """Columns of a table that conditions, all of which must hold, compare with one value, and its parameter."""
    for criterion in criteria:
        if isinstance(criterion, BooleanClauseList) and criterion.operator is operators.and_:
            yield from equalities(criterion.clauses, table)
        elif isinstance(criterion, BinaryExpression) and criterion.operator is operators.eq:
            left, right = criterion.left, criterion.right
            if isinstance(left, BindParameter):
                left, right = right, left
            # of this very table: an alias of it is another row
            if isinstance(right, BindParameter) and isinstance(left, Column) and left.table == table:
                yield str(left.key), right


def _end(session: Session) -> None:
    _flushes.set(tuple([flush for flush in _flushes.get() if flush.session() not in (None, session)]))


def _forget_copied_indexes(instance: Any, mapper: Mapper[Any], indexes: list[Column[Any]]) -> None:
    """merge() copies the index that another object was loaded with. An index is not the application's to set."""
    state, values = attributes.instance_state(instance), attributes.instance_dict(instance)
    for column in indexes:
        key = _attribute(mapper, column)
        if key in state.committed_state and isinstance(values.get(key), bytes | memoryview | None):
            state._expire_attributes(values, [key])


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, context: Any) -> None:
    """The database has indexes that the objects do not know of."""
    _end(session)
    stale = []
    for instance in (*session.new, *session.dirty):
        mapper = object_mapper(instance)
        keys = [_attribute(mapper, column) for table in mapper.tables for column in index_columns(table)]
        held = [key for key in keys if key is not None and key in attributes.instance_dict(instance)]
        if held:
            stale.append((instance, held))
    if stale:
        _indexes[session] = stale


@event.listens_for(Session, "after_flush_postexec")
def _after_flush_postexec(session: Session, context: Any) -> None:
    """Only now are new objects the session's, which can expire no others."""
    for instance, keys in _indexes.pop(session, ()):
        if instance in session:
            session.expire(instance, keys)


@event.listens_for(Session, "after_soft_rollback")
def _after_rollback(session: Session, transaction: Any) -> None:
    _end(session)
    _indexes.pop(session, None)
