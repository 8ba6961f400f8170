"""What a job does with a page of rows: which values it changes, and to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keyside.fields import Field, FieldUnreadable, Index, Placeholder, Send, Stored, open_chunk, renew, seal
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


@dataclass
class Change:
    """One row's new values. It is written where the columns of `before` still hold what they held."""

    key: tuple[Any, ...]
    before: dict[str, Any]
    after: dict[str, Any]


class Job(Protocol):
    """One pass over a column."""

    field: Field

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a page must hold."""

    def changes(self, page: Page, send: Send) -> list[Change]:
        """What to change in a page. Raises FieldError; then nothing of the page is changed."""


def _keys(field_: Field, page: Page) -> list[tuple[Any, ...]] | None:
    return page.bound if field_.bind else page.keys


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
    plaintext beside ciphertext.
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

    def changes(self, page: Page, send: Send) -> list[Change]:
        values = self._plain(page)
        unindexed = [row for row in range(len(page.keys)) if row not in values and self._lacks_index(page, row)]
        if unindexed:
            sealed = [page.stored[self.field.column][row] for row in unindexed]
            (opened,) = open_chunk([_of(page, unindexed, self.field, sealed)], send)
            values |= dict(zip(unindexed, opened, strict=True))
        keys = _keys(self.field, page)
        changes: list[Change] = []
        filling: list[tuple[Change, str, Placeholder]] = []
        for row, value in sorted(values.items()):
            before = {self.field.column: page.stored[self.field.column][row]}
            if self.source:
                before[self.source] = page.stored[self.source][row]
            change = Change(page.keys[row], before, {})
            places: list[Field | Index] = [*self.indexes]
            if row not in unindexed:
                places.append(self.field)
            for place in places:
                placeholder = Placeholder(place, value)
                placeholder.key = keys[row] if keys else None
                placeholder.partition = page.partitions[row] if page.partitions else None
                filling.append((change, place.column, placeholder))
            changes.append(change)
        seal([placeholder for _, _, placeholder in filling], send)
        for change, column, placeholder in filling:
            change.after[column] = placeholder.sealed
        # an index that its normalisation leaves NULL is no change
        return [change for change in changes if any(value is not None for value in change.after.values())]

    def _plain(self, page: Page) -> dict[int, Any]:
        """Rows that hold plaintext, with their values."""
        read = self.read_plain or self.field.from_plaintext
        values: dict[int, Any] = {}
        own = page.stored[self.field.column]
        plain = page.stored[self.source] if self.source else own
        for row, stored in enumerate(plain):
            if stored is None or (self.source and own[row] is not None):
                continue
            if not self.source and self.field.is_envelope(stored):
                continue
            try:
                values[row] = read(stored)
            except UNFIT:
                message = "holds neither ciphertext nor a plaintext of the column's type"
                raise FieldUnreadable(message, self.field.table, self.field.column, page.keys[row]) from None
        return values

    def _lacks_index(self, page: Page, row: int) -> bool:
        if page.stored[self.field.column][row] is None:
            return False
        return any(page.stored[index.column][row] is None and index.normalize.whole for index in self.indexes)


@dataclass
class Reencrypt:
    """Puts every value under the active data key of its scope."""

    field: Field

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.field.column,)

    def changes(self, page: Page, send: Send) -> list[Change]:
        column = self.field.column
        stored = page.stored[column]
        (renewed,) = renew([_of(page, range(len(stored)), self.field, stored)], send)
        return [
            Change(key, {column: old}, {column: new})
            for key, old, new in zip(page.keys, stored, renewed, strict=True)
            if old is not None and self._differ(old, new)
        ]

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

    def changes(self, page: Page, send: Send) -> list[Change]:
        own = self.field.column
        rows = [row for row, stored in enumerate(page.stored[own]) if self._wanted(page, row, stored)]
        if not rows:
            return []
        stored = [page.stored[own][row] for row in rows]
        (values,) = open_chunk([_of(page, rows, self.field, stored)], send)
        return [
            Change(page.keys[row], {own: old}, {self.into or own: self.write_plain(value)})
            for row, old, value in zip(rows, stored, values, strict=True)
            if value is not None
        ]

    def _wanted(self, page: Page, row: int, stored: Any) -> bool:
        if self.into is not None:
            return stored is not None and page.stored[self.into][row] is None
        return self.field.is_envelope(bytes(stored) if isinstance(stored, memoryview) else stored)
