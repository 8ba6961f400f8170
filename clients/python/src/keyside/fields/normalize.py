"""Normalisations of blind indexes: what counts as equal (docs/spec/values.md)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar


class Normalization(NamedTuple):
    """`apply` maps a value to what is indexed, or to None, which gives no index.

    `whole`: values with equal results are equal for the application, so that `==` on the column itself may use the
    index. A part, such as the last four digits, is searched by its own column alone, and so is what a function of the
    application's makes of a value, unless it is marked with `@whole`.
    """

    name: str
    apply: Callable[[Any], Any]
    whole: bool = True


Normalize: TypeAlias = "Normalization | str | Callable[[Any], Any]"


def _same(value: Any) -> Any:
    return value


def _trim(value: Any) -> str:
    return _text(value).strip()


def _casefold(value: Any) -> str:
    folded = unicodedata.normalize("NFKC", _text(value).strip()).casefold()
    return unicodedata.normalize("NFKC", folded)


def _digits(value: Any) -> str | None:
    return "".join(str(unicodedata.decimal(c)) for c in _text(value) if c.isdecimal()) or None


def _domain(value: Any) -> str | None:
    return _casefold(value).rpartition("@")[2] or None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("this normalisation is for text")
    return value


FUNCTIONS: Final = "a function counts as a part unless it is marked with @keyside.fields.whole"
"""For errors about a column that has indexes of parts alone."""

_Function = TypeVar("_Function", bound=Callable[[Any], Any])


def whole(function: _Function) -> _Function:
    """Mark a function for `normalize=`: values with equal results are equal for the application.

    Without it nobody can tell it from one that keeps a part, and `==` on the column would find other values' rows.
    """
    function.whole = True  # type: ignore[attr-defined]  # functions take attributes, and migrations name them as ever
    return function


@cache
def last(count: int) -> Normalization:
    """The last `count` digits, or characters of a text without digits: a card's last four."""
    if count < 1:
        raise ValueError("last: expected at least 1")

    def apply(value: Any) -> str | None:
        text = _digits(value) or _casefold(value)
        return text[-count:] if len(text) >= count else None

    return Normalization(f"last({count})", apply, whole=False)


exact: Final = Normalization("exact", _same)
trim: Final = Normalization("trim", _trim)
casefold: Final = Normalization("casefold", _casefold)
digits: Final = Normalization("digits", _digits)
domain: Final = Normalization("domain", _domain, whole=False)

_BY_NAME: Final = {n.name: n for n in (exact, trim, casefold, digits, domain)}


def normalization(choice: Normalize) -> Normalization:
    """The normalisation of a name, or of a function of the application's own, whose results must never change."""
    if isinstance(choice, Normalization):
        return choice
    if isinstance(choice, str):
        if part := re.fullmatch(r"last\((\d{1,4})\)", choice):
            return last(int(part[1]))
        if choice not in _BY_NAME:
            raise ValueError(f"normalize: expected one of {', '.join(_BY_NAME)}, last(n) or a function")
        return _BY_NAME[choice]
    return Normalization(getattr(choice, "__qualname__", repr(choice)), choice, getattr(choice, "whole", False) is True)
