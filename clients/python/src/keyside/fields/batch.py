"""Whole chunks of rows in one round trip, whatever their columns, keyrings, partitions and contexts.

open_chunk([Stored(field, stored, keys, partitions), …], send)     what a fetched chunk holds, as lists of values
open_slices([[Stored(…), …], …], send)                             the same of consecutive rows, as they are asked for
seal(placeholders, send)                                           fills in what the database gets
seal_columns([Unsealed(place, values, keys, partitions), …], send)  the same for whole columns
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from keyside import wire
from keyside.ahead import Ahead
from keyside.batches import Job, Results
from keyside.errors import Denied, KeyDisabled, KeysideError, SidecarError, UnknownKeyring
from keyside.fields.declaration import UNFIT, Field, Index, Place
from keyside.fields.errors import FieldError, FieldRefused, FieldUnavailable, FieldUnreadable, bare_errors
from keyside.fields.exchange import Replies, Send, Sender
from keyside.fields.placeholder import Placeholder
from keyside.text import to_text
from keyside.values import InvalidValue

Key: TypeAlias = "tuple[Any, ...]"


@dataclass(repr=False)
class Stored:
    """One encrypted column of a chunk of rows, as the driver returned it (text or bytes; None is NULL)."""

    field: Field
    stored: Sequence[Any]
    keys: Sequence[Key] | None = None
    """Values of `field.bind`, a tuple a row; None when the rows do not tell them. Also named in errors."""
    partitions: Sequence[Any] | None = None
    """Values of the partition's column, one a row; None when the rows do not tell them."""

    def key(self, row: int) -> Key | None:
        return None if self.keys is None else self.keys[row]


class RowKeys(Sequence[tuple[Any, ...]]):
    """Row keys of columns, put together only when an error names one."""

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, row: Any) -> Any:
        return tuple(column[row] for column in self._columns)


@dataclass
class _Run:
    """Items of one column that go into the same request."""

    place: Place
    items: list[wire.Value]
    context: wire.Contexts
    rows: Sequence[int]
    column: int = 0
    """The position of the column in its chunk."""


