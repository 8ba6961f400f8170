"""What counts as equal: the value that a column gives back is found, however it was written, and nothing else is."""

from __future__ import annotations

import enum
import pickle
import uuid
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.fields import NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install
from keyside.sqlalchemy.living import backfill
from sqlalchemy.exc import IntegrityError


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Lower(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()


METADATA = sa.MetaData()
KEY = uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")
TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "amount": sa.Numeric(10, 2),
    "ratio": sa.Float(),
    "count": sa.Integer(),
    "color": sa.Enum(Color),
    "key": sa.Uuid(),
    "word": Lower(),
    "text": sa.String(),
    "born": sa.Date(),
    "data": sa.JSON(),
    "blob": sa.LargeBinary(),
}
THINGS = sa.Table(
    "things",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    *[sa.Column(name, Encrypted(type_, "k")) for name, type_ in TYPES.items()],
    *[sa.Column(f"{name}_index", BlindIndex(name), unique=True) for name in TYPES],
    sa.Column("phone", Encrypted(sa.String, "k", storage="text")),
    sa.Column("phone_index", BlindIndex("phone", normalize="digits")),
)
C = THINGS.c
IDS = sa.select(C.id).order_by(C.id)


@pytest.fixture
def connection(client: Client) -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    install(engine, client, unbatched="error")
    METADATA.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


ALIKE: list[tuple[str, Any, Any]] = [
    ("amount", 5, Decimal("5.00")),
    ("amount", "5.0", 5.0),
    ("ratio", 5, 5.0),
    ("ratio", Decimal("0.5"), 0.5),
    ("count", True, 1),
    ("color", "RED", Color.RED),
    ("key", str(KEY), KEY),
    ("word", "ABC", "abc"),
    ("data", {"b": 1, "a": [2]}, {"a": [2], "b": 1}),
    ("blob", bytearray(b"x" * 16), b"x" * 16),
]


@pytest.mark.parametrize(("name", "written", "other"), ALIKE)
def test_what_is_read_is_found(connection: sa.Connection, client: Client, name: str, written: Any, other: Any) -> None:
    connection.execute(sa.insert(THINGS), [{"id": 1, name: written}])
    (read,) = connection.scalars(sa.select(C[name]))
    assert read == other
    for value in (written, read, other):
        assert connection.scalars(IDS.where(C[name] == value)).all() == [1], value
        assert connection.scalars(IDS.where(C[name].in_([value]))).all() == [1]
    index = connection.scalars(sa.select(sa.type_coerce(C[f"{name}_index"], sa.LargeBinary))).all()
    connection.execute(sa.text(f"UPDATE things SET {name}_index = NULL"))
    backfill(connection, C[name], client)
    assert connection.scalars(sa.select(sa.type_coerce(C[f"{name}_index"], sa.LargeBinary))).all() == index
    with pytest.raises(IntegrityError):
        connection.execute(sa.insert(THINGS), [{"id": 2, name: other}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "5"),
        ("count", 5.0),
        ("text", 5),
        ("amount", "none"),
        ("amount", Decimal("NaN")),
        ("color", 5),
        ("key", "x"),
        ("born", "2024-01-02"),
        ("word", 5),
        ("text", b"x" * 33),
        ("text", b""),
    ],
)
def test_a_value_that_the_column_cannot_hold_is_no_search(connection: sa.Connection, name: str, value: Any) -> None:
    for condition in (C[name] == value, C[name] != value, C[name].in_([value]), C[f"{name}_index"] == value):
        with pytest.raises(NotSearchable, match=f"{name}: the value is not of the column's type") as caught:
            connection.execute(IDS.where(condition))
        assert f"{value!r} " not in str(caught.value)


def test_an_index_that_was_read_is_compared_as_it_is(connection: sa.Connection) -> None:
    """Rows with equal values, the way that one looks for them in plain columns."""
    rows = [{"id": n, "phone": phone} for n, phone in enumerate(["1", "2", "(2)", None, "none"], 1)]
    connection.execute(sa.insert(THINGS), rows)
    several = sa.select(C.phone_index).group_by(C.phone_index).having(sa.func.count(C.phone_index) > 1)
    found = connection.scalars(several).all()
    assert len(found) == 1
    assert connection.scalars(IDS.where(C.phone_index.in_(found))).all() == [2, 3]
    assert connection.scalars(IDS.where(C.phone_index == found[0])).all() == [2, 3]
    assert connection.scalars(IDS.where(C.phone_index.in_(several))).all() == [2, 3]
    again = pickle.loads(pickle.dumps(found))
    assert connection.scalars(IDS.where(C.phone_index.in_(again))).all() == [2, 3]


@pytest.mark.parametrize("value", [b"12", bytearray(b"12"), memoryview(b"12")])
def test_bytes_that_are_no_index_do_not_reach_the_database(connection: sa.Connection, value: bytes) -> None:
    """They may be the value, of an application that holds it as bytes."""
    executed: list[str] = []
    sa.event.listen(connection, "before_cursor_execute", lambda *call: executed.append(str(call[3])))
    for condition in (C.phone == value, C.phone.in_([value]), C.phone_index == value, C.phone_index != value):
        with pytest.raises(NotSearchable, match="not of the column's type"):
            connection.execute(IDS.where(condition))
    assert executed
    assert not any("12" in parameters for parameters in executed)


def test_a_value_without_an_index_is_not_equal(connection: sa.Connection) -> None:
    rows = [{"id": n, "phone": phone} for n, phone in enumerate(["none", "12", None], 1)]
    connection.execute(sa.insert(THINGS), rows)
    other = THINGS.alias()
    for phone, ids in ((C.phone, IDS), (other.c.phone, sa.select(other.c.id).order_by("id"))):
        for condition in (phone != "12", phone.not_in(["12", "3"]), ~(phone == "12"), ~phone.in_(["12"])):
            assert connection.scalars(ids.where(condition)).all() == [1]
        for condition in (phone == "12", phone.in_(["12"]), ~(phone != "12"), phone.is_not_distinct_from("12")):
            assert connection.scalars(ids.where(condition)).all() == [2]
        assert connection.scalars(ids.where(phone.is_distinct_from("12"))).all() == [1, 3]
        assert connection.scalars(ids.where(~phone.is_distinct_from("12"))).all() == [2]


def test_dates_are_no_datetimes(connection: sa.Connection) -> None:
    connection.execute(sa.insert(THINGS), [{"id": 1, "born": date(2024, 1, 2)}])
    assert connection.scalars(IDS.where(C.born == date(2024, 1, 2))).all() == [1]
