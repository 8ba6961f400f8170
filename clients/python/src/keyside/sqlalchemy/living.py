"""Encrypt, re-encrypt, count and decrypt columns of a running application, with SQLAlchemy.

backfill(engine, Patient.__table__.c.email, client)       the functions behind `keyside-orm` and the Alembic operations
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.sql import ColumnElement

from keyside.client import Client
from keyside.fields import Field, Sender, Stage
from keyside.living import (
    Backfill,
    Changes,
    ColumnStatus,
    Decrypt,
    Job,
    Options,
    Page,
    Progress,
    Reencrypt,
    run,
    status_of,
)
from keyside.living.running import EXACT_COLLATION
from keyside.living.status import HEAD_BYTES, HEAD_CHARACTERS
from keyside.sqlalchemy.codecs import codec_of
from keyside.sqlalchemy.types import BlindIndex, Encrypted, index_columns

Bind = Engine | Connection
Report = Callable[[Progress], object]


def _silent(progress: Progress) -> None:
    """Reports to nobody."""


def backfill(
    bind: Bind,
    column: sa.Column[Any],
    client: Client,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
    source: sa.Column[Any] | None = None,
) -> Progress:
    """Encrypt what is still plaintext in a column, or in the plain column `source`, and compute missing indexes.

    `bind`: an Engine, then each page is a transaction; or a Connection, then whoever owns it commits. Raises
    FieldError, SQLAlchemyError, and ValueError in a stage in which it would do harm.
    """
    check_backfill(column, source)
    type_ = _encrypted(column)
    indexes = [index.index(bind.dialect) for _, index in _indexes_of(column)]
    job = Backfill(type_.field(bind.dialect), indexes)
    if source is not None:
        job.source, job.read_plain = source.name, _plain_reader(source, type_, bind)
    return run(job, _Rows(bind, column, source), Sender(client), options, report)


def reencrypt(
    bind: Bind,
    column: sa.Column[Any],
    client: Client,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
) -> Progress:
    """Put every value of a column under the active data key of its keyring and partition."""
    job = Reencrypt(_encrypted(column).field(bind.dialect))
    return run(job, _Rows(bind, column), Sender(client), options, report)


def decrypt_column(
    bind: Bind,
    column: sa.Column[Any],
    client: Client,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
    into: sa.Column[Any] | None = None,
) -> Progress:
    """Write a column's plaintext back: into itself, declared `migrating="plain"`, or into the plain column `into`.

    Raises as `backfill` does.
    """
    check_decrypt(column, into)
    type_ = _encrypted(column)
    write = codec_of(type_.inner, bind.dialect).plain_of(type_.field(bind.dialect).storage)
    if into is not None:
        write = into.type.dialect_impl(bind.dialect).bind_processor(bind.dialect) or (lambda value: value)
    job: Job = Decrypt(type_.field(bind.dialect), write, into.name if into is not None else None)
    return run(job, _Rows(bind, column, into), Sender(client), options, report)


def check_backfill(column: sa.Column[Any], source: sa.Column[Any] | None = None) -> None:
    """Raise ValueError when the release before the next one could not read what a backfill writes."""
    if source is None and stage_of_column(column) is Stage.PLAIN:
        raise ValueError(f'{label_of(column)} still writes plaintext; declare migrating="plaintext" and deploy first')


def check_decrypt(column: sa.Column[Any], into: sa.Column[Any] | None = None) -> None:
    """Raise ValueError when the application would go on writing ciphertext to the column."""
    if into is None and stage_of_column(column) is not Stage.PLAIN:
        raise ValueError(f'{label_of(column)} still writes ciphertext; declare migrating="plain" and deploy first')


def stage_of_column(column: sa.Column[Any]) -> Stage:
    return _encrypted(column).migrating


def label_of(column: sa.Column[Any]) -> str:
    """`table.column`."""
    return f"{column.table.name}.{column.name}"


def status(bind: Bind, column: sa.Column[Any]) -> ColumnStatus:
    """How many values of a column are NULL, plaintext, or encrypted under each data key, and lack a blind index."""
    type_ = _encrypted(column)
    bare: ColumnElement[Any] = sa.column(column.name, type_.impl_instance)
    size = HEAD_CHARACTERS if type_.stored_as_text else HEAD_BYTES
    head: ColumnElement[Any] = sa.func.substr(bare, 1, size, type_=type_.impl_instance)
    as_hexadecimal = type_.stored_as_text and bind.dialect.name in ("mysql", "mariadb")
    if as_hexadecimal:
        # their collations take data keys for one whose ids differ in case alone
        head = sa.func.hex(head, type_=sa.String())
    head = head.label("head")
    indexes = [name for name, _ in _indexes_of(column)]
    source = sa.table(column.table.name, sa.column(column.name), *map(sa.column, indexes), schema=column.table.schema)
    unindexed = [sa.func.count() - sa.func.count(source.c[name]) for name in indexes]
    statement = sa.select(head, sa.func.count(), *unindexed).select_from(source).group_by(head)
    with _connected(bind) as connection:
        heads = [tuple(row) for row in connection.execute(statement)]
    if as_hexadecimal:
        heads = [(None if head is None else bytes.fromhex(head).decode(), *counts) for head, *counts in heads]
    return status_of(column.table.name, column.name, heads, indexes)


def encrypted_columns_of(metadata: sa.MetaData, name: str | None = None) -> list[sa.Column[Any]]:
    """The encrypted columns of a schema: all, those of a table, or one `table.column`. Raises LookupError for none."""
    found = [
        column
        for table in metadata.sorted_tables
        for column in table.c
        if isinstance(column.type, Encrypted) and name in (None, table.name, f"{table.name}.{column.name}")
    ]
    if not found:
        raise LookupError(f"no encrypted column {name or 'at all'}; name a table or table.column of the models")
    return found


def _indexes_of(column: sa.Column[Any]) -> list[tuple[str, BlindIndex]]:
    """The blind indexes of an encrypted column: the name of each column, and its type."""
    found = [(index.name, index.type) for index in index_columns(column.table)]
    return [(name, type_) for name, type_ in found if isinstance(type_, BlindIndex) and type_.source == column.key]


def _encrypted(column: sa.Column[Any]) -> Encrypted:
    if not isinstance(column.type, Encrypted):
        raise TypeError(f"{column} is not an Encrypted column")
    return column.type


def _plain_reader(source: sa.Column[Any], type_: Encrypted, bind: Bind) -> Callable[[Any], Any]:
    read: Callable[[Any], Any] | None = None
    if not isinstance(source.type, sa.JSON):
        read = source.type.dialect_impl(bind.dialect).result_processor(bind.dialect, _type_code(source, bind))
    return read or codec_of(type_.inner, bind.dialect).read_plain


def _type_code(column: sa.Column[Any], bind: Bind) -> object:
    """What the driver calls the column's type in a result: PostgreSQL's numbers are read by it."""
    nothing: sa.Select[Any] = sa.select(sa.column(column.name)).select_from(column.table).limit(0)
    with _connected(bind) as connection, connection.execute(nothing) as result:
        return result.cursor.description[0][1] if result.cursor is not None and result.cursor.description else None


@contextmanager
def _connected(bind: Bind) -> Iterator[Connection]:
    if isinstance(bind, Connection):
        yield bind
    else:
        with bind.connect() as connection:
            yield connection


class _Rows:
    """`keyside.living.Rows` of a table, through constructs that carry no encrypted type."""

    def __init__(self, bind: Bind, column: sa.Column[Any], plain: sa.Column[Any] | None = None) -> None:
        self._bind = bind
        self._connection: Connection | None = bind if isinstance(bind, Connection) else None
        self._column = column
        self._field: Field = _encrypted(column).field(bind.dialect)
        table = column.table
        self._keys = list(table.primary_key)
        if not self._keys:
            raise TypeError(f"{table.name} has no primary key to walk by")
        self._stored: dict[str, Any] = {
            column.name: _encrypted(column).impl_instance,
            **{index.name: sa.LargeBinary() for index in index_columns(table)},
        }
        if plain is not None:
            # as the driver returns and takes it: the job converts
            self._stored[plain.name] = sa.types.NullType()
        self._texts = {name for name, type_ in self._stored.items() if _is_text(type_)}
        self._texts |= {c.name for c in table.c if c.name not in self._stored and _is_text(c.type)}
        if plain is not None and (_is_text(plain.type) or isinstance(plain.type, sa.JSON)):
            self._texts.add(plain.name)
        self._documents = {plain.name} if plain is not None and isinstance(plain.type, sa.JSON) else set()
        names = [c.name for c in table.c if c.name not in self._stored]
        typed = [sa.column(name, table.c[name].type) for name in names]
        self._table = sa.table(
            table.name, *typed, *[sa.column(name, type_) for name, type_ in self._stored.items()], schema=table.schema
        )
        self._bound = [self._table.c[table.c[name].name] for name in self._field.bind]
        chooser = table.c.get(self._field.partition_column) if self._field.partition_column else None
        self._partition = self._table.c[chooser.name] if chooser is not None else None
        primary = {key.name for key in self._keys}
        beside = [*self._bound, *([self._partition] if self._partition is not None else [])]
        self._beside = {one.name: number for number, one in enumerate(beside) if one.name not in primary}
        """Where what chooses context and partition stands behind the other columns of a page."""
        # made once: putting a statement together takes longer than a page of it in the database
        self._pages: dict[Any, sa.Select[Any]] = {}
        self._updates: dict[Any, _Update] = {}

    def count(self) -> int:
        with _connected(self._bind) as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(self._table)) or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if isinstance(self._bind, Connection):
            yield
            return
        with self._bind.begin() as connection:
            self._connection = connection
            yield

    def page(self, columns: tuple[str, ...], after: tuple[Any, ...] | None, limit: int) -> Page:
        statement = self._pages.get((columns, after is None))
        if statement is None:
            statement = self._pages[columns, after is None] = self._page(columns, after is None)
        given = {"page": limit} | {f"k{number}": value for number, value in enumerate(after or ())}
        assert self._connection is not None
        rows = self._connection.execute(statement, given).all()
        by_column = list(zip(*rows, strict=True)) or [()] * len(statement.selected_columns)
        count = len(self._keys)
        stored = {name: list(by_column[count + number]) for number, name in enumerate(columns)}
        beside = by_column[count + len(columns) :]
        bound = beside[: len(self._bound)]
        return Page(
            list(zip(*by_column[:count], strict=True)),
            stored,
            list(zip(*bound, strict=True)) if bound else None,
            list(by_column[-1]) if self._partition is not None else None,
            {name: list(beside[number]) for name, number in self._beside.items()},
        )

    def _page(self, columns: tuple[str, ...], first: bool) -> sa.Select[Any]:
        keys: list[Any] = [self._table.c[key.name] for key in self._keys]
        extra = [*self._bound, *([self._partition] if self._partition is not None else [])]
        wanted = [*keys, *[self._held(name) for name in columns], *extra]
        statement = sa.select(*[c.label(f"c{number}") for number, c in enumerate(wanted)])
        statement = statement.order_by(*keys).limit(sa.bindparam("page", type_=sa.Integer()))
        return statement if first else statement.where(_beyond(keys))

    def _held(self, name: str) -> ColumnElement[Any]:
        """A column as it is read and compared; a JSON document as its text, which every database can compare."""
        held = self._table.c[name]
        return sa.cast(held, sa.Text) if name in self._documents else held

    def write(self, changes: Changes) -> int | None:
        counts = [self._write_alike(part) for part in changes.alike()]
        return None if None in counts else sum(count for count in counts if count is not None)

    def _write_alike(self, changes: Changes) -> int | None:
        """As one statement, compiled once a shape: SQLAlchemy's work on each row of parameters costs as much as the
        database's."""
        assert self._connection is not None
        absent = frozenset(name for name, held in changes.before.items() if held and held[0] is None)
        shape = (absent, tuple(changes.before), tuple(changes.after))
        update = self._updates.get(shape)
        if update is None:
            update = self._updates[shape] = _Update(self._update(*shape), self._connection.dialect)
        columns: dict[str, Sequence[Any]] = {}
        columns |= {f"k{number}": held for number, held in enumerate(zip(*changes.keys, strict=True))}
        columns |= {f"b{n}": held for n, (name, held) in enumerate(changes.before.items()) if name not in absent}
        columns |= {f"a{number}": new for number, new in enumerate(changes.after.values())}
        try:
            result = self._connection.exec_driver_sql(update.text, update.parameters(columns))
        except sa.exc.StatementError as error:
            # these parameters hold plaintext as it lies in the database
            error.hide_parameters, error.params = True, None
            raise
        told = len(changes) == 1 or result.context.dialect.supports_sane_multi_rowcount
        return result.rowcount if told and result.rowcount >= 0 else None

    def _update(self, absent: frozenset[str], before: tuple[str, ...], after: tuple[str, ...]) -> Any:
        """Compare and set: a row that somebody changed meanwhile is left alone."""
        conditions = [self._table.c[key.name] == sa.bindparam(f"k{n}") for n, key in enumerate(self._keys)]
        for number, name in enumerate(before):
            held = self._held(name)
            given = sa.bindparam(f"b{number}", type_=held.type)
            conditions.append(held.is_(None) if name in absent else self._exactly(name, held, given))
        values = {name: sa.bindparam(f"a{n}", type_=self._table.c[name].type) for n, name in enumerate(after)}
        return sa.update(self._table).where(*conditions).values(values)

    def _exactly(self, name: str, held: ColumnElement[Any], given: ColumnElement[Any]) -> ColumnElement[bool]:
        """Equality that tells `Abc` from `abc` and from `abc `, whatever the column's collation."""
        if name not in self._texts:
            return held == given
        if self._bind.dialect.name in ("mysql", "mariadb"):
            held, given = (sa.cast(sa.cast(one, mysql.CHAR(charset="utf8mb4")), sa.BINARY) for one in (held, given))
            return held == given
        collation = EXACT_COLLATION.get(self._bind.dialect.name)
        return held == given if collation is None else held.collate(collation) == given


