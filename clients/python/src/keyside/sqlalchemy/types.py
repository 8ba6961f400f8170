"""Column types: `Encrypted` and `BlindIndex`. They say what is where; the hooks of `install` do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Column, LargeBinary, Table, Text, UniqueConstraint, event
from sqlalchemy import Index as DatabaseIndex
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import FromClause

from keyside.fields import (
    MASK,
    Field,
    FieldUnwritable,
    Index,
    Normalize,
    NotInstalled,
    NotSearchable,
    OnFieldError,
    Partition,
    Placeholder,
    Stage,
    normalization,
    note_unbatched,
    open_one,
)
from keyside.fields.declaration import ReadIndex, unnamed_index
from keyside.sqlalchemy.codecs import codec_of
from keyside.sqlalchemy.declaring import (
    check_arguments,
    check_bindings,
    check_constraint,
    check_options,
    check_replaced,
    check_variants,
    stage_named,
)
from keyside.sqlalchemy.placeholders import WRONG_TYPE, NotInstalledPlaceholder, SearchPlaceholder, plain_processor
from keyside.sqlalchemy.registry import installation_of
from keyside.sqlalchemy.search import EncryptedComparator, IndexComparator

Storage: TypeAlias = "Literal['bytes', 'text'] | sqltypes.TypeEngine[Any]"

LITERAL = "<encrypted>"
"""What a statement with its literals shows. It is no SQL, so such a statement cannot run by accident."""


PREFIXED: Final = ("mysql", "mariadb", "mssql")
"""Databases that index no column of unbounded length, or a part of it only."""
INDEX_BYTES: Final = 64
"""Of a blind index there, which has 32 at most."""


class Encrypted(sqltypes.TypeDecorator[Any]):
    """A column whose values are encrypted by the Keyside sidecar; in Python they keep the type of `inner`.

    `keyring`: name of the keyring, `partition`: name of the column (or `keyside.from_context(name)`) that chooses the
    partition of a partitioned one. `bind`: column, or columns, of the row's key; a ciphertext then opens in its own row
    alone. They must be known to Python when the row is inserted. `context`: text in place of `table.column`, for a
    table or column that was renamed. `storage`: "bytes" (BYTEA, BLOB), "text" (TEXT, the `ks1.` form) or a type, such
    as String(600). `on_error`: "none" reads a value that does not open as None. `migrating`: "plain" or "plaintext"
    while rows may still hold plaintext (docs/orm/encrypt-a-column.md), "rotating" is for people only.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = EncryptedComparator  # a property there, a class in its documentation

    def __init__(
        self,
        inner: sqltypes.TypeEngine[Any] | type[sqltypes.TypeEngine[Any]],
        keyring: str,
        partition: Partition = None,
        bind: str | Iterable[str] = (),
        context: str = "",
        storage: Storage = "bytes",
        on_error: OnFieldError = "raise",
        migrating: str | Stage | None = None,
    ) -> None:
        super().__init__()
        check_arguments(keyring=keyring, storage=storage, on_error=on_error)
        self.inner = sqltypes.to_instance(inner)
        self.keyring = keyring
        self.partition = partition
        self.bind = (bind,) if isinstance(bind, str) else tuple(bind)
        self.context = context
        self._renamed = bool(context)
        self.storage = storage
        self.on_error = on_error
        self.migrating = stage_named(migrating)
        self.impl = self.stored_type()  # type: ignore[assignment]  # an instance replaces the class, as documented
        self.column: Column[Any] | None = None
        """The column that it is the type of; each column has a type of its own."""
        self._fields: dict[Any, Field] = {}

    def stored_type(self, dialect: Dialect | None = None) -> sqltypes.TypeEngine[Any]:
        """The type that the column has in the database, the same in all of them."""
        if isinstance(self.storage, sqltypes.TypeEngine):
            return self.storage
        return LargeBinary() if self.storage == "bytes" else Text()

    @property
    def stored_as_text(self) -> bool:
        return isinstance(self.impl, sqltypes.String)

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the row without which a value neither opens nor is written."""
        return (*self.bind, *([self.partition] if isinstance(self.partition, str) else []))

    @property
    def python_type(self) -> type[Any]:
        return self.inner.python_type

    @property
    def hashable(self) -> bool:  # type: ignore[override]  # as ARRAY's
        return self.inner.hashable

    def compare_values(self, x: Any, y: Any) -> bool:
        return self.inner.compare_values(x, y)

    def of_column(self, column: Column[Any]) -> Encrypted:
        """This type for one column, which its ciphertexts are bound to."""
        bound = self.copy()
        bound.column = column
        # part of the key of cached statements, so that two columns declared alike are not taken for each other
        bound.context = self.context if self._renamed else f"{column.table.name}.{column.name}"
        bound._fields = {}
        return bound

    def field(self, dialect: Dialect | None = None) -> Field:
        """The declaration in Keyside's terms. Raises NotInstalled for a type that no column has."""
        found = self._fields.get(dialect)
        if found is None:
            if self.column is None:
                raise NotInstalled("an Encrypted type works as the type of a table's column only; see docs/orm")
            check_bindings(self.column)
            codec = codec_of(self.inner, dialect)
            storage: Literal["bytes", "text"] = "text" if self.stored_as_text else "bytes"
            found = self._fields[dialect] = Field(
                self.column.table.name,
                self.column.name,
                self.keyring,
                self.partition,
                self.context,
                bind=self.bind,
                on_error=self.on_error,
                stage=self.migrating,
                storage=storage,
                to_bytes=codec.to_bytes(),
                from_bytes=codec.from_bytes(),
                from_column=codec.from_column(),
                from_plaintext=codec.of_plain(storage),
            )
        return found

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        field = self.field(dialect)
        kind = NotInstalledPlaceholder if installation_of(dialect) is None else Placeholder

        def process(value: Any) -> Any:
            return None if value is None else kind(field, value)

        return self._plain_processor(field, dialect) if field.stage is Stage.PLAIN else process

    def _plain_processor(self, field: Field, dialect: Dialect) -> Callable[[Any], Any]:
        """What is written as plaintext is masked all the same where a statement is logged."""
        write_plain = codec_of(self.inner, dialect).plain_of(field.storage)

        def unfit(value: Any) -> FieldUnwritable:
            message = f"a value of type {type(value).__name__} does not fit the column's type"
            return FieldUnwritable(message, field.table, field.column)

        installed = installation_of(dialect) is not None
        return plain_processor(field, installed, lambda value: field.as_plaintext(write_plain(value)), unfit)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        field = self.field(dialect)

        def process(value: Any) -> Any:
            if value is None:
                return None
            if early.get():
                return Early(value)
            return one_by_one(field, dialect, value)

        process.keyside = self  # type: ignore[attr-defined]  # how batching finds its columns in a result
        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        return lambda value: LITERAL

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self


