"""`install`: everything that makes an engine encrypt and decrypt, on public events."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from sqlalchemy import Delete, Engine, FromClause, Insert, Select, Update, event, exc
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import FromStatement, ORMExecuteState, Session
from sqlalchemy.util import await_only

import keyside.fields
from keyside.async_client import AsyncClient
from keyside.batches import Job
from keyside.client import Client
from keyside.fields import BatchingOff, FieldUnavailable, Replies, Send, Unbatched, note_round_trip
from keyside.fields.formats import BINARY, has_formats, same_in_both
from keyside.sqlalchemy.assignments import resolve
from keyside.sqlalchemy.deferring import loading_what_is_needed
from keyside.sqlalchemy.facts import statement_facts
from keyside.sqlalchemy.flushing import (
    as_attributes,
    bindings_beside,
    forget_followed,
    held_indexes,
    is_counted,
    known_columns,
    with_known_bindings,
)
from keyside.sqlalchemy.indexing import with_indexes
from keyside.sqlalchemy.inspection import check_searchable, searches
from keyside.sqlalchemy.reading import close_when_broken_off, known_row, opening_of
from keyside.sqlalchemy.registry import Installation, forget, installation_of, register
from keyside.sqlalchemy.selfcheck import what_changed
from keyside.sqlalchemy.types import early, encrypted_columns
from keyside.sqlalchemy.widening import companions, widened
from keyside.sqlalchemy.writing import execute_counted, holds_placeholders, substituted

if TYPE_CHECKING:
    # importing it needs greenlet, which SQLAlchemy 2.1 no longer brings by itself
    from sqlalchemy.ext.asyncio import AsyncEngine

STRIPPED: Final = "keyside_columns"
"""Execution option: how many columns of a widened result the caller asked for."""

_WIDENED: Final = "keyside_widened"
"""Execution option of what a Session executes: its event has seen to the columns."""

_OF_SESSION: Final = "_result_disable_adapt_to_context"
"""Execution option that only a Session sets, on what the ORM loads from."""

_STREAMING: Final = frozenset({"yield_per", "stream_results"})
"""Execution options with which the ORM fetches a result piece by piece."""


def install(engine: Engine | AsyncEngine, client: Client | AsyncClient, *, unbatched: Unbatched = "warn") -> None:
    """Encrypt and decrypt the Encrypted and BlindIndex columns that this engine reads and writes.

    An Engine takes a `keyside.Client`, an AsyncEngine a `keyside.AsyncClient`. `unbatched`: what happens when a value
    takes a round trip of its own: "warn", "error" or "allow". Calling it again replaces client and policy.
    """
    if unbatched not in ("warn", "error", "allow"):
        raise ValueError(f"unbatched: expected 'warn', 'error' or 'allow', not {unbatched!r}")
    sync_engine = _sync_engine(engine)
    asynchronous = sync_engine is not engine
    if not isinstance(client, AsyncClient if asynchronous else Client):
        needed = "AsyncClient" if asynchronous else "Client"
        raise TypeError(f"{type(engine).__name__} needs a keyside.{needed}, not a {type(client).__name__}")
    uninstall(engine)
    changed = what_changed()
    if changed:
        message = f"SQLAlchemy's internals are not as expected ({changed}); values are decrypted one by one"
        warnings.warn(message, BatchingOff, stacklevel=2)
    installation = Installation(_sender(client), unbatched, not changed, ref(sync_engine))
    register(sync_engine.dialect, installation)
    _listen(sync_engine, installation, asynchronous)


def uninstall(engine: Engine | AsyncEngine) -> None:
    """Take the hooks off; nothing happens when there are none."""
    installation = forget(_sync_engine(engine).dialect)
    for target, name, listener in installation.listeners if installation else ():
        event.remove(target, name, listener)


def _sync_engine(engine: Any) -> Engine:
    """The engine itself, or the one below an AsyncEngine. Raises TypeError for anything else."""
    found = getattr(engine, "sync_engine", engine)
    if not isinstance(found, Engine):
        raise TypeError(f"expected an Engine or an AsyncEngine, not a {type(engine).__name__}")
    return found


def _sender(client: Client | AsyncClient) -> Send:
    if isinstance(client, Client):
        return keyside.fields.Sender(client)

    def send(jobs: list[Job]) -> Replies:
        note_round_trip()
        return await_only(client.pipeline(jobs))

    return send


def _listen(engine: Engine, installation: Installation, asynchronous: bool) -> None:
    def before_execute(
        connection: Any, statement: Any, multiparams: Any, params: Any, execution_options: Any
    ) -> tuple[Any, Any, Any]:
        written = resolve(statement)
        if isinstance(written, Insert | Update):
            statement = written
            given = list(multiparams) if multiparams else [params] if params else []
            statement, rows = with_indexes(*with_known_bindings(connection, statement, given))
            statement = _stripped_later(statement, execution_options)
            if rows is not given:
                return (statement, rows, {}) if multiparams else (statement, [], rows[0])
        elif isinstance(statement, Select | Delete):
            statement = _stripped_later(statement, execution_options)
        return statement, multiparams, params

    def before_cursor_execute(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        # parameters are logged next
        check_searchable(context.compiled)
        statement_facts(context.compiled)

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
        early.set(bool(getattr(context, "_is_implicit_returning", False)) and installation.batching)
        if context.compiled in installation.in_binary and has_formats(cursor):
            cursor.format = BINARY
        if not holds_placeholders(parameters):
            return None
        context.dialect.do_execute(cursor, statement, substituted(parameters, context, installation.send), context)
        return True

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
        early.set(False)
        counted = not context.dialect.supports_sane_multi_rowcount and is_counted(context.invoked_statement)
        if not counted and not holds_placeholders(parameters):
            return None
        execute = execute_counted if counted else context.dialect.do_executemany
        execute(cursor, statement, substituted(parameters, context, installation.send), context)
        return True

    def after_execute(
        connection: Any, statement: Any, multiparams: Any, params: Any, execution_options: Any, result: Any
    ) -> None:
        was_early = early.get()
        early.set(False)
        if isinstance(result, CursorResult) and result.returns_rows and installation.batching:
            _open_result(result, installation, asynchronous, was_early)
            count = statement.get_execution_options().get(STRIPPED)
            if count is not None:
                result.columns(*range(count))

    def handle_error(context: Any) -> None:
        early.set(False)
        # raised before there were placeholders: it would quote the parameters as the application gave them
        error = context.sqlalchemy_exception
        if context.execution_context is None and isinstance(error, exc.StatementError):
            error.hide_parameters = True
            error.params = None

    for name, listener, options in (
        ("before_execute", before_execute, {"retval": True}),
        ("before_cursor_execute", before_cursor_execute, {}),
        ("do_execute", do_execute, {}),
        ("do_executemany", do_executemany, {}),
        ("after_execute", after_execute, {}),
        ("handle_error", handle_error, {}),
    ):
        event.listen(engine, name, listener, **options)
        installation.listeners.append((engine, name, listener))


def _stripped_later(statement: Any, execution_options: Any) -> Any:
    """A statement with the columns that its encrypted columns need, and a note to take them off its rows."""
    if _is_loaded_by_orm(statement, execution_options) or not (added := companions(statement)):
        return statement
    count = len(statement.selected_columns if isinstance(statement, Select) else statement.exported_columns)
    return widened(statement, added).execution_options(**{STRIPPED: count})


def _is_loaded_by_orm(statement: Any, execution_options: Any) -> bool:
    """Whether the ORM says which columns the rows have: of what a Session executes, and of whole mapped classes."""
    if getattr(statement, "_propagate_attrs", {}).get("compile_state_plugin") != "orm":
        return False
    return _WIDENED in execution_options or any(
        isinstance(selected, FromClause) for selected in getattr(statement, "_raw_columns", ())
    )


def _open_result(result: CursorResult[Any], installation: Installation, asynchronous: bool, was_early: bool) -> None:
    opening = opening_of(result, installation.send, was_early)
    if opening is None:
        return
    context: Any = result.context
    _choose_format(result, context.compiled, installation)
    if _is_read_at_once(context, asynchronous):
        try:
            opening.fetch_whole(result, result.cursor)
        except BaseException:
            result.close()
            raise
    result.cursor_strategy = opening
    if getattr(result, "_row_logging_fn", None) is not None:
        # echo="debug" would log whole rows, decrypted values in them
        result._row_logging_fn = None
        result._reset_memoizations()


def _is_read_at_once(context: Any, asynchronous: bool) -> bool:
    if context._is_server_side:
        return False
    # consumed outside the greenlet, where nobody can wait for the sidecar; or by the ORM, which fetches everything at
    # once and takes an error for the end of it
    options = context.execution_options
    return asynchronous or (_OF_SESSION in options and not options.get("yield_per"))


def _choose_format(result: CursorResult[Any], compiled: Any, installation: Installation) -> None:
    """Let the next result of a statement come in binary, when this one shows that it may. Raises FieldUnavailable."""
    cursor: Any = result.cursor
    if not has_formats(cursor) or not getattr(getattr(compiled, "statement", None), "is_select", False):
        return
    if same_in_both(cursor):
        installation.in_binary.add(compiled)
    elif cursor.format == BINARY:
        installation.in_binary.discard(compiled)
        result.close()
        raise FieldUnavailable("columns that are selected beside encrypted ones have changed their types; try again")


@event.listens_for(Session, "do_orm_execute")
def _widen(state: ORMExecuteState) -> Any:
    """Fetch what bound columns need beside them, and take it off the rows again."""
    state.update_execution_options(**{_WIDENED: True})
    if state.is_select and state.is_column_load:
        return _load_known_row(state)
    statement: Any = state.statement
    evaluated = state.execution_options.get("synchronize_session", "auto") in ("auto", "evaluate")
    if evaluated and (state.is_update or state.is_delete) and searches(statement):
        # objects hold indexes, or nothing, and cannot be held against values
        state.update_execution_options(synchronize_session="fetch")
    if state.is_select and statement._with_options and not state.is_relationship_load:
        # loaders of relationships pass the options on
        state.statement = statement = loading_what_is_needed(statement)
    added = companions(statement)
    streams = state.is_select and not _STREAMING.isdisjoint(state.execution_options)
    held = held_indexes(state) if state.is_update else []
    if not added and not streams and not held:
        return None
    if installation_of(state.session.get_bind(**state.bind_arguments).dialect) is None:
        return None
    result = state.invoke_statement(widened(statement, added) if added else None)
    forget_followed(held)
    if streams:
        close_when_broken_off(result)
    if not added:
        return result
    count = len(statement.column_descriptions if state.is_select else statement.returning_column_descriptions)
    return result.columns(*range(count))


def _load_known_row(state: ORMExecuteState) -> Any:
    """A deferred or expired column is loaded without the key of its row, which the object knows."""
    loading: Any = getattr(state.load_options, "_refresh_state", None)
    if loading is None or not any(encrypted_columns(table) for table in loading.mapper.tables):
        return None
    statement: Any = state.statement
    loaded = statement._compile_options._only_load_props
    added = bindings_beside(loading, loaded) if loaded else []
    token = known_row.set(known_columns(loading))
    try:
        if added and isinstance(statement, FromStatement):
            # of the tables of a hierarchy, those that are needed; the ORM does not ask what else is selected
            statement = statement._generate()
            statement.element = statement.element.add_columns(*added)
            return state.invoke_statement(statement)
        added = as_attributes(loading.mapper, added)
        result: Any = state.invoke_statement(statement.add_columns(*added) if added else None)
        return result.columns(0) if added else result
    finally:
        known_row.reset(token)
