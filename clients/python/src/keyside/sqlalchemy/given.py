"""What an encrypted column or a blind index is compared with, or set to: plain values, however they were said.

A value that comes with a type of its own, `literal("x")` or `bindparam("x", type_=String)`, would go to the database as
that type stores it: as plaintext. It gets the column's type in place of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.sql.elements import BindParameter, ClauseElement, Null, _anonymous_label, _truncated_label
from sqlalchemy.sql.lambdas import PyWrapper
from sqlalchemy.types import TypeEngine


class ParameterName(_truncated_label):
    """The name by which the application gives a parameter, and another one in the statement.

    The same parameter may be compared with several columns, and each of them sees another value of it.
    """

    __slots__ = ("_shown",)
    _shown: str

    def __new__(cls, name: str, suffix: str) -> ParameterName:
        made = super().__new__(cls, str(name))
        made._shown = f"{name}_{re.sub(r'[^0-9A-Za-z_]', '_', suffix)}"
        return made

    def apply_map(self, map_: Any) -> str:
        return self._shown

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) and (not isinstance(other, ParameterName) or self._shown == other._shown)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def clause(value: Any) -> Any:
    """The SQL element that a mapped attribute stands for; other values as they are."""
    return value.__clause_element__() if hasattr(value, "__clause_element__") else value


def is_null(value: Any) -> bool:
    return value is None or isinstance(value, Null)


def is_named(parameter: BindParameter[Any]) -> bool:
    """Whether executions may give the parameter by its name; cached statements see no other difference between one
    that is unique and one that merely has no name."""
    return not isinstance(parameter.key, _anonymous_label)


def is_expression(value: Any) -> bool:
    """Whether the database would compute it."""
    return isinstance(clause(value), ClauseElement) and not isinstance(clause(value), BindParameter | Null)


def is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview | Mapping)


def typed(value: Any, type_: TypeEngine[Any], place: str) -> Any:
    """A value, or a list of values, with this type whatever types they bring; other expressions as they are.

    `place`: what a parameter's name gets at its end.
    """
    found = clause(value)
    if isinstance(value, PyWrapper):
        return value  # SQLAlchemy gives it the type that it is compared with
    if isinstance(found, BindParameter):
        # a key of its own: SQLAlchemy takes parameters of the same key for the same parameter
        own = found._clone(maintain_key=False)
        own.type = type_
        if is_named(own):
            own.key = ParameterName(own.key, place)
        else:
            own._convert_to_unique()  # type: ignore[no-untyped-call]  # it has no annotations
        return own
    if isinstance(found, ClauseElement) or not is_list(value):
        return value
    return [typed(one, type_, place) for one in value]


def value_for(value: Any, type_: TypeEngine[Any]) -> Any:
    """A value that is written, with the type of its column; other expressions as they are."""
    found = clause(value)
    if not isinstance(found, BindParameter):
        return value
    own = found._clone(maintain_key=not found.unique)
    own.type = type_
    return own