early: ContextVar[bool] = ContextVar("keyside.early", default=False)
"""Whether a statement is being executed whose RETURNING rows SQLAlchemy processes before there is a result."""


strict: ContextVar[bool] = ContextVar("keyside.strict", default=False)
"""Whether what does not open is an error whatever the column's on_error: it is read so that it can be written anew."""


def read_strictly(field: Field) -> Field:
    """The declaration that a value is read by now."""
    return replace(field, on_error="raise") if strict.get() else field


class Early:
    """A stored value of a RETURNING row, whose processor ran before there was a result."""

    __slots__ = ("stored",)

    def __init__(self, stored: Any) -> None:
        self.stored = stored

    def __repr__(self) -> str:
        return MASK


def one_by_one(field: Field, dialect: Dialect, stored: Any) -> Any:
    """A value that batching did not see."""
    installation = installation_of(dialect)
    if installation is None:
        raise NotInstalled("call keyside.sqlalchemy.install(engine, client) first", field.table, field.column)
    note_unbatched(field, installation.unbatched)
    return open_one(read_strictly(field), stored, installation.send)


class BlindIndex(sqltypes.TypeDecorator[Any]):
    """The blind index of an encrypted column of the same table: `==`, `in_` and uniqueness.

    Filled in by the hooks whenever `source` is written, and compared with plain values: `==` and `in_` on the encrypted
    column use it, unless its normalisation keeps a part of the value only (`last(4)`, `"domain"`), which is searched by
    this column itself. `normalize`: "exact", "trim", "casefold", "digits", "domain", `keyside.fields.last(n)` or a
    function, which counts as a part unless it is marked with `@keyside.fields.whole`. `partitioned`: under the key of
    the row's partition, which a search then must know from `keyside.context`. `context`: text in place of
    `table.column`; equal ones make columns comparable.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = IndexComparator  # a property there, a class in its documentation

    def __init__(
        self, source: str, normalize: Normalize = "exact", partitioned: bool = False, context: str = ""
    ) -> None:
        super().__init__()
        self.source = source
        self.normalize = normalization(normalize)
        self.partitioned = partitioned
        self.context = context
        self._renamed = bool(context)
        self.column: Column[Any] | None = None
        self._indexes: dict[Any, Index] = {}

    def load_dialect_impl(self, dialect: Dialect) -> sqltypes.TypeEngine[Any]:
        return dialect.type_descriptor(self.stored_type(dialect))

    def stored_type(self, dialect: Dialect) -> sqltypes.TypeEngine[Any]:
        """The type that the column has in the database."""
        return sqltypes.VARBINARY(INDEX_BYTES) if dialect.name in PREFIXED else LargeBinary()

    def of_column(self, column: Column[Any]) -> BlindIndex:
        bound = self.copy()
        bound.column = column
        bound.context = self.context if self._renamed else f"{column.table.name}.{column.name}"
        bound._indexes = {}
        return bound

    @property
    def source_column(self) -> Column[Any]:
        """Raises NotInstalled when the table has no such encrypted column, ValueError when it alone names a context."""
        if self.column is None:
            raise NotInstalled("a BlindIndex works as the type of a table's column only; see docs/orm")
        column = self.column.table.c.get(self.source)
        if column is None or not isinstance(column.type, Encrypted):
            message = f"it indexes {self.source!r}, which is no Encrypted column of the table"
            raise NotInstalled(message, self.column.table.name, self.column.name)
        if column.type._renamed and not self._renamed:
            raise ValueError(f"{self.context}: {unnamed_index(self.context)}")
        return column

    def index(self, dialect: Dialect | None = None) -> Index:
        """The declaration in Keyside's terms: what is normalised is the value that the column holds, which reading it
        gives, however the application wrote it."""
        found = self._indexes.get(dialect)
        if found is None:
            source: Any = self.source_column.type
            assert self.column is not None
            prepare, normalize = codec_of(source.inner, dialect).prepare, self.normalize
            found = self._indexes[dialect] = Index(
                self.column.table.name,
                self.column.name,
                source.keyring,
                source.partition if self.partitioned else None,
                self.context,
                source=self.source,
                normalize=normalize._replace(apply=lambda value: normalize.apply(prepare(value))),
            )
        return found

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        index = self.index(dialect)
        kind = NotInstalledPlaceholder if installation_of(dialect) is None else Placeholder

        def process(value: Any) -> Any:
            return None if value is None else kind(index, value)

        return process

    def process_result_value(self, value: Any, dialect: Dialect) -> ReadIndex | None:
        return None if value is None else ReadIndex(value)

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        return lambda value: LITERAL

    def for_search(self) -> SearchedIndex:
        """The type of values that are compared with the index."""
        searched = SearchedIndex(self.source, self.normalize, self.partitioned, self.context)
        searched.column = self.column
        return searched

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.for_search()


class SearchedIndex(BlindIndex):
    """The type of a value that is looked for in a blind index."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        index = self.index(dialect)
        kind = NotInstalledPlaceholder if installation_of(dialect) is None else SearchPlaceholder

        def process(value: Any) -> Any:
            if value is None:
                return None
            placeholder = kind(index, value)
            if isinstance(value, ReadIndex):
                placeholder.sealed = bytes(value)
                return placeholder
            try:
                index.encode(value)
            except FieldUnwritable:
                placeholder.sealed = NotSearchable(WRONG_TYPE, index.table, index.source)
            return placeholder

        return process


