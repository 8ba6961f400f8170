"""Reading: whole fetched chunks are decrypted in one round trip, below the rows that SQLAlchemy builds.

A result fetches raw rows through its `cursor_strategy`, whatever asks for them: the ORM, Core, scalars, partitions.
`Opening` stands in front of it and hands on decrypted values, and the result forgets the result processors of their
columns. What it does not recognise it leaves alone, and those processors decrypt value by value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy.engine import ChunkedIteratorResult, CursorResult
from sqlalchemy.engine.cursor import CursorFetchStrategy, ResultFetchStrategy
from sqlalchemy.sql.elements import ColumnElement

from keyside.fields import Field, FieldError, RowKeys, Send, Stored, current, open_chunk
from keyside.sqlalchemy.lineage import bare, is_of_row
from keyside.sqlalchemy.types import Early, Encrypted, read_strictly

FIRST_AHEAD: Final = 32
MOST_AHEAD: Final = 1024
GROWTH: Final = 8
"""Rows that are fetched ahead of a loop that takes one at a time: the first number, times the last until the second."""

known_row: ContextVar[Mapping[Any, Any]] = ContextVar("keyside.known_row", default=MappingProxyType({}))
"""Values by column of the only row that is loaded, which its statement need not select: the ORM refreshes an object."""

Processor = Callable[[Any], Any]


@dataclass
class EncryptedPosition:
    """An encrypted column of a result, and where the rest of what it needs stands in the same row."""

    position: int
    field: Field
    key: list[int]
    """Positions of the columns that `field.bind` names, or of the primary key for messages; empty when not there."""
    partition: int | None
    known_key: tuple[Any, ...] | None = None
    """The key of the only row, where its columns are not there."""
    known_partition: Any = None
    """The partition of the row that is refreshed, or the one of `keyside.context` when the statement was executed."""


class Opener:
    """Decrypts chunks of raw rows of one result."""

    def __init__(
        self, positions: list[EncryptedPosition], processors: Sequence[Processor | None], send: Send, early: bool
    ) -> None:
        self._positions = positions
        self._processors = processors
        self._send = send
        self._bound: dict[tuple[int, ...], list[tuple[Any, ...]]] = {}
        self._early = early
        """Whether the rows went through their processors before there was a result."""

    def __call__(self, rows: Sequence[Any]) -> list[Any]:
        """The rows with decrypted values."""
        if not rows:
            return []
        columns: list[Any] = list(zip(*rows, strict=True))
        self._bound.clear()
        chunk = [
            Stored(
                one.field,
                self._stored(columns[one.position]),
                self._keys(one, columns),
                self._partitions(one, columns, len(rows)),
            )
            for one in self._positions
        ]
        for one, values in zip(self._positions, open_chunk(chunk, self._send), strict=True):
            columns[one.position] = values
        return list(zip(*columns, strict=True))

    def _stored(self, column: Sequence[Any]) -> Sequence[Any]:
        return [value.stored if type(value) is Early else value for value in column] if self._early else column

    def _partitions(self, one: EncryptedPosition, columns: list[Any], count: int) -> Sequence[Any] | None:
        if one.partition is not None:
            return self._values(one.partition, columns)
        return None if one.known_partition is None else [one.known_partition] * count

    def _values(self, position: int, columns: list[Any]) -> Sequence[Any]:
        processor = self._processors[position]
        values: Sequence[Any] = columns[position]
        return values if processor is None else [processor(value) for value in values]

    def _keys(self, one: EncryptedPosition, columns: list[Any]) -> Sequence[tuple[Any, ...]] | None:
        if not one.key:
            return None if one.known_key is None else [one.known_key] * len(columns[0])
        if one.field.bind:
            # the same objects for every column that is bound to them, so that their encoding is worked out once
            found = self._bound.get(tuple(one.key))
            if found is None:
                found = list(zip(*[self._values(position, columns) for position in one.key], strict=True))
                self._bound[tuple(one.key)] = found
            return found
        return RowKeys([columns[position] for position in one.key])


class _Before:
    """What a wrapped strategy takes for its result: it may end, or replace itself, without ending the result."""

    def __init__(self, result: CursorResult[Any]) -> None:
        self._result = result
        self.ended = False
        self.cursor_strategy: Any = None

    def _soft_close(self, hard: bool = False) -> None:
        self.ended = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)


class Opening(CursorFetchStrategy):
    """A fetch strategy that opens what another one fetched.

    Rows that could not be opened are kept as they were fetched: the cursor will not give them again, so whoever asks
    again gets these first, and no row is left out.
    """

    __slots__ = ("_ahead", "_buffer", "_ended", "_inner", "_most", "_open", "_raw")

    def __init__(self, inner: ResultFetchStrategy, opener: Opener, chunk: int | None) -> None:
        self._inner: Any = inner
        self._open = opener
        self._buffer: deque[Any] = deque()
        self._raw: Sequence[Any] = ()
        """Fetched and not opened yet."""
        self._ended = False
        self._ahead = chunk or FIRST_AHEAD
        self._most = chunk or MOST_AHEAD

    def fetch_whole(self, result: CursorResult[Any], cursor: Any) -> None:
        """Fetch and decrypt everything now, for results that are consumed where nobody can wait."""
        self._fetch_rest(result, cursor)

    def fetchone(self, result: CursorResult[Any], dbapi_cursor: Any, hard_close: bool = False) -> Any:
        if not self._buffer:
            self._open_raw()
        if not self._buffer and not self._ended:
            self._fetch(result, dbapi_cursor, self._ahead)
            self._ahead = min(self._ahead * GROWTH, self._most)
        if self._buffer:
            return self._buffer.popleft()
        result._soft_close(hard=hard_close)
        return None

    def fetchmany(self, result: CursorResult[Any], dbapi_cursor: Any, size: int | None = None) -> Any:
        if size is None:
            return self.fetchall(result, dbapi_cursor)
        self._open_raw()
        if len(self._buffer) < size and not self._ended:
            self._fetch(result, dbapi_cursor, size - len(self._buffer))
        rows = [self._buffer.popleft() for _ in range(min(size, len(self._buffer)))]
        if not rows:
            result._soft_close()
        return rows

    def fetchall(self, result: CursorResult[Any], dbapi_cursor: Any) -> Any:
        self._fetch_rest(result, dbapi_cursor)
        rows = list(self._buffer)
        self._buffer.clear()
        result._soft_close()
        return rows

    def _fetch_rest(self, result: CursorResult[Any], cursor: Any) -> None:
        if not self._ended:
            self._raw = [*self._raw, *self._inner.fetchall(_Before(result), cursor)]
            self._ended = True
        self._open_raw()

    def _fetch(self, result: CursorResult[Any], cursor: Any, size: int) -> None:
        before = _Before(result)
        self._raw = self._inner.fetchmany(before, cursor, size)
        self._ended = before.ended or not self._raw
        self._open_raw()

    def _open_raw(self) -> None:
        self._buffer.extend(self._open(self._raw))
        self._raw = ()

    def yield_per(self, result: CursorResult[Any], dbapi_cursor: Any, num: int) -> None:
        if not self._ended:
            before = _Before(result)
            self._inner.yield_per(before, dbapi_cursor, num)
            self._inner = before.cursor_strategy or self._inner
        self._ahead = self._most = num

    def soft_close(self, result: CursorResult[Any], dbapi_cursor: Any) -> None:
        self._buffer.clear()
        self._inner.soft_close(result, dbapi_cursor)

    def hard_close(self, result: CursorResult[Any], dbapi_cursor: Any) -> None:
        self._raw = ()
        self._buffer.clear()
        self._inner.hard_close(result, dbapi_cursor)

    def handle_exception(self, result: CursorResult[Any], dbapi_cursor: Any, err: BaseException) -> Any:
        self._inner.handle_exception(result, dbapi_cursor, err)


def opening_of(result: CursorResult[Any], send: Send, early: bool) -> Opening | None:
    """A strategy for the result that opens its encrypted columns; None when it has none."""
    metadata: Any = result._metadata
    processors: Sequence[Processor | None] = metadata._processors
    elements = None
    if early and not any(processors):
        elements = _elements(result, metadata, len(processors))
        types = {i: element.type for i, element in enumerate(elements) if element is not None}
        encrypted: dict[int, Any] = {i: type_ for i, type_ in types.items() if isinstance(type_, Encrypted)}
    else:
        early = False
        encrypted = {i: kind for i, one in enumerate(processors) if one and (kind := getattr(one, "keyside", None))}
    if not encrypted:
        return None
    elements = elements or _elements(result, metadata, len(processors))
    fields = {i: read_strictly(type_.field(result.dialect)) for i, type_ in encrypted.items()}
    positions = [_position(i, fields[i], type_, elements) for i, type_ in encrypted.items()]
    if not early:
        forget_processors(result, encrypted)
    options = result.context.execution_options
    return Opening(result.cursor_strategy, Opener(positions, processors, send, early), options.get("yield_per"))


def close_when_broken_off(result: Any) -> None:
    """Close a result of the ORM with the error that breaks its loading off: its iterator is at its end with that, so
    the rows that it has would be taken for all rows by whoever goes on."""
    if not isinstance(result, ChunkedIteratorResult):
        return
    chunks = result.chunks

    def guarded(size: int | None) -> Iterator[Sequence[Any]]:
        try:
            yield from chunks(size)
        except FieldError:
            result.close()
            raise

    result.chunks = guarded
    result.iterator = chain.from_iterable(guarded(result._yield_per))


def forget_processors(result: Any, positions: Container[int]) -> None:
    """Let the result hand on what is fetched at these positions as it is. Its metadata may be shared by others."""
    shared = result._metadata
    own = object.__new__(type(shared))  # copy.copy makes one that has been pickled
    for kind in type(shared).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(shared, name):
                setattr(own, name, getattr(shared, name))
    own._processors = [None if i in positions else one for i, one in enumerate(shared._processors)]
    result._metadata = own
    result._reset_memoizations()


def _elements(result: CursorResult[Any], metadata: Any, count: int) -> list[ColumnElement[Any] | None]:
    """What the statement selects at each position."""
    elements: list[ColumnElement[Any] | None] = [None] * count
    compiled: Any = getattr(result.context, "compiled", None)
    for entry in getattr(compiled, "_result_columns", ()):
        for thing in entry.objects:
            element = _bare(thing)
            record = metadata._keymap.get(thing) if element is not None else None
            if record is not None and isinstance(record[0], int) and record[0] < count:
                elements[record[0]] = elements[record[0]] if elements[record[0]] is not None else element
    # a column that is selected once more is there by a name only
    again = _in_order(compiled) if any(one is None for one in elements) else []
    if len(again) == count:
        elements = [_bare(two) if one is None else one for one, two in zip(elements, again, strict=True)]
    return elements


def _in_order(compiled: Any) -> list[Any]:
    """What a statement selects or returns, in the order of its result; empty where that is not known."""
    if not getattr(compiled, "_ordered_columns", False):
        return []
    returned = [column for one in getattr(compiled.statement, "_returning", ()) for column in one._select_iterable]
    named = getattr(compiled.compile_state, "columns_plus_names", ())
    return returned or [column for _, _, _, column, _ in named]


def _bare(thing: Any) -> ColumnElement[Any] | None:
    thing = bare(thing)
    return thing if isinstance(thing, ColumnElement) and getattr(thing, "table", None) is not None else None


def _position(
    number: int, field: Field, type_: Encrypted, elements: list[ColumnElement[Any] | None]
) -> EncryptedPosition:
    own = type_.column
    assert own is not None  # its field was just made
    element = elements[number]

    def find(name: str) -> int | None:
        column = own.table.c.get(name)
        if column is None or element is None:
            return None
        return next((i for i, other in enumerate(elements) if is_of_row(other, column, element)), None)

    names = field.bind or tuple(column.key for column in own.table.primary_key)
    key = [place for name in names if (place := find(name)) is not None]
    partition = find(field.partition_column) if field.partition_column else None
    row = known_row.get()
    columns = [own.table.c.get(name) for name in names]
    known_key = tuple([row[column] for column in columns]) if row and set(columns) <= set(row) else None
    partition_column = own.table.c.get(field.partition_column) if field.partition_column else None
    known = row.get(partition_column, current(field.partition_name)) if field.partition is not None else None
    return EncryptedPosition(number, field, key if len(key) == len(names) else [], partition, known_key, known)
