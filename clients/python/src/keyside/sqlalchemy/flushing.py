"""Objects on their way to the database: what a flush must write beside the attributes that the application changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Column, Table, Update, bindparam, event
from sqlalchemy.orm import Mapper, Session, attributes, object_mapper
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

from keyside.fields import BindingMissing, FieldUnreadable
from keyside.sqlalchemy.assignments import assigned, column_of, needed, target_table
from keyside.sqlalchemy.declaring import following_keys
from keyside.sqlalchemy.lineage import beside
from keyside.sqlalchemy.types import encrypted_columns, index_columns, strict

Rows = list[dict[str, Any]]
States = dict[tuple[Any, tuple[Any, ...]], Any]
_COUNTED: Final = "keyside_counted"
"""Execution option of an UPDATE that must find each of its rows."""


class _Flush(NamedTuple):
    """What a flush writes over one connection."""

    session: ref[Session]
    connection: Any
    states: States
    """States of objects that it may update, by the keys that their rows have in the database."""


class _Layout(NamedTuple):
    """A table of a mapped class, with what a flush must look after."""

    table: Table
    bound: list[Column[Any]]
    indexes: list[Column[Any]]


_flushes: ContextVar[tuple[_Flush, ...]] = ContextVar("keyside.flushes", default=())
"""Flushes that are going on, the innermost last: a listener may flush another session, over the same connection too."""

_layouts: WeakKeyDictionary[Mapper[Any], list[_Layout]] = WeakKeyDictionary()
_pairs: WeakKeyDictionary[Mapper[Any], list[tuple[str, str]]] = WeakKeyDictionary()

_indexes: WeakKeyDictionary[Session, list[tuple[Any, list[str]]]] = WeakKeyDictionary()
"""Objects that hold indexes which a flush writes anew."""


@event.listens_for(Mapper, "before_update")
def _before_update(mapper: Mapper[Any], connection: Any, instance: Any) -> None:
    """An UPDATE that changes a row key or partition writes anew what is bound to it.

    Here rather than before the flush: relationships have set their foreign keys by now.
    """
    state: Any = attributes.instance_state(instance)
    flush = _flush_of(state.session, connection)
    for table, bound, indexes in _layout(mapper):
        _forget_copied_indexes(instance, mapper, indexes)
        if bound:
            _write_bound(instance, mapper, table, bound)
            flush.states[table, _key_in_where(state, mapper, table)] = state


def _layout(mapper: Mapper[Any]) -> list[_Layout]:
    found = _layouts.get(mapper)
    if found is None:
        tables = [table for table in mapper.tables if isinstance(table, Table)]
        layouts = [_Layout(table, _bound(table), index_columns(table)) for table in tables]
        found = _layouts[mapper] = [one for one in layouts if one.bound or one.indexes]
    return found


def _flush_of(session: Any, connection: Any) -> _Flush:
    found = _innermost(connection)
    if found is None or found.session() is not session:
        found = _Flush(ref(session), connection, {})
        _flushes.set((*_flushes.get(), found))
    return found


def _innermost(connection: Any) -> _Flush | None:
    return next((flush for flush in reversed(_flushes.get()) if flush.connection is connection), None)


def _bound(table: Table) -> list[Column[Any]]:
    return [column for column in encrypted_columns(table) if needed(column)]


def _write_bound(instance: Any, mapper: Mapper[Any], table: Table, bound: list[Column[Any]]) -> None:
    for column in bound:
        keys = [_attribute(mapper, table.c[name]) for name in needed(column) if name in table.c]
        own = _attribute(mapper, column)
        if own is None:
            continue
        moved = any(_is_changed(instance, key) for key in keys if key)
        written = _is_changed(instance, own)
        if moved and not written:
            _load_strictly(instance, own, column)
            attributes.flag_modified(instance, own)
        if moved or written:
            for key in (own, *keys):
                getattr(instance, key or own)  # loaded, so that there is a value to write


def _is_changed(instance: Any, key: str) -> bool:
    """Whether an attribute was set; one that is not loaded was not, and is not loaded for this."""
    return attributes.get_history(instance, key, PASSIVE_NO_INITIALIZE).has_changes()


def _load_strictly(instance: Any, own: str, column: Column[Any]) -> None:
    """Load what is to be encrypted anew. Raises FieldUnreadable: None in place of it would overwrite the ciphertext."""
    if getattr(instance, own) is not None or column.type.on_error != "none":  # type: ignore[attr-defined]  # an Encrypted
        return
    # once more, and alone: other columns may read as None
    attributes.instance_state(instance)._expire_attributes(attributes.instance_dict(instance), [own])
    token = strict.set(True)
    try:
        getattr(instance, own)
    except FieldUnreadable as error:
        message = "does not open, so it cannot be encrypted for another row key or partition; undo that, or set a value"
        raise FieldUnreadable(message, error.table, error.column, error.key) from error
    finally:
        strict.reset(token)


def _attribute(mapper: Mapper[Any], column: Any) -> str | None:
    """The attribute of a column, None for one that the class does not map."""
    found = mapper._columntoproperty.get(column)
    return None if found is None else found.key


def _committed(state: Any, key: str | None) -> Any:
    """What the database has of an attribute, None when the object does not know."""
    if key is None or key not in state.manager:
        return None
    history = state.get_history(key, PASSIVE_NO_INITIALIZE)
    known = history.deleted or (() if history.added else history.unchanged)
    return known[0] if known else None


def known_columns(state: Any) -> dict[Any, Any]:
    """What an object knows of its row as it is in the database, by the column of a table."""
    found: dict[Any, Any] = {}
    for attribute in state.mapper.column_attrs:
        value = _committed(state, attribute.key)
        for column in attribute.columns:
            # of a class that is mapped to a subquery, the columns below
            found |= dict.fromkeys(column.base_columns, value)
    for key, value in zip(state.mapper.primary_key, state.identity or (), strict=False):
        found |= dict.fromkeys(_columns_of(state.mapper, key), value)
    return {column: value for column, value in found.items() if value is not None}


def bindings_beside(state: Any, loaded: Any) -> list[Any]:
    """Columns that ciphertexts among the `loaded` attributes are bound to, which these leave out.

    What the object knows of them may be of before its row was moved, except for the primary key that it is found by: a
    key of more columns than those is read as a whole.
    """
    mapper = state.mapper
    found_by = {column for key in mapper.primary_key for column in _columns_of(mapper, key)}
    bindings: list[Any] = []
    for column in [one for table in mapper.tables for one in encrypted_columns(table)]:
        if _attribute(mapper, column) not in loaded:
            continue
        own: Any = column.type
        for names in (own.bind, sorted(needed(column) - set(own.bind))):
            columns = [beside(_columns_of(mapper, column)[0], column.table.c[name]) for name in names]
            bindings += [] if set(columns) <= found_by else columns
    return [
        column for column in dict.fromkeys(bindings) if column is not None and _attribute(mapper, column) not in loaded
    ]


def as_attributes(mapper: Mapper[Any], columns: list[Any]) -> list[Any]:
    """Attributes in place of the columns that a class maps: the ORM knows where it selects these from."""
    keys = [_attribute(mapper, column) for column in columns]
    return [
        getattr(mapper.entity, key) if key is not None and key in mapper.class_manager else column
        for key, column in zip(keys, columns, strict=True)
    ]


def _columns_of(mapper: Mapper[Any], column: Any) -> list[Any]:
    """The columns that have the value of the same attribute."""
    return list(mapper._columntoproperty[column].columns)


def _key_in_where(state: Any, mapper: Mapper[Any], table: Table) -> tuple[Any, ...]:
    """The row's key when a flush comes to its table: where it follows the key of the table above, by ON UPDATE CASCADE,
    that has been changed by then."""
    mappers: Any = mapper.iterate_to_root() if mapper.passive_updates else ()
    following = {own for one in mappers for _, own in one._inherits_equated_pairs or ()}
    keys = [(column, _attribute(mapper, column)) for column in table.primary_key]
    return tuple([state.dict.get(key) if column in following else _committed(state, key) for column, key in keys])


def with_known_bindings(connection: Any, statement: Any, rows: Rows) -> tuple[Any, Rows]:
    """A flush's UPDATE, which also compares the partitions, and other keys, that its values are encrypted for.

    They are what the object knows. A row that another transaction has moved is not found then, as one that another has
    deleted.
    """
    if not isinstance(statement, Update):
        return statement, rows
    table, flush = target_table(statement), _innermost(connection)
    told = dict(equalities(statement._where_criteria, table)) if flush else {}
    labels: list[Any] = [column._label for column in table.primary_key]
    if flush is None or [getattr(told.get(column.key), "key", None) for column in table.primary_key] != labels:
        # not the flush's own, whose parameters have the labels of the columns
        _check_followed(statement, rows)
        return statement, rows
    if not rows or not connection.dialect.supports_sane_rowcount:
        return statement, rows
    states: list[Any] = [flush.states.get((table, tuple([row.get(label) for label in labels]))) for row in rows]
    for name in _lacking(statement, rows, told) if None not in states else ():
        column = table.c[name]
        values = [_committed(state, _attribute(state.mapper, column)) for state in states]
        if None not in values:
            label: Any = column._label
            statement = statement.where(column == bindparam(label, type_=column.type))
            statement = statement.execution_options(**{_COUNTED: True})
            rows = [row | {label: value} for row, value in zip(rows, values, strict=True)]
    return statement, rows


def is_counted(statement: Any) -> bool:
    """Whether an UPDATE compares what the object knows, so that it may not find a row."""
    return isinstance(statement, Update) and _COUNTED in statement.get_execution_options()


def _lacking(statement: Any, rows: Rows, told: Mapping[str, Any]) -> list[str]:
    """Columns that the written values are bound to, and of which the statement does not tell."""
    written = _written(statement, rows)
    bound = [needed(column) for column in encrypted_columns(target_table(statement)) if column.key in written]
    # in one order, so that the statement is cached once
    return sorted(set().union(*bound) - written - set(told))


def _written(statement: Any, rows: Rows) -> set[str]:
    return {
        *(rows[0] if rows else ()),
        *[getattr(column_of(statement, name), "key", name) for name, _ in assigned(statement)],
    }


def _check_followed(statement: Any, rows: Rows) -> None:
    """Raise BindingMissing for an UPDATE of a row key that the database changes in another table as well.

    A flush writes what is bound to it there.
    """
    keys = following_keys.get(target_table(statement))
    written = _written(statement, rows) if keys else set()
    for key in keys or ():
        for column in encrypted_columns(key.parent.table) if key.column.key in written else ():
            if key.parent.key in needed(column):
                message = (
                    f"its row key follows {key.column}, which this UPDATE changes; change it in objects of a Session"
                )
                raise BindingMissing(message, column.table.name, column.name)


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
    stale = [(instance, [index for _, index in _indexed(object_mapper(instance))]) for instance in session.new]
    for instance in session.dirty:
        pairs = _indexed(object_mapper(instance))
        stale.append((instance, [index for source, index in pairs if _is_changed(instance, source)]))
    stale = [(instance, keys) for instance, keys in stale if keys]
    if stale:
        _indexes[session] = stale


def _indexed(mapper: Mapper[Any]) -> list[tuple[str, str]]:
    """Attributes of encrypted columns, each with the one of an index of it."""
    found = _pairs.get(mapper)
    if found is None:
        columns: list[Any] = [column for layout in _layout(mapper) for column in layout.indexes]
        pairs = [(_attribute(mapper, column.type.source_column), _attribute(mapper, column)) for column in columns]
        found = _pairs[mapper] = [(source, index) for source, index in pairs if source and index]
    return found


def held_indexes(execution: Any) -> list[tuple[Any, str, str, Any]]:
    """Objects that hold an index of what an UPDATE of the ORM writes, with the value that it is of."""
    mapper, given = execution.bind_mapper, execution.parameters or {}
    pairs = _indexed(mapper) if mapper is not None else []
    written = _written(execution.statement, given if isinstance(given, list) else [given]) if pairs else set()
    pairs = [pair for pair in pairs if written & {pair[0], mapper.attrs[pair[0]].columns[0].key}]
    return [
        (state, source, index, state.dict.get(source))
        for state in (execution.session.identity_map.all_states() if pairs else ())
        for source, index in pairs
        if index in state.dict and state.mapper.isa(mapper)
    ]


def forget_followed(held: list[tuple[Any, str, str, Any]]) -> None:
    """Let objects load the indexes of values that are no longer those that they held."""
    for state, source, index, value in held:
        if source not in state.dict or state.dict[source] is not value:
            state._expire_attributes(state.dict, [index])


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