def encrypted_columns(table: FromClause) -> list[Column[Any]]:
    return [column for column in table.c if isinstance(column, Column) and isinstance(column.type, Encrypted)]


def index_columns(table: FromClause) -> list[Column[Any]]:
    return [column for column in table.c if isinstance(column, Column) and isinstance(column.type, BlindIndex)]


@event.listens_for(Column, "before_parent_attach")
def _check_replaced(column: Column[Any], parent: Any) -> None:
    if isinstance(parent, Table) and not isinstance(column.type, Encrypted | BlindIndex):
        check_replaced(column, parent)


@event.listens_for(Column, "after_parent_attach")
def _bind_type(column: Column[Any], parent: Any) -> None:
    if not isinstance(parent, Table) or not isinstance(column.type, Encrypted | BlindIndex):
        return
    check_variants(column)
    column.type = column.type.of_column(column)
    if isinstance(column.type, Encrypted):
        check_options(column)
    elif column.index is None and not column.unique and not column.primary_key:
        # what is looked for is worth an index of the database, as Django's has; index=False says otherwise
        column.index = True
        parent.append_constraint(DatabaseIndex(None, column.key, _column_flag=True))


@event.listens_for(DatabaseIndex, "after_parent_attach")
@event.listens_for(UniqueConstraint, "after_parent_attach")
def _check_constraint(constraint: Any, parent: Any) -> None:
    check_constraint(constraint)
