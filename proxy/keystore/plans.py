"""Statements that every miss runs, compiled once: SQLAlchemy's execution around one costs several times what it costs.

Compiling, and turning values into what the driver takes and back, stay SQLAlchemy's, so these are of any dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError

Convert = Callable[[Any], Any]


class Plan:
    """A SELECT whose parameters are `bindparam`s. Used from one thread at a time."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._dialect: Dialect | None = None
        self._text = ""
        self._names: list[str] | None = None  # of positional parameters
        self._constants: dict[str, Any] = {}  # parameters that compiling made of constants, such as that of LIMIT
        self._to_driver: dict[str, Convert] = {}
        self._from_driver: list[tuple[int, Convert]] = []  # by position in a row

    def rows(self, connection: Connection, **parameters: object) -> list[tuple[Any, ...]]:
        """All rows, in the connection's transaction. Raises DBAPIError, without the parameters."""
        if connection.dialect is not self._dialect:
            self._compile(connection.dialect)
        values = self._constants | parameters
        for name, convert in self._to_driver.items():
            values[name] = convert(values[name])
        given: Any = values if self._names is None else tuple([values[name] for name in self._names])
        found: Sequence[tuple[Any, ...]] = ()
        try:
            cursor = connection.connection.cursor()
            try:
                cursor.execute(self._text, given)
                found = cursor.fetchall()
            finally:
                cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            base = connection.dialect.loaded_dbapi.Error
            raise DBAPIError.instance(self._text, None, error, base, hide_parameters=True) from error
        return [self._converted(row) for row in found]

    def _converted(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for position, convert in self._from_driver:
            values[position] = convert(values[position])
        return tuple(values)

    def _compile(self, dialect: Dialect) -> None:
        compiled = self._statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._names = list(compiled.positiontup) if compiled.positional and compiled.positiontup else None
        self._constants = dict(compiled.params)
        self._to_driver = {
            name: convert
            for name, bind in compiled.binds.items()
            if (convert := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        self._from_driver = [
            (position, convert)
            for position, column in enumerate(self._statement.selected_columns)
            if (convert := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]
        self._dialect = dialect
