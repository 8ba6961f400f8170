"""Reading: whole fetched chunks are decrypted in one round trip, below everything that Django makes of rows.

`SQLCompiler.apply_converters` stands on every way from a fetched row to Python: models, values, aggregates, raw.
Here it gets chunks in place of rows. What it does not recognise it leaves to `EncryptedField.from_db_value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import chain, islice
from typing import Any, Final

from django.db.models import QuerySet
from django.db.models.expressions import Col, ColPairs
from django.db.models.query import RawQuerySet
from django.db.models.sql.compiler import SQLAggregateCompiler, SQLCompiler
from django.db.models.sql.query import Query, RawQuery

from keyside.django import settings
from keyside.django.fetching import compiling
from keyside.django.fields import EncryptedField
from keyside.django.grouping import combining, grouped, is_known, note_part
from keyside.django.indexing import BlindIndexField
from keyside.django.inspection import check_aggregated, check_searchable
from keyside.django.telling import field_named
from keyside.fields import RowKeys, Stored, current, open_slices
from keyside.fields.declaration import ReadIndex
from keyside.fields.errors import bare_errors

CHUNK: Final = 2000
"""Rows a round trip of a result that is in memory already."""

FIRST_SLICE: Final = 128
"""Rows that are opened first: about as many as take Django the time in which the sidecar opens the rest."""
LEAST_SLICED: Final = 4 * FIRST_SLICE

EXTRA: Final = "_keyside_extra"
FETCHED: Final = "_keyside_fetched"
QUALIFIED: Final = "_keyside_qualified"


@dataclass
class _Encrypted:
    """An encrypted column of a result, and where the rest of what it needs stands in the same row."""

    position: int
    field: EncryptedField
    key: list[int] | None
    """Positions of the columns that it is bound to, or of the primary key for messages."""
    partition: int | None
    known_partition: Any
    """The partition of `keyside.context` when the statement was executed."""


def hook_reads() -> None:
    """Put the hooks in place; once a process."""
    SQLCompiler.apply_converters = _apply_converters(SQLCompiler.apply_converters)
    SQLCompiler.execute_sql = _execute_sql(SQLCompiler.execute_sql)
    SQLCompiler.get_select = _get_select(SQLCompiler.get_select)
    SQLCompiler.get_qualify_sql = _get_qualify_sql(SQLCompiler.get_qualify_sql)
    SQLCompiler.pre_sql_setup = _pre_sql_setup(SQLCompiler.pre_sql_setup)
    SQLCompiler.get_combinator_sql = _get_combinator_sql(SQLCompiler.get_combinator_sql)
    QuerySet._fetch_all = _fetch_all(QuerySet._fetch_all)
    RawQuerySet._fetch_all = _fetch_all(RawQuerySet._fetch_all)
    Query.set_values = _set_values(Query.set_values)
    Query._get_only_select_mask = _get_only_select_mask(Query._get_only_select_mask)
    SQLAggregateCompiler.as_sql = _aggregate_as_sql(SQLAggregateCompiler.as_sql)


def _apply_converters(original: Any) -> Any:
    @wraps(original)
    def apply_converters(self: Any, rows: Any, converters: dict[int, Any]) -> Any:
        encrypted = _encrypted(self, converters)
        if not encrypted:
            return original(self, rows, converters)
        return chain.from_iterable(_opened(self, original, iter(rows), converters, encrypted))

    return apply_converters


def _opened(
    compiler: Any, original: Any, rows: Iterator[Any], converters: dict[int, Any], encrypted: list[_Encrypted]
) -> Iterator[Iterator[Any]]:
    """The rows of each chunk with decrypted values, and with what Django converts itself."""
    indexes = [position for position, (convert, _) in converters.items() if _is_index(convert)]
    positions = {*indexes, *[one.position for one in encrypted]}
    others = {position: found for position, found in converters.items() if position not in positions}
    extra = getattr(compiler, EXTRA, 0)
    while chunk := list(islice(rows, getattr(compiler, FETCHED, None) or CHUNK)):
        if others:
            chunk = list(original(compiler, chunk, others))
        slices: list[list[Any]] = [list(zip(*rows, strict=True)) for rows in _slices(compiler, chunk)]
        opening = open_slices([[_stored(one, columns) for one in encrypted] for columns in slices], settings.send())
        while slices:
            # no variable keeps what was opened: an error of the next slice would show it
            yield _rows(slices.pop(0), indexes, encrypted, next(opening), extra)


def _rows(
    columns: list[Any], indexes: list[int], encrypted: list[_Encrypted], opened: list[list[Any]], extra: int
) -> Iterator[Any]:
    for position in indexes:
        columns[position] = [None if value is None else ReadIndex(value) for value in columns[position]]
    for one, values in zip(encrypted, opened, strict=True):
        columns[one.position] = values
    return zip(*columns[: len(columns) - extra], strict=True)


def _slices(compiler: Any, chunk: list[Any]) -> list[list[Any]]:
    """Rows that are in memory and that Django makes objects of at once: it begins with a few while the rest is opened.

    With `iterator()` the application takes them at its leisure, and no answer is left to wait for that.
    """
    if len(chunk) < LEAST_SLICED or getattr(compiler, FETCHED, None):
        return [chunk]
    return [chunk[:FIRST_SLICE], chunk[FIRST_SLICE:]]


def _stored(one: _Encrypted, columns: Sequence[Any]) -> Stored:
    held = columns[one.position]
    # of one driver: all or none
    if type(next((value for value in held if value is not None), None)) is memoryview:
        held = [bytes(value) if type(value) is memoryview else value for value in held]
    keys = None if one.key is None else _keys(one, [columns[position] for position in one.key])
    partitions = None
    if one.partition is not None:
        partitions = columns[one.partition]
    elif one.known_partition is not None:
        partitions = [one.known_partition] * len(held)
    return Stored(one.field.declaration, held, keys, partitions)


def _keys(one: _Encrypted, columns: list[Sequence[Any]]) -> Sequence[tuple[Any, ...]]:
    if one.field.declaration.bind:
        return list(zip(*columns, strict=True))
    return RowKeys(columns)


def _encrypted(compiler: Any, converters: dict[int, Any]) -> list[_Encrypted]:
    """The encrypted columns of a result."""
    found: list[_Encrypted] = []
    places: dict[tuple[Any, str], int] | None = None
    for position, (convert, expression) in converters.items():
        field = _field_of(convert)
        if field is None:
            continue
        if places is None:
            places = _places(compiler)
        alias = expression.alias if isinstance(expression, Col) else None
        declared = field.declaration
        known = None
        if declared.partition is not None and declared.partition_column is None:
            known = current(declared.partition_name)
        named = declared.bind or [key.name for key in field.model._meta.pk_fields]
        chooser = declared.partition_column
        chosen = None if chooser is None else _positions(places, alias, field, [chooser])
        key = _positions(places, alias, field, named)
        found.append(_Encrypted(position, field, key, None if chosen is None else chosen[0], known))
    return found


def _is_index(convert: list[Any]) -> bool:
    """Whether a column's own converter, which makes a ReadIndex, is all there is."""
    field = getattr(convert[0], "__self__", None) if len(convert) == 1 else None
    return isinstance(field, BlindIndexField) and convert[0] == field.from_db_value


