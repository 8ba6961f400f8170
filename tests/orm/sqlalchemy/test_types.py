"""Every column type keeps its Python type, in both forms of storage."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.fields import FieldUnreadable, FieldUnwritable, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install
from keyside.testing import assert_round_trips


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Lowered(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return value and value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return value and f"<{value}>"


NOON = datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=UTC)
VALUES: list[tuple[Any, list[Any]]] = [
    (sa.String(50), ["", "zoë \U0001f511", "ks1.not", "a" * 5000]),
    (sa.Text(), ["long"]),
    (sa.Unicode(10), ["ü"]),
    (sa.LargeBinary(), [b"", b"\xc1\x01" + bytes(40)]),
    (sa.Integer(), [0, -1, 2**40]),
    (sa.BigInteger(), [2**63]),
    (sa.Boolean(), [True, False]),
    (sa.Float(), [1.5, -0.0]),
    (sa.Numeric(10, 2), [Decimal("1.50"), Decimal("-0.01")]),
    (sa.Numeric(asdecimal=False), [2.5]),
    (sa.Date(), [date(2024, 2, 29)]),
    (sa.Time(), [time(1, 2, 3, 4)]),
    (sa.DateTime(), [datetime(2024, 2, 29, 1, 2)]),
    (sa.DateTime(timezone=True), [NOON]),
    (sa.Interval(), [timedelta(days=-1, microseconds=3)]),
    (sa.Uuid(), [uuid.UUID(int=5)]),
    (sa.Uuid(as_uuid=False), [str(uuid.UUID(int=6))]),
    (sa.Enum(Size), [Size.SMALL]),
    (sa.Enum("a", "b"), ["b"]),
    (sa.JSON(), [{"b": [1, None], "a": "ü"}, [1], "x", 5, True]),
    (sa.ARRAY(sa.String), [["a", None, ""], []]),
    (sa.ARRAY(sa.Enum(Size)), [[Size.LARGE]]),
    (sa.ARRAY(sa.Integer, as_tuple=True), [(1, 2)]),
]
IDS = [f"{type_!r}" for type_, _ in VALUES]


@pytest.fixture
def connection(client: Client) -> Any:
    engine = sa.create_engine("sqlite://")
    install(engine, client, unbatched="error")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def table_of(type_: Any, **options: Any) -> sa.Table:
    return sa.Table(
        "t",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", Encrypted(type_, keyring="k", **options)),
    )


@pytest.mark.parametrize("storage", ["bytes", "text", sa.String(9000)], ids=str)
@pytest.mark.parametrize(("type_", "values"), VALUES, ids=IDS)
def test_values_come_back_as_they_went(connection: Any, type_: Any, values: list[Any], storage: Any) -> None:
    table = table_of(type_, storage=storage)
    table.create(connection)
    with assert_round_trips(max=1):
        connection.execute(sa.insert(table), [{"value": value} for value in [*values, None]])
    with assert_round_trips(max=1):
        read = connection.scalars(sa.select(table.c.value).order_by(table.c.id)).all()
    assert read == [*values, None]
    assert [type(value) for value in read[:-1]] == [type(value) for value in values]
    stored = connection.exec_driver_sql("SELECT value FROM t").scalars().all()
    assert {type(value) for value in stored[:-1]} == {bytes if storage == "bytes" else str}
    assert stored[-1] is None


def test_types_of_the_application(connection: Any) -> None:
    table = table_of(Lowered())
    table.create(connection)
    connection.execute(sa.insert(table), {"value": "ABC"})
    assert connection.scalar(sa.select(table.c.value)) == "<abc>"


def test_a_type_says_which_values_are_equal() -> None:
    class Loose(Lowered):
        cache_ok = True

        def compare_values(self, x: Any, y: Any) -> bool:
            return bool(x.lower() == y.lower())

    assert Encrypted(Loose, keyring="k").compare_values("A", "a")
    assert not Encrypted(Lowered, keyring="k").compare_values("A", "a")


def test_json_functions_of_the_engine(client: Client) -> None:
    seen: list[str] = []

    def dumps(value: Any) -> str:
        seen.append("dumps")
        return f'{{"wrapped": "{value}"}}'

    def loads(text: str) -> Any:
        return text

    engine = sa.create_engine("sqlite://", json_serializer=dumps, json_deserializer=loads)
    install(engine, client)
    table = table_of(sa.JSON())
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(sa.insert(table), {"value": Decimal(1)})
        assert connection.scalar(sa.select(table.c.value)) == '{"wrapped": "1"}'
    assert seen == ["dumps"]
    engine.dispose()


def test_a_type_that_was_changed_is_told_and_not_guessed(connection: Any) -> None:
    table_of(sa.String()).create(connection)
    connection.execute(sa.insert(table_of(sa.String())), {"value": "5"})
    with pytest.raises(FieldUnreadable, match="not the encoding of the column's type"):
        connection.scalar(sa.select(table_of(sa.Integer()).c.value))


def test_columns_share_a_type_and_not_a_context(connection: Any) -> None:
    shared = Encrypted(sa.String(), keyring="k")
    columns: list[sa.Column[Any]] = [sa.Column(name, shared) for name in ("a", "b")]
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *columns)
    table.create(connection)
    connection.execute(sa.insert(table), {"a": "1", "b": "2"})
    assert connection.execute(sa.select(table.c.a, table.c.b)).one() == ("1", "2")
    connection.exec_driver_sql("UPDATE t SET b = a")
    with pytest.raises(FieldUnreadable, match=r"t\.b"):
        connection.execute(sa.select(table.c.a, table.c.b)).one()
    copied = table.to_metadata(sa.MetaData(), name="u")
    copied.create(connection)
    connection.exec_driver_sql("INSERT INTO u SELECT * FROM t")
    with pytest.raises(FieldUnreadable, match=r"u\.a"):
        connection.execute(sa.select(copied.c.a)).one()


PLAIN: list[tuple[Any, Any, Any, str]] = [
    (sa.String(), "text", "secret", "secret"),
    (sa.Date(), "text", date(2024, 2, 29), "2024-02-29"),
    (sa.Boolean(), "text", True, "true"),
    (sa.Integer(), "text", 42, "42"),
    (sa.Numeric(), "text", Decimal("1.5"), "1.5"),
    (sa.Uuid(), "text", uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (sa.Interval(), "text", timedelta(seconds=2), "2.0"),
    (sa.Enum(Size), "text", Size.LARGE, "LARGE"),
    (sa.JSON(), "text", {"a": 1}, '{"a": 1}'),
    (sa.ARRAY(sa.Integer), "text", [1], '["1"]'),
    (sa.LargeBinary(), "bytes", b"secret", "secret"),
]


@pytest.mark.parametrize(("type_", "storage", "value", "plain"), PLAIN, ids=lambda v: repr(v)[:20])
def test_a_column_moves_from_plaintext_to_ciphertext(
    connection: Any, type_: Any, storage: Any, value: Any, plain: str
) -> None:
    def stored() -> list[Any]:
        return [s.decode() if isinstance(s, bytes) and s[:1] != b"\xc1" else s for s in connection.exec_driver_sql(
            "SELECT value FROM t ORDER BY id").scalars()]  # fmt: skip

    stages: dict[str | None, Callable[[], sa.Table]] = {
        stage: lambda stage=stage: table_of(type_, storage=storage, migrating=stage)  # type: ignore[misc]  # bound early
        for stage in ("plain", "plaintext", None)
    }
    table = stages["plain"]()
    table.create(connection)
    connection.execute(sa.insert(table), [{"value": value}, {"value": None}])
    assert stored() == [plain, None]
    connection.execute(sa.insert(stages["plaintext"]()), {"value": value})
    for stage in ("plain", "plaintext"):
        with assert_round_trips(max=1):
            assert connection.scalars(sa.select(stages[stage]().c.value)).all() == [value, None, value]
    assert stored()[2] != plain
    with pytest.raises(FieldUnreadable):
        connection.scalars(sa.select(stages[None]().c.value)).all()


@pytest.mark.parametrize("normalize", ["exact", "casefold"])
def test_a_search_finds_rows_that_are_not_encrypted_yet(connection: Any, normalize: str) -> None:
    def people(stage: str | None) -> sa.Table:
        return sa.Table(
            "t",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", Encrypted(sa.String, keyring="k", storage="text", migrating=stage)),
            sa.Column("name_index", BlindIndex("name", normalize=normalize)),
        )

    table = people("plaintext")
    table.create(connection)
    connection.exec_driver_sql("INSERT INTO t VALUES (1, 'Ann', NULL), (2, 'Bob', NULL), (3, NULL, NULL)")
    connection.execute(sa.insert(table), [{"id": 4, "name": "Ann"}, {"id": 5, "name": "Bob"}])
    ids = sa.select(table.c.id).order_by(table.c.id)
    ann = "Ann" if normalize == "exact" else "ANN"
    assert connection.scalars(ids.where(table.c.name == ann)).all() == [1, 4]
    assert connection.scalars(ids.where(table.c.name.in_([ann, "nobody"]))).all() == [1, 4]
    assert connection.scalars(ids.where(table.c.name != ann)).all() == [2, 5]
    assert connection.scalars(ids.where(table.c.name.not_in([ann]))).all() == [2, 5]
    assert connection.scalars(ids.where(sa.not_(table.c.name == ann))).all() == [2, 5]
    assert connection.scalars(ids.where(sa.not_(table.c.name.in_([ann])))).all() == [2, 5]
    assert connection.scalars(ids.where(table.c.name.is_distinct_from(ann))).all() == [2, 3, 5]
    given = {"x": ann, "many": [ann, "nobody"]}
    for condition in (
        table.c.name == sa.bindparam("x"),
        table.c.name == sa.bindparam("x", type_=sa.String),
        table.c.name == sa.literal(ann),
        table.c.name.in_({ann}),
        table.c.name.in_(one for one in [ann]),
        table.c.name.in_({ann: 1}.keys()),
        table.c.name.in_([sa.bindparam("x"), "nobody"]),
        table.c.name.in_(sa.bindparam("many", expanding=True)),
        table.c.name.in_([ann, None]),
        table.c.name.is_not_distinct_from(sa.bindparam("x")),
        sa.or_(table.c.name == sa.bindparam("x"), table.c.id == sa.bindparam("z", 0)),
    ):
        for _ in range(2):
            assert connection.scalars(ids.where(condition), given).all() == [1, 4]
    for wrong in (table.c.name == 5, table.c.name.in_([5]), table.c.name == sa.bindparam("y", 5)):
        with pytest.raises(NotSearchable, match="not of the column's type"):
            connection.execute(ids.where(wrong))
    text = "y"
    with pytest.raises(NotSearchable, match="variable of a lambda"):
        connection.execute(sa.lambda_stmt(lambda: ids) + (lambda s: s.where(table.c.name == text)))


def test_plaintext_that_is_looked_for_is_not_shown(connection: Any) -> None:
    table = table_of(sa.String(), storage="text", migrating="plaintext")
    table.append_column(sa.Column("value_index", BlindIndex("value")))
    table.create(connection)
    shown: list[Any] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        shown.append(repr(parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    connection.execute(sa.select(table.c.id).where(table.c.value == "tell-nobody")).all()
    assert shown == ["('ks1.wQ', <encrypted>, 'ks1.wQ', <encrypted>)"]


@pytest.mark.parametrize(
    ("type_", "value", "stored"), [(sa.Date(), date(2024, 2, 29), "2024-02-29"), (sa.Integer(), 42, "42")]
)
def test_plaintext_of_any_type_is_looked_for(connection: Any, type_: Any, value: Any, stored: str) -> None:
    table = table_of(type_, storage="text", migrating="plaintext")
    table.append_column(sa.Column("value_index", BlindIndex("value")))
    table.create(connection)
    connection.exec_driver_sql("INSERT INTO t VALUES (1, ?, NULL)", (stored,))
    connection.execute(sa.insert(table), {"id": 2, "value": value})
    assert sorted(connection.scalars(sa.select(table.c.id).where(table.c.value == value))) == [1, 2]
    assert connection.scalars(sa.select(table.c.id).where(table.c.value != value)).all() == []


@pytest.mark.parametrize(("type_", "given"), [(sa.Enum(Size), "nope"), (sa.Enum(Size), "small"), (sa.Enum("a"), "b")])
def test_what_is_no_member_of_an_enum_is_not_written(connection: Any, type_: Any, given: str) -> None:
    """A plain column's database refuses it; written, each read of the row would raise."""
    table = table_of(type_)
    table.create(connection)
    for written in (sa.insert(table), sa.update(table)):
        with pytest.raises(FieldUnwritable):
            connection.execute(written.values(value=given))