class _Requests:
    """Runs gathered into one request an operation, scope and shared context, and taken apart again."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, str, bytes | None], list[_Run]] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, op: int, scope: str, run: _Run) -> None:
        # a context for all is packed once; contexts a row can be joined with others
        shared = run.context if isinstance(run.context, bytes) else None
        self._runs.setdefault((op, scope, shared), []).append(run)

    def jobs(self) -> list[Job]:
        return [Job(op, scope, *_joined(runs)) for (op, scope, _), runs in self._runs.items()]

    def send(self, send: Send) -> list[tuple[_Run, Results]]:
        """The results of each run. Raises FieldUnavailable, FieldRefused."""
        return self.settled(lambda: send(self.jobs())) if self else []

    def settled(self, replies: Callable[[], Replies]) -> list[tuple[_Run, Results]]:
        """The results of each run from the replies to `jobs`. Raises FieldUnavailable, FieldRefused."""
        try:
            found = replies()
        except KeysideError as error:
            _raise_refusal(next(iter(self._runs.values()))[0].place, error)
        settled = []
        for runs, reply in zip(self._runs.values(), found, strict=True):
            if isinstance(reply, KeysideError):
                _raise_refusal(runs[0].place, reply)
            start = 0
            for run in runs:
                settled.append((run, reply if len(runs) == 1 else reply[start : start + len(run.items)]))
                start += len(run.items)
        return settled


class _Opening:
    """Columns of consecutive rows, on their way to values."""

    def __init__(self, columns: Sequence[Stored]) -> None:
        self._columns = columns
        self._opened: list[list[Any]] = [[None] * len(column.stored) for column in columns]
        self.requests = _Requests()
        suffixes = _Suffixes()
        for number, column in enumerate(columns):
            for scope, run in _runs_of(column, self._opened[number], suffixes):
                run.column = number
                self.requests.add(wire.DECRYPT, scope, run)

    def finish(self, ahead: Ahead) -> list[list[Any]]:
        return self.values(self.requests.settled(ahead.results) if self.requests else [])

    def values(self, settled: list[tuple[_Run, Results]]) -> list[list[Any]]:
        for run, results in settled:
            _decode(self._columns[run.column], run.rows, results, self._opened[run.column])
        return self._opened


def open_chunk(columns: Sequence[Stored], send: Send) -> list[list[Any]]:
    """The values of each column, in the order of the rows. One round trip, none when every value is NULL.

    Raises FieldUnreadable (unless the field's on_error is "none"), FieldUnavailable, FieldRefused, BindingMissing.
    """
    return bare_errors(_open_chunk, columns, send)


def _open_chunk(columns: Sequence[Stored], send: Send) -> list[list[Any]]:
    opening = _Opening(columns)
    return opening.values(opening.requests.send(send))


def open_slices(slices: Sequence[Sequence[Stored]], send: Sender) -> Iterator[list[list[Any]]]:
    """`open_chunk` for consecutive rows, in one round trip: everything leaves at once, and each slice is waited for
    when it is asked for, so that the sidecar opens the next while the caller works on the one before.

    Raises as `open_chunk` does; what is wrong with a value when its slice is asked for.
    """
    if len(slices) == 1:
        yield open_chunk(slices[0], send)
        return
    waiting = bare_errors(_begin, slices, send)
    try:
        for opening, ahead in waiting:
            yield bare_errors(opening.finish, ahead)
    finally:
        for _, ahead in waiting:
            ahead.drop()


def _begin(slices: Sequence[Sequence[Stored]], send: Sender) -> list[tuple[_Opening, Ahead]]:
    openings = [_Opening(columns) for columns in slices]
    return list(zip(openings, send.ahead([opening.requests.jobs() for opening in openings]), strict=True))


def open_one(field: Field, stored: Any, send: Send) -> Any:
    """The value of one stored value whose row is not known."""
    return open_chunk([Stored(field, [stored])], send)[0][0]


def renew(columns: Sequence[Stored], send: Send) -> list[list[Any]]:
    """What each column holds, under the active data keys; what is under them already comes back as it is.

    Raises as `open_chunk` does; a value that does not open is returned as it is where the field's on_error is "none".
    """
    return bare_errors(_renew, columns, send)


def _renew(columns: Sequence[Stored], send: Send) -> list[list[Any]]:
    requests, suffixes = _Requests(), _Suffixes()
    renewed: list[list[Any]] = [list(column.stored) for column in columns]
    for number, column in enumerate(columns):
        for scope, run in _runs_of(column, list(column.stored), suffixes):
            run.column = number
            requests.add(wire.REENCRYPT, scope, run)
    for run, results in requests.send(send):
        column = columns[run.column]
        for row, result in zip(run.rows, results, strict=True):
            if isinstance(result, SidecarError):
                _check_unopened(column, row, result)
            elif result is not None:
                renewed[run.column][row] = column.field.to_stored(result)
    return renewed


def seal(placeholders: Sequence[Placeholder], send: Send) -> None:
    """Fill in `sealed` of each placeholder. One round trip for all of them.

    Raises FieldUnwritable, FieldUnavailable, FieldRefused, BindingMissing; then nothing of the statement was sent.
    """
    bare_errors(_seal, placeholders, send)


def _seal(placeholders: Sequence[Placeholder], send: Send) -> None:
    requests, suffixes = _Requests(), _Suffixes()
    for place, partition, numbers in _grouped(placeholders):
        scope = place.scope(partition)
        if isinstance(place, Field):
            chosen = [placeholders[n] for n in numbers]
            items = _encodings(place, [one.value for one in chosen], [one.key for one in chosen])
            context: wire.Contexts = place.prefix
            if place.bind:
                context = [suffixes.context(place, one.key) for one in chosen]
            requests.add(wire.ENCRYPT, scope, _Run(place, items, context, numbers))
        elif isinstance(place, Index):
            indexed: list[wire.Value] = [place.encode(placeholders[n].value) for n in numbers]
            requests.add(wire.BLIND_INDEX, scope, _Run(place, indexed, place.prefix, numbers))
    for run, results in requests.send(send):
        as_text = isinstance(run.place, Field) and run.place.storage == "text"
        for number, result in zip(run.rows, results, strict=True):
            if isinstance(result, SidecarError):
                _raise_refusal(run.place, result, placeholders[number].key)
            placeholders[number].sealed = to_text(result) if as_text and result is not None else result


@dataclass(repr=False)
class Unsealed:
    """Values of one encrypted column or blind index, none of them None, that are to be written to as many rows."""

    place: Place
    values: Sequence[Any]
    keys: Sequence[Key] | None = None
    """Values of the column's `bind`, a tuple a row."""
    partitions: Sequence[Any] | None = None
    """Values of the partition's column, one a row."""


def seal_columns(columns: Sequence[Unsealed], send: Send) -> list[list[Any]]:
    """What the database gets for each value; None for no index. One round trip for all of them. Raises as `seal` does.

    For whole columns of many rows: `seal` makes an object of every value.
    """
    return bare_errors(_seal_columns, columns, send)


def _seal_columns(columns: Sequence[Unsealed], send: Send) -> list[list[Any]]:
    requests, suffixes = _Requests(), _Suffixes()
    sealed: list[list[Any]] = [[None] * len(column.values) for column in columns]
    for number, column in enumerate(columns):
        for scope, rows in _by_scope(column):
            run = _unsealed_run(column, rows, suffixes)
            run.column = number
            requests.add(wire.ENCRYPT if isinstance(column.place, Field) else wire.BLIND_INDEX, scope, run)
    for run, results in requests.send(send):
        column = columns[run.column]
        if not set(map(type, results)) <= {bytes, type(None)}:
            for row, result in zip(run.rows, results, strict=True):
                if isinstance(result, SidecarError):
                    _raise_refusal(run.place, result, None if column.keys is None else column.keys[row])
        stored: Sequence[Any] = results
        if isinstance(run.place, Field) and run.place.storage == "text":
            stored = [run.place.to_stored(result) for result in results if isinstance(result, bytes)]
        if len(run.rows) == len(column.values):
            sealed[run.column] = list(stored)
            continue
        for row, one in zip(run.rows, stored, strict=True):
            sealed[run.column][row] = one
    return sealed


def _by_scope(column: Unsealed) -> list[tuple[str, Sequence[int]]]:
    """The rows of a column by the scope that their values belong to."""
    whole = range(len(column.values))
    if not whole:
        return []
    if column.place.partition is None or column.partitions is None:
        return [(column.place.scope(None), whole)]
    by_partition: dict[Any, list[int]] = {}
    for row, partition in enumerate(column.partitions):
        try:
            by_partition.setdefault(partition, []).append(row)
        except TypeError:
            column.place.scope(partition)  # says that such a value chooses no partition
            raise
    return [(column.place.scope(partition), rows) for partition, rows in by_partition.items()]


def _unsealed_run(column: Unsealed, rows: Sequence[int], suffixes: _Suffixes) -> _Run:
    place, values = column.place, column.values
    if len(rows) != len(values):
        values = [values[row] for row in rows]
    if not isinstance(place, Field):
        assert isinstance(place, Index)
        return _Run(place, [place.encode(value) for value in values], place.prefix, rows)
    keys = column.keys
    told = keys if keys is None or len(rows) == len(keys) else [keys[row] for row in rows]
    items = _encodings(place, values, told)
    context: wire.Contexts = place.prefix
    if place.bind:
        context = [suffixes.context(place, None if keys is None else keys[row]) for row in rows]
    return _Run(place, items, context, rows)


def _encodings(field: Field, values: Sequence[Any], keys: Sequence[Key | None] | None) -> list[wire.Value]:
    try:
        return list(map(field.to_bytes, values))
    except (InvalidValue, *UNFIT):
        # one by one, to find out which
        return [field.encode(value, None if keys is None else keys[row]) for row, value in enumerate(values)]


def _grouped(placeholders: Sequence[Placeholder]) -> list[tuple[Place, Any, list[int]]]:
    """Positions of the placeholders that share a place and a partition."""
    groups: dict[tuple[int, Any], tuple[Place, Any, list[int]]] = {}
    for number, placeholder in enumerate(placeholders):
        place = placeholder.place
        partition = None if place.partition is None else placeholder.partition
        try:
            # by identity: the hash of a declaration costs more than the rest of this
            group = groups.get((id(place), partition))
        except TypeError:
            place.scope(partition)  # says that such a value chooses no partition
            raise
        if group is None:
            group = groups[id(place), partition] = (place, partition, [])
        group[2].append(number)
    return list(groups.values())


def _joined(runs: list[_Run]) -> tuple[wire.Contexts, list[wire.Value]]:
    first = runs[0].context
    if len(runs) == 1:
        return first, runs[0].items
    items = [item for run in runs for item in run.items]
    if not isinstance(first, list):
        return first, items
    return [context for run in runs if isinstance(run.context, list) for context in run.context], items


class _Suffixes:
    """What row keys add to contexts, worked out once for all columns that are bound to the same keys."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}

    def context(self, field: Field, key: Key | None) -> bytes:
        known = self._known.get(id(key))
        if known is None:
            # with the key itself, which keeps its identity taken
            known = self._known[id(key)] = (key, field.key_suffix(key))
        return field.prefix + known[1]


def _runs_of(column: Stored, opened: list[Any], suffixes: _Suffixes) -> list[tuple[str, _Run]]:
    """The column's ciphertexts by scope; plaintexts of a column that is being migrated go straight to `opened`."""
    field = column.field
    rows: Sequence[int] = range(len(column.stored))
    if field.stage.reads_plaintext:
        rows = _without_plaintext(column, opened)
    if not any(column.stored[row] is not None for row in rows):
        return []
    if field.partition is None or column.partitions is None:
        if field.bind:
            rows = [row for row in rows if column.stored[row] is not None]
        return [(field.scope(None), _run(column, rows, suffixes))]
    by_partition: dict[Any, list[int]] = {}
    for row in rows:
        if column.stored[row] is not None:
            by_partition.setdefault(column.partitions[row], []).append(row)
    return [(field.scope(partition), _run(column, some, suffixes)) for partition, some in by_partition.items()]


def _without_plaintext(column: Stored, opened: list[Any]) -> list[int]:
    field, rows = column.field, []
    for row, stored in enumerate(column.stored):
        if stored is None or field.is_envelope(stored):
            rows.append(row)
            continue
        try:
            opened[row] = field.from_plaintext(stored)
        except UNFIT:
            message = "holds neither ciphertext nor a plaintext of the column's type"
            raise FieldUnreadable(message, field.table, field.column, column.key(row)) from None
    return rows


def _run(column: Stored, rows: Sequence[int], suffixes: _Suffixes) -> _Run:
    field, stored = column.field, column.stored
    whole = len(rows) == len(stored)
    chosen = stored if whole else [stored[row] for row in rows]
    if field.storage == "bytes" and set(map(type, chosen)) <= {bytes, type(None)}:
        items = list(chosen)
    else:
        items = [
            None if one is None else field.to_envelope(one, column.key(row))
            for row, one in zip(rows, chosen, strict=True)
        ]
    context: wire.Contexts = field.prefix
    if field.bind:
        keys = column.keys
        context = [suffixes.context(field, None if keys is None else keys[row]) for row in rows]
    return _Run(field, items, context, rows)


def _decode(column: Stored, rows: Sequence[int], results: Results, opened: list[Any]) -> None:
    decode: Callable[[bytes], Any] = column.field.from_bytes
    try:
        values = _decoded(column.field, results)
    except UNFIT:
        # one by one, to find out which: an error in its place, or something that is no encoding
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, SidecarError):
                _check_unopened(column, row, result)
            elif result is not None:
                try:
                    opened[row] = decode(result)
                except UNFIT:
                    _check_unopened(column, row, None)
        return
    if len(rows) == len(opened):
        opened[:] = values
        return
    for row, value in zip(rows, values, strict=True):
        opened[row] = value


