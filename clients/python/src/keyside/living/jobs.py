"""What a job does with a page of rows: which values it changes, and to what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from keyside.fields import Field, FieldUnreadable, Index, Send, Stored, Unsealed, open_chunk, renew, seal_columns
from keyside.fields.declaration import UNFIT


@dataclass
class Page:
    """Rows in the order of their primary keys, as columns; `stored` is what the driver returned."""

    keys: list[tuple[Any, ...]]
    """Primary keys, as Python values."""
    stored: dict[str, list[Any]]
    """Columns by name: the encrypted column, its indexes, and the plain column of a job that has one."""
    bound: list[tuple[Any, ...]] | None = None
    """Row keys of a bound column, values of `field.bind`."""
    partitions: list[Any] | None = None
    """Values of the partition's column."""
    beside: dict[str, list[Any]] = field(default_factory=dict)
    """The columns that choose context and partition, by name, but for those of the primary key."""


@dataclass
class Changes:
    """New values of some rows, as columns. A row is written where the columns of `before` still hold what they held."""

    keys: list[tuple[Any, ...]]
    before: dict[str, list[Any]]
    after: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.keys)

    def alike(self) -> list[Changes]:
        """The same in parts, in each of which a column of `before` is NULL in every row or in none."""
        mixed = [held for held in self.before.values() if 0 < held.count(None) < len(held)]
        if not mixed:
            return [self] if self.keys else []
        shapes: dict[tuple[bool, ...], list[int]] = {}
        for row, shape in enumerate(zip(*[[one is None for one in held] for held in mixed], strict=True)):
            shapes.setdefault(shape, []).append(row)
        return [self.of(rows) for rows in shapes.values()]

    def of(self, rows: Sequence[int]) -> Changes:
        """Those of some rows, by their positions."""
        return Changes(
            [self.keys[row] for row in rows],
            {name: [held[row] for row in rows] for name, held in self.before.items()},
            {name: [new[row] for row in rows] for name, new in self.after.items()},
        )


class Job(Protocol):
    """One pass over a column."""

    field: Field

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a page must hold."""

    def changes(self, page: Page, send: Send) -> list[Changes]:
        """What to change in a page: for each set of columns that is written, some rows.

        Called in a thread that has no database connection. Raises FieldError; then nothing of the page is changed.
        """


def _keys(field_: Field, page: Page) -> list[tuple[Any, ...]] | None:
    return page.bound if field_.bind else page.keys


def _some(values: Any, rows: Sequence[int]) -> Any:
    """The values of some rows, of a column or of None."""
    if values is None or len(rows) == len(values):
        return values
    return [values[row] for row in rows]


def _effective(changes: Changes) -> Changes:
    """Those that write anything: a value that does not open is left alone, an index may be normalised to NULL."""
    columns = list(changes.after.values())
    if any(None not in column for column in columns):
        return changes
    return changes.of(
        [row for row, new in enumerate(zip(*columns, strict=True)) if any(one is not None for one in new)]
    )


def _filled(page: Page, rows: Sequence[int], after: Mapping[str, Sequence[Any]]) -> list[int]:
    """Positions of the rows that get an index in place of NULL; others have none under their normalisation."""
    return [
        number
        for number, row in enumerate(rows)
        if any(page.stored[name][row] is None and new[number] is not None for name, new in after.items())
    ]


def _of(page: Page, rows: Sequence[int], field_: Field, values: list[Any]) -> Stored:
    keys = _keys(field_, page)
    return Stored(
        field_,
        values,
        keys and [keys[row] for row in rows],
        page.partitions and [page.partitions[row] for row in rows],
    )


@dataclass
class Backfill:
    """Encrypts what is still plaintext, and computes indexes that are missing.

    `source`: a plain column that is encrypted into this one where this one is NULL; without it the column itself holds
    plaintext beside ciphertext, and is declared so: what anybody has written past the hooks since then must not become
    a ciphertext like any other.
    """

    field: Field
    indexes: Sequence[Index] = ()
    source: str | None = None
    read_plain: Callable[[Any], Any] | None = None
    """The value of what the plain column holds; by default the field's `from_plaintext`."""

    @property
    def columns(self) -> tuple[str, ...]:
        names = [self.field.column, *[index.column for index in self.indexes]]
        return (*names, self.source) if self.source else tuple(names)

    def changes(self, page: Page, send: Send) -> list[Changes]:
        rows, values = self._plain(page)
        places: list[Field | Index] = [self.field, *self.indexes]
        writing = [(rows, values, places)]
        if self.indexes:
            plain = set(rows)
            unindexed = [row for row in range(len(page.keys)) if row not in plain and self._lacks_index(page, row)]
            if unindexed:
                sealed = [page.stored[self.field.column][row] for row in unindexed]
                (opened,) = open_chunk([_of(page, unindexed, self.field, sealed)], send)
                writing.append((unindexed, opened, [*self.indexes]))
        columns = [
            Unsealed(place, values, _some(_keys(self.field, page), rows), _some(page.partitions, rows))
            for rows, values, places in writing
            for place in places
        ]
        sealed_columns = iter(seal_columns(columns, send))
        found = []
        for rows, _, places in writing:
            before = {self.field.column: _some(page.stored[self.field.column], rows)}
            # a plaintext looks the same after its row has moved to another partition
            before |= {name: _some(held, rows) for name, held in page.beside.items()}
            if self.source:
                before[self.source] = _some(page.stored[self.source], rows)
            after = {place.column: next(sealed_columns) for place in places}
            changes = Changes(_some(page.keys, rows), before, after)
            found.append(_effective(changes) if self.field in places else changes.of(_filled(page, rows, after)))
        return [changes for changes in found if changes]

    def _plain(self, page: Page) -> tuple[Sequence[int], list[Any]]:
        """Rows that hold plaintext, with their values."""
        read = self.read_plain or self.field.from_plaintext
        own = page.stored[self.field.column]
        plain = page.stored[self.source] if self.source else own
        rows: Sequence[int] = range(len(plain))
        if not self.source:
            rows = [row for row in rows if own[row] is not None and not self.field.is_envelope(own[row])]
            if rows and not self.field.stage.reads_plaintext:
                message = (
                    "holds no ciphertext, and the column is declared encrypted: it was written past the hooks. Look at"
                    ' the row; to encrypt what is there, declare migrating="plaintext" and run this again'
                )
                raise FieldUnreadable(message, self.field.table, self.field.column, page.keys[rows[0]])
        elif None in plain or any(one is not None for one in own):
            rows = [row for row in rows if plain[row] is not None and own[row] is None]
        held = _some(plain, rows)
        try:
            return rows, list(map(read, held))
        except UNFIT:
            for row, stored in zip(rows, held, strict=True):
                self._require_readable(page, row, read, stored)
            raise

    def _require_readable(self, page: Page, row: int, read: Callable[[Any], Any], stored: Any) -> None:
        try:
            read(stored)
        except UNFIT:
            message = "holds neither ciphertext nor a plaintext of the column's type"
            raise FieldUnreadable(message, self.field.table, self.field.column, page.keys[row]) from None

    def _lacks_index(self, page: Page, row: int) -> bool:
        if page.stored[self.field.column][row] is None:
            return False
        return any(page.stored[index.column][row] is None for index in self.indexes)


