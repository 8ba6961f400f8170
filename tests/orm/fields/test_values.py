"""docs/spec/values.md against its vectors."""

from __future__ import annotations

import enum
import json
import traceback
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyside.fields import Field, last, normalization
from keyside.values import InvalidValue, Json, Kind, Label, decode, encode

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "values.json").read_text())

READ: dict[str, Any] = {
    "text": str,
    "bytes": bytes.fromhex,
    "integer": int,
    "float": float,
    "decimal": Decimal,
    "boolean": bool,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": datetime.fromisoformat,
    "duration": lambda n: timedelta(microseconds=int(n)),
    "uuid": uuid.UUID,
    "enumeration": Label,
    "json": Json,
    "array": list,
}


@pytest.mark.parametrize("case", VECTORS["values"], ids=lambda case: case["comment"])
def test_values_are_written_and_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    value = READ[case["kind"]](case["value"])
    assert encode(value).hex() == case["encoding"]
    assert encode(value, canonical=True).hex() == case["canonical"]
    read = decode(bytes.fromhex(case["encoding"]))
    assert read == (value.value if isinstance(value, Json) else value)
    assert type(read) is (type(value.value) if isinstance(value, Json) else type(value))


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["comment"])
def test_what_is_no_encoding_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        decode(bytes.fromhex(case["encoding"]))


@pytest.mark.parametrize("case", VECTORS["normalize"], ids=lambda case: f"{case['normalize']} {case['text']!r}")
def test_normalisations(case: dict[str, Any]) -> None:
    name = case["normalize"]
    chosen = last(int(name[5:-1])) if name.startswith("last") else normalization(name)
    assert (chosen.name, chosen.apply(case["text"])) == (name, case["result"])


@pytest.mark.parametrize("case", VECTORS["contexts"], ids=lambda case: case["context"])
def test_contexts(case: dict[str, Any]) -> None:
    field = Field(case["table"], case["column"], "k", bind=tuple("abc"[: len(case["key"])]))
    key = tuple(READ[part["kind"]](part["value"]) for part in case["key"])
    assert field.row_context(key).hex() == case["context"]


class Colour(enum.Enum):
    RED = "the value is not what is stored"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Colour.RED, Kind.ENUMERATION),
        ({"a": 1}, Kind.JSON),
        ((1, 2), Kind.ARRAY),
        (bytearray(b"x"), Kind.BYTES),
        (memoryview(b"x"), Kind.BYTES),
        (True, Kind.BOOLEAN),
        (datetime(2024, 1, 1), Kind.DATETIME),
    ],
)
def test_python_types_and_their_kinds(value: object, kind: Kind) -> None:
    assert encode(value)[0] == kind


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        "\ud800secret",
        Json({1}),
        Json(float("nan")),
        [object()],
        {"secret": object()},
        Decimal("sNaN"),
    ],
)
def test_what_cannot_be_encoded_is_refused_and_never_quoted(value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode(value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [float("nan"), Decimal("NaN"), Decimal("1E+5000")])
def test_what_has_no_canonical_form(value: object) -> None:
    assert encode(value)
    with pytest.raises(InvalidValue):
        encode(value, canonical=True)


def test_a_zone_keeps_its_offset_and_equal_instants_are_equal() -> None:
    berlin = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    tokyo = berlin.astimezone(ZoneInfo("Asia/Tokyo"))
    read = decode(encode(berlin))
    assert read == berlin
    assert read.utcoffset() == berlin.utcoffset()
    assert encode(berlin) != encode(tokyo)
    assert encode(berlin, canonical=True) == encode(tokyo, canonical=True)


SCALARS = (
    st.text() | st.binary() | st.integers() | st.booleans() | st.dates() | st.times() | st.datetimes() | st.uuids()
    | st.floats(allow_nan=False) | st.decimals(allow_nan=False) | st.timedeltas()
)  # fmt: skip


@given(st.recursive(SCALARS, lambda inner: st.lists(inner | st.none(), max_size=4), max_leaves=8))
def test_whatever_is_encoded_is_read_back(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=40))
def test_bytes_from_anywhere_decode_or_are_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except InvalidValue:
        return
    if data[0] not in (Kind.JSON, Kind.ARRAY, Kind.FLOAT):
        assert encode(value) == data