def _field_of(convert: list[Any]) -> EncryptedField | None:
    """The encrypted field, when its own converter is all there is."""
    if len(convert) == 1:
        field = getattr(convert[0], "__self__", None)
        if isinstance(field, EncryptedField) and convert[0] == field.from_db_value:
            return field
    return None


def _positions(
    places: dict[tuple[Any, str], int], alias: Any, field: EncryptedField, names: Sequence[str]
) -> list[int] | None:
    """Where fields of the same row stand; None when one is not selected."""
    found = []
    for name in names:
        local = field_named(field.model, name)
        position = None if local is None else places.get((alias, local.column))
        if position is None:
            return None
        found.append(position)
    return found


def _places(compiler: Any) -> dict[tuple[Any, str], int]:
    """Positions of plain columns by alias and column."""
    if compiler.select is None:
        # a raw query knows its columns by name
        names = compiler.query.get_columns() if isinstance(compiler.query, RawQuery) else ()
        return _Anywhere({(None, name): at for at, name in enumerate(names)})
    places: dict[tuple[Any, str], int] = {}
    at = 0
    for expression, _, _ in compiler.select:
        parts = expression.get_source_expressions() if isinstance(expression, ColPairs) else [expression]
        for part in parts:
            if isinstance(part, Col):
                places.setdefault((part.alias, part.target.column), at)
            at += 1
    return places


class _Anywhere(dict[tuple[Any, str], int]):
    """Places of a result whose columns have no alias."""

    def get(self, key: tuple[Any, str], default: Any = None) -> Any:
        return super().get((None, key[1]), default)


def _fetch_all(original: Any) -> Any:
    @wraps(original)
    def fetch_all(self: Any) -> None:
        # Django's own frames hold the last row of the slice before
        bare_errors(original, self)

    return fetch_all