@dataclass
class Reencrypt:
    """Puts every value under the active data key of its scope."""

    field: Field

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.field.column,)

    def changes(self, page: Page, send: Send) -> list[Changes]:
        column = self.field.column
        stored = page.stored[column]
        (renewed,) = renew([_of(page, range(len(stored)), self.field, stored)], send)
        changes = Changes(page.keys, {column: stored}, {column: renewed})
        rows = [
            row
            for row, (old, new) in enumerate(zip(stored, renewed, strict=True))
            if old is not None and self._differ(old, new)
        ]
        return [changes.of(rows)] if rows else []

    @staticmethod
    def _differ(old: Any, new: Any) -> bool:
        return bool((old if isinstance(old, str) else bytes(old)) != new)


@dataclass
class Decrypt:
    """Writes plaintext back, into the column itself or `into` another one where that is NULL."""

    field: Field
    write_plain: Callable[[Any], Any]
    """What a plain column holds for a value."""
    into: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.field.column, self.into) if self.into else (self.field.column,)

    def changes(self, page: Page, send: Send) -> list[Changes]:
        own = self.field.column
        rows = [row for row, stored in enumerate(page.stored[own]) if self._wanted(page, row, stored)]
        if not rows:
            return []
        stored = [page.stored[own][row] for row in rows]
        # None in place of what does not open would be written over it
        strict = replace(self.field, on_error="raise")
        (values,) = open_chunk([_of(page, rows, strict, stored)], send)
        plain = [None if value is None else self.write_plain(value) for value in values]
        if self.into is None:
            # a column that holds both would read it as ciphertext
            plain = list(map(self.field.as_plaintext, plain))
        before = {own: stored} | ({self.into: [None] * len(rows)} if self.into is not None else {})
        return [_effective(Changes(_some(page.keys, rows), before, {self.into or own: plain}))]

    def _wanted(self, page: Page, row: int, stored: Any) -> bool:
        if self.into is not None:
            return stored is not None and page.stored[self.into][row] is None
        return self.field.is_envelope(bytes(stored) if isinstance(stored, memoryview) else stored)
