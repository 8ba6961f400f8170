"""What PostgreSQL makes of a column that is sent as one parameter."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from django.db import connections
from keyside.django.arrays import SPLIT, parameter

NONE: list[Any] = [None]


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("bytea", [b"\xc1\x01,{}\\", b"", b"\x00" * 300]),
        ("bytea", [b"a", None, b"b"]),
        ("bytea", [None, None]),
        ("bytea", [b""]),
        ("bytea", NONE),
        ("text", ["ks1.AbC-_", "ä", " padded ", "NULL", "null"]),
        ("text", ["a", None, "b"]),
        ("text", ["a,b", '"quoted"', "back\\slash", "{braces}", "line\nbreak", None, ""]),
        ("text", [""]),
        ("text", ["", ""]),
        ("text", [","]),
        ("text", NONE),
        ("bigint", [1, -(2**63), None]),
        ("date", [date(2024, 2, 29), None]),
    ],
    ids=str,
)
def test_elements_come_back_as_they_were(databases: None, kind: str, elements: list[Any]) -> None:
    stands, given = parameter(elements)
    with connections["postgresql"].cursor() as cursor:
        cursor.execute(f"SELECT one FROM UNNEST(({stands})::{kind}[]) AS all_of_them(one)", [given])
        found = [bytes(one) if isinstance(one, memoryview) else one for (one,) in cursor.fetchall()]
    assert found == elements


def test_ciphertexts_are_split_rather_than_parsed() -> None:
    for elements in ([b"\xc1", b"\x01"], [b"\xc1", None], ["ks1.A", "ks1.B"], [1, 2]):
        assert parameter(elements)[0] == SPLIT
