"""psycopg 3: results in PostgreSQL's binary format, in which a ciphertext is its bytes and not two digits for each.

A result has one format for all of its columns. In the other one some loaders of psycopg, or an application's own, give
other values. So a statement is first fetched as ever, and in binary from then on if all of its columns are of types for
which psycopg gives the same Python values in both.
"""

from __future__ import annotations

import sys
from typing import Any, Final

TEXT: Final = 0
BINARY: Final = 1

_BYTEA: Final = 17
_SAME_IN_BOTH: Final = frozenset(
    {
        _BYTEA,
        16,  # boolean
        20,  # bigint
        21,  # smallint
        23,  # integer
        25,  # text
        1042,  # char(n)
        1043,  # varchar
        1082,  # date
        1114,  # timestamp
        1184,  # timestamptz
        1700,  # numeric
        2950,  # uuid
    }
)
"""PostgreSQL's object identifiers of types (catalog/pg_type.dat)."""


def has_formats(cursor: Any) -> bool:
    """Whether it is a cursor of psycopg 3 that has its whole result, and whose format may be set."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(cursor, psycopg.Cursor) and not isinstance(cursor, psycopg.ServerCursor)


def same_in_both(cursor: Any) -> bool:
    """Whether what the cursor has executed returns ciphertexts as bytes, and the same values in both formats."""
    result = cursor.pgresult
    types = set() if result is None else {result.ftype(column) for column in range(result.nfields)}
    return _BYTEA in types and types <= _SAME_IN_BOTH and all(_loads_as_psycopg(cursor, type_) for type_ in types)


def _loads_as_psycopg(cursor: Any, type_: int) -> bool:
    """Whether no application has registered a loader of its own."""
    loaders = [cursor.adapters.get_loader(type_, format_) for format_ in (TEXT, BINARY)]
    return all(loader is not None and loader.__module__.startswith("psycopg") for loader in loaders)
