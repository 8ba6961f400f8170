"""Whether SQLAlchemy's internals are the ones that batching was made for. Correctness does not depend on it."""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, TypeDecorator, create_engine, select
from sqlalchemy.engine.cursor import CursorFetchStrategy

from keyside.sqlalchemy.reading import forget_processors


class _Marked(TypeDecorator[Any]):
    """Like an encrypted column, without encryption: its processor can be recognised, and must not be asked."""

    impl = String
    cache_ok = True

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        def process(value: Any) -> Any:
            return "asked"

        process.keyside = self  # type: ignore[attr-defined]  # as Encrypted does
        return process


class _Wrapping(CursorFetchStrategy):
    __slots__ = ("_rows",)

    def __init__(self, rows: list[Any]) -> None:
        self._rows = deque(rows)

    def fetchall(self, result: Any, dbapi_cursor: Any) -> Any:
        result._soft_close()
        return list(self._rows)


@cache
def what_changed() -> str:
    """What is not as expected, empty when all is: tried on a database in memory, once a process."""
    table = Table("keyside_check", MetaData(), Column("id", Integer, primary_key=True), Column("value", _Marked))
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            table.create(connection)
            connection.exec_driver_sql("INSERT INTO keyside_check VALUES (1, 'a')")
            result: Any = connection.execute(select(table))
            processors = result._metadata._processors
            if [getattr(processor, "keyside", None) is not None for processor in processors] != [False, True]:
                return "result processors"
            entries = result.context.compiled._result_columns
            if [result._metadata._keymap[entry.objects[0]][0] for entry in entries] != [0, 1]:
                return "result columns"
            if result.context._is_server_side is not False:
                return "server side cursors"
            rows = result.cursor_strategy.fetchall(result, result.cursor)
            again: Any = connection.execute(select(table))
            again.cursor_strategy = _Wrapping(rows)
            forget_processors(again, {1})
            if again.all() != [(1, "a")]:
                return "fetch strategies"
            # others share what this result has forgotten
            return "" if connection.execute(select(table)).all() == [(1, "asked")] else "result metadata"
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        return f"{type(error).__name__} in the self-check"
    finally:
        engine.dispose()