def _execute_sql(original: Any) -> Any:
    @wraps(original)
    def execute_sql(self: Any, *args: Any, chunked_fetch: bool = False, **options: Any) -> Any:
        setattr(self, FETCHED, options.get("chunk_size") if chunked_fetch else None)
        token = compiling.set(self)
        try:
            return original(self, *args, chunked_fetch=chunked_fetch, **options)
        finally:
            compiling.reset(token)

    return execute_sql


def _get_select(original: Any) -> Any:
    @wraps(original)
    def get_select(self: Any, with_col_aliases: bool = False) -> Any:
        select, klass_info, annotations = original(self, with_col_aliases)
        extra = _companions(self.query, select) if _may_widen(self.query, with_col_aliases) else []
        setattr(self, EXTRA, len(extra))
        aliases = [f"keyside{number}" if with_col_aliases else None for number in range(len(extra))]
        select = [*select, *[(one, self.compile(one), alias) for one, alias in zip(extra, aliases, strict=True)]]
        return select, klass_info, annotations

    return get_select


def _get_qualify_sql(original: Any) -> Any:
    @wraps(original)
    def get_qualify_sql(self: Any) -> Any:
        # a filter by a window function puts the query into another one, which selects the same columns
        setattr(self.query, QUALIFIED, bool(getattr(self, EXTRA, 0)))
        try:
            return original(self)
        finally:
            delattr(self.query, QUALIFIED)

    return get_qualify_sql


def _may_widen(query: Any, with_col_aliases: bool) -> bool:
    """Whether nobody counts the columns of the result."""
    return getattr(query, QUALIFIED, False) or not (query.subquery or query.combinator or with_col_aliases)


def _companions(query: Any, select: list[Any]) -> list[Col]:
    """Columns that bound columns need, and that the query does not select.

    Rows that are taken together when they are equal get those of a row whose key is compared already: then they are
    equal as they were.
    """
    columns = [part for expression, _, _ in select for part in _parts(expression)]
    there = {(column.alias, column.target.column) for column in columns}
    merged = query.group_by is not None or (query.distinct and not query.distinct_fields)
    known = there | grouped(query) if merged else there
    extra: list[Col] = []
    for column in columns:
        field = column.target
        if not isinstance(field, EncryptedField) or not field.declaration.needs_row:
            continue
        if merged and not is_known(query, column.alias, field.model, known):
            continue
        declared = field.declaration
        for name in [*declared.bind, declared.partition_column]:
            local = field_named(field.model, name) if name else None
            if local is not None and (column.alias, local.column) not in there:
                there.add((column.alias, local.column))
                extra.append(local.get_col(column.alias))
    return extra


def _parts(expression: Any) -> list[Col]:
    parts = expression.get_source_expressions() if isinstance(expression, ColPairs) else [expression]
    return [part for part in parts if isinstance(part, Col)]


def _pre_sql_setup(original: Any) -> Any:
    @wraps(original)
    def pre_sql_setup(self: Any, *args: Any, **options: Any) -> Any:
        setup = original(self, *args, **options)
        if setup is not None:
            check_searchable(self, setup[1])
            note_part(self)
        return setup

    return pre_sql_setup


def _get_combinator_sql(original: Any) -> Any:
    @wraps(original)
    def get_combinator_sql(self: Any, combinator: str, all: bool) -> Any:  # noqa: A002  as Django calls it
        with combining(merged=combinator != "union" or not all):
            return original(self, combinator, all)

    return get_combinator_sql


def _aggregate_as_sql(original: Any) -> Any:
    @wraps(original)
    def as_sql(self: Any) -> Any:
        check_aggregated(self.query)
        return original(self)

    return as_sql


def _set_values(original: Any) -> Any:
    @wraps(original)
    def set_values(self: Any, fields: Any) -> None:
        original(self, fields)
        if not fields:
            # the index columns are nobody's values, unless they are named
            hidden = {one.attname for one in self.get_meta().concrete_fields if isinstance(one, BlindIndexField)}
            if hidden:
                self.values_select = tuple([name for name in self.values_select if name not in hidden])
                self.add_fields(self.values_select, True)

    return set_values


def _get_only_select_mask(original: Any) -> Any:
    @wraps(original)
    def get_only_select_mask(self: Any, opts: Any, mask: Any, select_mask: Any = None) -> Any:
        """`only("ssn")` loads the indexes as well: an object that lacks one is a deferred one to Django."""
        fields = [one for one in opts.concrete_fields if one.name in mask and isinstance(one, EncryptedField)]
        indexes: dict[str, Any] = {index.name: {} for field in fields for index, _ in field.indexes}
        return original(self, opts, {**indexes, **mask}, select_mask)

    return get_only_select_mask
