"""A column of values as one parameter for PostgreSQL, in the form that takes driver and server least time.

psycopg takes microseconds to adapt each element of a list, and the server longer to read an array literal than to split
a text. So most columns travel as one text: `string_to_array(%s, ',', '')::bytea[]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

SPLIT: Final = "string_to_array(%s, ',', '')"
"""Splits what `joined` made; an empty element is NULL."""

_JOINABLE: Final = {bytes, str, int, type(None)}


def parameter(elements: Sequence[Any]) -> tuple[str, Any]:
    """What stands in the statement, before `::type[]`, and its parameter."""
    kinds = set(map(type, elements))
    if not kinds <= _JOINABLE:
        return "%s", list(elements)
    text = joined(elements, kinds)
    return ("%s", literal(elements)) if text is None else (SPLIT, text)


def joined(elements: Sequence[Any], kinds: set[type]) -> str | None:
    """The elements with commas between them; None when they could not be told apart again."""
    if kinds == {bytes}:
        return "\\x" + ",\\x".join(map(bytes.hex, elements))
    text = ",".join([_plain(one) for one in elements])
    ambiguous = text.count(",") != len(elements) - 1 or (str in kinds and "" in elements)
    # a text without anything in it is split into no element, not into one
    return None if ambiguous or not text else text


def literal(elements: Sequence[Any]) -> str:
    """An array as PostgreSQL writes it (Arrays, Array Value Input)."""
    return "{" + ",".join(map(_quoted, elements)) + "}"


def _plain(one: Any) -> str:
    if one is None:
        return ""
    return "\\x" + one.hex() if isinstance(one, bytes) else str(one)


def _quoted(one: Any) -> str:
    if one is None:
        return "NULL"
    if isinstance(one, str):
        text = one.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return f'"\\\\x{one.hex()}"' if isinstance(one, bytes) else str(one)
