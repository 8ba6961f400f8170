"""What an application declares of an encrypted column and of a blind index, free of any ORM."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from keyside.errors import InvalidText
from keyside.fields.errors import BindingMissing, FieldUnreadable, FieldUnwritable
from keyside.fields.normalize import Normalization, exact
from keyside.fields.scope import FromContext, current, partition_text
from keyside.text import PREFIX, from_text, to_text
from keyside.values import InvalidValue, decode, encode

MAGIC: Final = b"\xc1\x01"
TEXT_HEAD: Final = "ks1.wQ"
"""What every ciphertext begins with in its text form: the prefix and `MAGIC`, as far as whole characters tell it."""
LEAST_ENVELOPE: Final = 38
KEYRING_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""docs/spec/wire.md"""
UNFIT: Final = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError)
"""What conversions raise for values of another type than theirs."""

OnFieldError = Literal["raise", "none"]
Storage = Literal["bytes", "text"]
Partition = str | FromContext | None


class Stage(enum.Enum):
    """How far a column has come from plaintext, and what is written and read meanwhile."""

    PLAIN = "plain"
    """Reads both, writes plaintext: the release before the first ciphertext is written."""
    DUAL = "dual"
    """Reads both, writes ciphertext: until the backfill is through."""
    ENCRYPTED = "encrypted"
    """Reads and writes ciphertext; a plaintext is an error."""
    ROTATING = "rotating"
    """As ENCRYPTED, while values are re-encrypted under a new data key."""

    @property
    def reads_plaintext(self) -> bool:
        return self in (Stage.PLAIN, Stage.DUAL)


def stage_of(migrating: str | Stage | None) -> Stage:
    """The stage that `migrating=` names: None is ENCRYPTED, "plaintext" is DUAL. Raises ValueError."""
    if migrating is None:
        return Stage.ENCRYPTED
    return Stage.DUAL if migrating == "plaintext" else Stage(migrating)


def unnamed_index(name: str) -> str:
    """What is wrong with a blind index, called so in its table, without `context` beside a column that has one."""
    return (
        f"the column that it indexes names a context=, it names none, and is computed for {name!r}: when rows were"
        " indexed for another, searches find nothing and unique lets duplicates in. Give it context= as well: the"
        f" table.column that it had before a rename, or {name!r} when it never had another name"
    )


@dataclass(frozen=True)
class Place:
    """What an encrypted column and a blind index have in common: where they are, and under which keyring."""

    table: str
    column: str
    keyring: str
    partition: Partition = None
    """The name of the column that chooses the partition, or `from_context(name)`; None for an unpartitioned keyring."""
    context: str = ""
    """In place of `table.column`; the old name after a rename."""
    prefix: bytes = field(init=False, repr=False)
    needs_row: bool = field(init=False, repr=False)
    """Whether the row must tell its key or its partition."""

    def __post_init__(self) -> None:
        if KEYRING_NAME.fullmatch(self.keyring) is None:
            wanted = "1 to 64 letters, digits, `_`, `.` and `-`, the first a letter or digit"
            raise ValueError(f"keyring {self.keyring!r}: expected {wanted}")
        if not self.context and "." in self.column:
            message = "a dot in a column's name leaves open where the table's ends; give the column context=…"
            raise ValueError(f"{self.column!r}: {message}")
        object.__setattr__(self, "prefix", (self.context or f"{self.table}.{self.column}").encode())
        object.__setattr__(self, "needs_row", isinstance(self.partition, str))

    def scope(self, partition: Any) -> str:
        """The keyring's name with the partition that this value chooses; None asks `keyside.context`.

        Raises BindingMissing.
        """
        if self.partition is None:
            return self.keyring
        if partition is None:
            partition = current(self.partition_name)
        if partition is None:
            raise BindingMissing(self._how_to_tell_the_partition(), self.table, self.column)
        try:
            return f"{self.keyring}/{partition_text(partition)}"
        except InvalidValue as error:
            raise BindingMissing(str(error), self.table, self.column) from None

    @property
    def partition_name(self) -> str:
        assert self.partition is not None
        return self.partition.name if isinstance(self.partition, FromContext) else self.partition

    @property
    def partition_column(self) -> str | None:
        """The column that chooses the partition, None when there is none."""
        return self.partition if isinstance(self.partition, str) else None

    def _how_to_tell_the_partition(self) -> str:
        name = self.partition_name
        block = f"run the statement in `with keyside.context({name}=…)`"
        if isinstance(self.partition, FromContext):
            return f"its partition is taken from keyside.context; {block}"
        if isinstance(self, Index):
            return f"it is computed for one partition, the value of {name}; {block}"
        return f"its partition is the value of {name}, which this statement does not tell; name the column, or {block}"