def _decoded(field: Field, results: Results) -> list[Any]:
    """The values of a column without errors. Raises what conversions raise."""
    present: Any = [one for one in results if one is not None] if None in results else results
    values = field.from_column(present) if field.from_column else _each(field.from_bytes, present)
    if len(values) == len(results):
        return values
    following = iter(values)
    return [None if one is None else next(following) for one in results]


def _each(decode: Callable[[bytes], Any], present: Any) -> list[Any]:
    if not set(map(type, present)) <= {bytes}:
        raise TypeError("an error in the place of an encoding")
    return list(map(decode, present))


def _check_unopened(column: Stored, row: int, error: SidecarError | None) -> None:
    """Let a value that does not open, or (no error) does not decode, be None where the column allows it. Raises
    otherwise."""
    field, key = column.field, column.key(row)
    if error is not None and (error.retryable or isinstance(error, Denied)):
        _raise_refusal(field, error, key)
    if field.on_error == "none":
        return
    if error is None:
        message = "opens, but is not the encoding of the column's type"
    elif isinstance(error, KeyDisabled):
        message = "its data key was disabled or destroyed"
    else:
        message = (
            "does not open; it was tampered with, encrypted for another row, column or partition, or with another key"
        )
    raise FieldUnreadable(message, field.table, field.column, key) from error


def _raise_refusal(place: Place, error: KeysideError, key: Key | None = None) -> NoReturn:
    """The error of a request that failed as a whole, or of an item that cannot be written."""
    if isinstance(error, FieldError):
        raise error
    if error.retryable:
        message = f"the sidecar cannot be asked now ({error}); nothing was written, try again"
        raise FieldUnavailable(message, place.table, place.column, key) from error
    if isinstance(error, UnknownKeyring):
        create = f"keyside keyring create {place.keyring}{' --partitioned' if place.partition is not None else ''}"
        message = (
            f"the keyring {place.keyring!r} does not exist ({create}), or is not partitioned as the column declares"
        )
        raise FieldRefused(message, place.table, place.column, key) from error
    raise FieldRefused(f"the sidecar refused ({error})", place.table, place.column, key) from error