def _is_text(type_: Any) -> bool:
    type_ = getattr(type_, "impl_instance", type_)  # what a TypeDecorator stands in front of
    return isinstance(type_, sa.String) and not isinstance(type_, sa.Enum)


class _Update:
    """A compiled UPDATE for the driver's executemany."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._positions: list[str] | None = compiled.positiontup if compiled.positional else None
        self._names: list[str] = self._positions or list(compiled.binds)
        self._processors = {
            name: process
            for name, bind in compiled.binds.items()
            if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
            # a view of bytes is nothing that a driver needs
            and not (isinstance(bind.type, sa.LargeBinary) and dialect.loaded_dbapi.Binary is memoryview)
        }

    def parameters(self, columns: dict[str, Sequence[Any]]) -> list[Any]:
        """Parameters of each row, of their columns."""
        for name, process in self._processors.items():
            columns[name] = [process(value) for value in columns[name]]
        rows = zip(*[columns[name] for name in self._names], strict=True)
        return list(rows) if self._positions else [dict(zip(self._names, row, strict=True)) for row in rows]


def _beyond(keys: list[Any]) -> ColumnElement[bool]:
    """Rows behind the primary key k0, k1, …, spelled out since not every database compares rows."""
    after = [sa.bindparam(f"k{number}", type_=key.type) for number, key in enumerate(keys)]
    conditions = []
    for number, key in enumerate(keys):
        same = [earlier == value for earlier, value in zip(keys[:number], after, strict=False)]
        conditions.append(sa.and_(*same, key > after[number]))
    return sa.or_(*conditions)