@dataclass(frozen=True)
class Field(Place):
    """An encrypted column."""

    bind: tuple[str, ...] = ()
    """Columns whose values are the row's key; the ciphertext opens in that row alone."""
    on_error: OnFieldError = "raise"
    """What becomes of a value that does not open. An unavailable sidecar is always an error."""
    stage: Stage = Stage.ENCRYPTED
    storage: Storage = "bytes"
    to_bytes: Callable[[Any], bytes] = encode
    """A value's encoding. Raises InvalidValue, TypeError or ValueError."""
    from_bytes: Callable[[bytes], Any] = decode
    from_column: Callable[[Any], list[Any]] | None = None
    """`from_bytes` for a list of encodings, where that is quicker."""
    from_plaintext: Callable[[Any], Any] = lambda stored: stored
    """The value of what a plain column would hold; used while `stage` reads plaintext."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "needs_row", bool(self.bind) or isinstance(self.partition, str))

    def in_stage(self, stage: Stage) -> Field:
        return replace(self, stage=stage)

    def row_context(self, key: Sequence[Any] | None) -> bytes:
        """The context of the row with this key (values of `bind`). Raises BindingMissing."""
        return self.prefix + self.key_suffix(key) if self.bind else self.prefix

    def key_suffix(self, key: Sequence[Any] | None) -> bytes:
        """What a row's key adds to a context, the same for all columns bound to it. Raises BindingMissing."""
        if key is None or None in key:
            raise BindingMissing(
                f"it is bound to the row's {', '.join(self.bind)}, which this statement does not tell; name the columns"
                " beside it, compare them with values in WHERE, or give rows their key before they are inserted (a"
                " default that Python computes)",
                self.table,
                self.column,
            )
        suffix = b"\0"
        try:
            for value in key:
                encoded = encode(value, canonical=True)
                suffix += len(encoded).to_bytes(2, "big") + encoded
        except (InvalidValue, OverflowError):
            message = "a value of its row key has no canonical encoding of at most 65,535 bytes"
            raise BindingMissing(message, self.table, self.column) from None
        return suffix

    def encode(self, value: Any, key: tuple[Any, ...] | None = None) -> bytes:
        """Raises FieldUnwritable."""
        try:
            return self.to_bytes(value)
        except InvalidValue as error:
            raise FieldUnwritable(str(error), self.table, self.column, key) from None
        except UNFIT:
            # not chained: messages of these errors quote the value
            message = f"a value of type {type(value).__name__} does not fit the column's type"
            raise FieldUnwritable(message, self.table, self.column, key) from None

    def is_envelope(self, stored: Any) -> bool:
        """Whether a stored value is ciphertext by its looks; decryption decides."""
        if self.storage == "text":
            if not isinstance(stored, str) or not stored.startswith(PREFIX):
                return False
            try:
                stored = from_text(stored)
            except InvalidText:
                return False
        elif isinstance(stored, bytearray | memoryview):
            stored = bytes(stored)  # as psycopg2 gives it
        return isinstance(stored, bytes) and len(stored) >= LEAST_ENVELOPE and stored[:2] == MAGIC

    def as_plaintext(self, stored: Any) -> Any:
        """What a column of plaintext is to hold, as it is. Raises FieldUnwritable for what would be read as ciphertext.

        Whoever may write a text could otherwise have a ciphertext of another column, which he stole, opened for him.
        """
        if self.is_envelope(bytes(stored) if isinstance(stored, bytearray | memoryview) else stored):
            message = "the value looks like ciphertext, as which it would be read; refuse it where it is entered"
            raise FieldUnwritable(message, self.table, self.column)
        return stored

    def to_stored(self, envelope: bytes) -> bytes | str:
        return to_text(envelope) if self.storage == "text" else envelope

    def to_envelope(self, stored: Any, key: tuple[Any, ...] | None = None) -> bytes:
        """Raises FieldUnreadable."""
        if self.storage == "bytes":
            if type(stored) is bytes:
                return stored
            if isinstance(stored, bytearray | memoryview):
                return bytes(stored)
        elif isinstance(stored, str):
            try:
                return from_text(stored)
            except InvalidText as error:
                raise FieldUnreadable("holds no ciphertext", self.table, self.column, key) from error
        raise FieldUnreadable("holds no ciphertext; is the column still plaintext?", self.table, self.column, key)


class ReadIndex(bytes):
    """A blind index that was read from the database, which a search may use again. A value of bytes is none."""

    __slots__ = ()


@dataclass(frozen=True)
class Index(Place):
    """A blind index. `partition` is None for one that searches all partitions."""

    source: str = ""
    """The encrypted column whose values it indexes."""
    normalize: Normalization = exact

    def encode(self, value: Any) -> bytes | None:
        """What the index is computed over, None for no index. Raises FieldUnwritable."""
        try:
            normal = self.normalize.apply(value)
            return None if normal is None else encode(normal, canonical=True)
        except InvalidValue as error:
            raise FieldUnwritable(str(error), self.table, self.column) from None
        except UNFIT:
            message = f"a value of type {type(value).__name__} cannot be normalised as {self.normalize.name}"
            raise FieldUnwritable(message, self.table, self.column) from None
