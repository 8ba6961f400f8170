"""Declarations of encrypted columns that cannot do what they look like: refused when a column is put into its table,
or as soon as the rest of the table is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Column, Float, ForeignKey, Index, PrimaryKeyConstraint, Sequence, Table, UniqueConstraint
from sqlalchemy.sql import visitors
from sqlalchemy.types import TypeEngine

from keyside.fields import Stage, stage_of

BLIND: Final = "declare a BlindIndex column beside it, and give that the option in its place"
_KNOWN_BEFORE: Final = (
    "a default that Python computes (default=uuid4), or autoincrement=False where the application always sets it"
)
_OPTIONS: Final[dict[str, tuple[str, str]]] = {
    "primary_key": ("primary_key", "its ciphertexts are never equal, so that no row is found by them; use another key"),
    "unique": ("unique", f"its ciphertexts are never equal, so that nothing is unique by it; {BLIND}"),
    "index": ("index", f"its ciphertexts are never equal, so that nothing is found by it; {BLIND}"),
    "server_default": ("server_default", "the database cannot encrypt; give it a default that Python computes"),
    "server_onupdate": ("server_onupdate", "the database cannot encrypt; write the value from Python"),
}

inherited_keys: WeakSet[ForeignKey] = WeakSet()
"""Foreign keys that join a mapped class to the class that it inherits from: a flush writes both tables."""

following_keys: WeakKeyDictionary[Table, set[ForeignKey]] = WeakKeyDictionary()
"""Those of them that the database changes together with the key of the table that they refer to."""


def check_arguments(keyring: Any, storage: Any, on_error: Any) -> None:
    """Raise TypeError or ValueError for arguments of a type, whose annotations nobody checks at run time."""
    if not isinstance(keyring, str) or not keyring:
        raise TypeError(f"keyring: expected the name of a keyring, not a {type(keyring).__name__}")
    if storage not in ("bytes", "text") and not isinstance(storage, TypeEngine):
        raise ValueError("storage: expected 'bytes', 'text' or a type such as String(600)")
    if on_error not in ("raise", "none"):
        raise ValueError(f"on_error: expected 'raise' or 'none', not {on_error!r}")


def stage_named(migrating: Any) -> Stage:
    """The stage that `migrating=` names. Raises ValueError."""
    try:
        return stage_of(migrating)
    except ValueError:
        message = f"migrating: expected None, 'plain', 'plaintext' or 'rotating', not {migrating!r}"
        raise ValueError(message) from None


def check_variants(column: Column[Any]) -> None:
    """Raise ValueError for a variant of an encrypted type or a blind index: it would store values as they are."""
    if column.type._variant_mapping:
        advice = (
            "give storage= a type with variants in its place" if hasattr(column.type, "storage") else "leave it out"
        )
        _refuse(column, f"with_variant() of its type would store what it is given as it is; {advice}")


def check_replaced(column: Column[Any], table: Table) -> None:
    """Raise ValueError for a column that takes the place of an encrypted one, or of a blind index, and is none."""
    for declared in table.c:
        if declared.name.lower() == column.name.lower() and declared is not column and _is_ours(declared):
            message = (
                "a plain column would take its place, and store plaintext. Reflect with autoload_replace=False, which "
                "keeps what is declared, or into another MetaData"
            )
            _refuse(declared, message)


def _is_ours(column: Column[Any]) -> bool:
    return hasattr(column.type, "of_column")


def check_options(column: Column[Any]) -> None:
    """Raise ValueError for options of an encrypted column that would do nothing, or harm."""
    for name, (shown, why) in _OPTIONS.items():
        if getattr(column, name, None):
            _refuse(column, f"{shown} is no option of an encrypted column: {why}")
    for what, names in _needs(column):
        if column.key in names:
            _refuse(column, f"{what} names the column itself; name another column of the row")


def check_constraint(constraint: Index | UniqueConstraint | PrimaryKeyConstraint) -> None:
    """Raise ValueError for an index or a constraint over ciphertexts."""
    expressions = getattr(constraint, "expressions", None) or constraint.columns
    for expression in expressions:
        for column in visitors.iterate(expression):
            if isinstance(column, Column) and hasattr(column.type, "migrating"):
                what = type(constraint).__name__
                _refuse(
                    column, f"{what} over an encrypted column: ciphertexts are never equal; name its BlindIndex column"
                )


def check_bindings(column: Column[Any]) -> None:
    """Raise ValueError when what an encrypted column is bound to is not there, or is not known before the INSERT."""
    for what, names in _needs(column):
        for name in names:
            needed = column.table.c.get(name)
            if needed is None:
                there = ", ".join(one.key for one in column.table.c if one is not column)
                _refuse(column, f"{what} names {name!r}, which is no column of the table ({there})")
            if isinstance(needed.type, Float):
                _refuse(column, f"{what} names {name!r}, a float: databases round them; name a column of whole numbers")
            bound = f"it is bound to {name!r}" if what == "bind" else f"its partition is {name!r}"
            if _made_by_database(needed):
                message = f"{bound}, which the database makes after the value is encrypted; give that {_KNOWN_BEFORE}"
                _refuse(column, message)
            if _changed_by_database(needed):
                message = f"{bound}, which the database changes by itself, and the value would not open any more"
                _refuse(column, f"{message}; take its onupdate off, and set it from Python")
            for key in needed.foreign_keys:
                action = _rewriting(key, needed)
                if action:
                    message = (
                        f"{bound}, which the database changes by itself ({action}), so that values would not open "
                    )
                    _refuse(column, f"{message}any more; let Python change it, or name another column")


def note_inherited(key: ForeignKey) -> None:
    inherited_keys.add(key)
    if (key.onupdate or "").upper() == "CASCADE":
        following_keys.setdefault(key.column.table, set()).add(key)


def _rewriting(key: ForeignKey, column: Column[Any]) -> str | None:
    """What of a foreign key changes its column in rows that no statement writes."""
    onupdate, ondelete = (key.onupdate or "").upper(), (key.ondelete or "").upper()
    if onupdate.startswith("SET") or (onupdate == "CASCADE" and key not in inherited_keys):
        return f"ON UPDATE {onupdate}"
    # PostgreSQL takes a list of the columns that are set
    listed = [name.strip().strip('"') for name in ondelete.partition("(")[2].strip(")").split(",")]
    if ondelete.startswith("SET") and ("(" not in ondelete or column.name.upper() in listed):
        return f"ON DELETE {ondelete}"
    return None


def _needs(column: Column[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    type_: Any = column.type
    yield "bind", type_.bind
    if isinstance(type_.partition, str):
        yield "partition", (type_.partition,)


def _made_by_database(column: Any) -> bool:
    default = column.default
    if default is not None and not isinstance(default, Sequence):
        return bool(default.is_clause_element)
    made = default is not None or column.server_default is not None
    return made or column.table.autoincrement_column is column


def _changed_by_database(column: Any) -> bool:
    onupdate = column.onupdate
    return column.server_onupdate is not None or (onupdate is not None and bool(onupdate.is_clause_element))


def _refuse(column: Any, message: str) -> NoReturn:
    table = getattr(column, "table", None)
    raise ValueError(f"{table.name}.{column.name}: {message}" if table is not None else f"{column.name}: {message}")
