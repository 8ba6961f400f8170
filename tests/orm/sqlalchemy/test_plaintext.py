"""Columns that still hold plaintext: it is read, found and written as a plain column would, and shown to nobody."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.fields import FieldUnwritable, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install, uninstall
from keyside.sqlalchemy.living import backfill, decrypt_column

from tests.orm.sqlalchemy.conftest import url


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Lower(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()


KINDS: dict[str, tuple[sa.types.TypeEngine[Any], str, Any, Any]] = {
    "text": (sa.String(), "abc", "abc", "x"),
    "count": (sa.Integer(), "5", 5, 6),
    "flag": (sa.Boolean(), "true", True, False),
    "born": (sa.Date(), "2024-01-02", date(2024, 1, 2), date(2024, 1, 3)),
    "amount": (sa.Numeric(10, 2), "3.50", Decimal("3.50"), 4),
    "ratio": (sa.Float(), "3.5", 3.5, 4.5),
    "color": (sa.Enum(Color), "RED", Color.RED, Color.BLUE),
    "word": (Lower(), "abc", "ABC", "x"),
}


def table(name: str, storage: Any, migrating: str | None) -> sa.Table:
    return sa.Table(
        f"plain_{storage}",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", Encrypted(KINDS[name][0], "k", storage=storage, migrating=migrating)),
        sa.Column("value_index", BlindIndex("value")),
    )


@pytest.fixture(params=["sqlite", "psycopg", "psycopg2", "pymysql"])
def engine(request: pytest.FixtureRequest, client: Client, tmp_path: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url(request.param, request, tmp_path))
    install(engine, client, unbatched="error")
    yield engine
    uninstall(engine)
    engine.dispose()


@pytest.mark.parametrize("storage", ["text", "bytes"])
def test_every_kind_is_read_and_found_before_and_after_it_is_encrypted(
    engine: sa.Engine, client: Client, storage: Any
) -> None:
    for name, (_, stored, value, other) in KINDS.items():
        dual = table(name, storage, "plaintext")
        dual.metadata.drop_all(engine)
        dual.metadata.create_all(engine)
        plain = sa.table(
            dual.name, sa.column("id"), sa.column("value", sa.Text if storage == "text" else sa.LargeBinary)
        )
        ids = sa.select(dual.c.id).order_by("id")
        with engine.begin() as connection:
            given = stored if storage == "text" else stored.encode()
            connection.execute(sa.insert(plain), [{"id": 1, "value": given}, {"id": 3, "value": None}])
            connection.execute(sa.insert(dual), [{"id": 2, "value": other}])
            for _ in range(2):
                read = connection.scalars(sa.select(dual.c.value).order_by("id")).all()
                assert [type(one) for one in read[:2]] == [type(read[0])] * 2
                assert read[0] == (value if name != "word" else "abc")
                for searched, found, rest in ((value, 1, 2), (read[0], 1, 2), (other, 2, 1)):
                    column = dual.c.value
                    for condition in (column == searched, column.in_([searched]), ~(column != searched)):
                        assert connection.scalars(ids.where(condition)).all() == [found], (name, searched)
                    for condition in (column != searched, column.not_in([searched]), ~(column == searched)):
                        assert connection.scalars(ids.where(condition)).all() == [rest], (name, searched)
                    distinct = ids.where(column.is_distinct_from(searched))
                    assert connection.scalars(distinct).all() == sorted([rest, 3]), (name, searched)
                backfill(connection, dual.c.value, client)
            decrypt_column(connection, table(name, storage, "plain").c.value, client)
            assert connection.scalar(sa.select(plain.c.value).where(plain.c.id == 1)) == given
        dual.metadata.drop_all(engine)


@pytest.mark.parametrize("migrating", ["plain", "plaintext"])
def test_no_value_is_shown_while_plaintext_is_written_and_looked_for(
    engine: sa.Engine, migrating: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = table("text", "text", migrating)
    secret.metadata.drop_all(engine)
    secret.metadata.create_all(engine)
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    found = sa.select(secret.c.id).where(secret.c.value.in_(["SECRET", "SECRET2"]))
    with engine.begin() as connection:
        connection.execute(sa.insert(secret), [{"id": 1, "value": "SECRET"}, {"id": 2, "value": "other"}])
        connection.execute(sa.update(secret).where(secret.c.id == 2).values(value="SECRET2"))
        assert connection.scalars(found.order_by("id")).all() == [1, 2]
    failures: list[Any] = [
        sa.insert(secret).values(id=1, value="SECRET"),
        sa.select(sa.literal_column("nothing")).where(secret.c.value == "SECRET"),
    ]
    for failing in failures:
        with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
            connection.execute(failing)
        assert "<encrypted>" in str(caught.value).partition("[SQL")[2]
        assert "SECRET" not in str(caught.value).partition("[SQL")[2]
    assert "SECRET" not in caplog.text
    assert "<encrypted>" in caplog.text
    literal = found.compile(engine, compile_kwargs={"literal_binds": True})
    assert "SECRET" not in str(literal)
    secret.metadata.drop_all(engine)


def test_what_does_not_fit_is_refused_in_every_stage(client: Client) -> None:
    engine = sa.create_engine("sqlite://")
    install(engine, client)
    for name, wrong in (("count", "SECRET"), ("ratio", "SECRET"), ("born", "SECRET"), ("word", 5)):
        for migrating in ("plain", "plaintext", None):
            refusing = table(name, "text", migrating)
            refusing.metadata.create_all(engine)
            with engine.connect() as connection:
                with pytest.raises(FieldUnwritable) as unwritable:
                    connection.execute(sa.insert(refusing).values(id=1, value=wrong))
                with pytest.raises(NotSearchable) as unsearchable:
                    connection.execute(sa.select(refusing.c.id).where(refusing.c.value == wrong))
                assert "SECRET" not in f"{unwritable.value}{unsearchable.value}"
            refusing.metadata.drop_all(engine)
    engine.dispose()


@pytest.mark.parametrize("storage", ["text", "bytes"])
@pytest.mark.parametrize("normalize", ["exact", "casefold", "trim", "digits"])
def test_an_index_is_believed_of_ciphertext_alone(
    engine: sa.Engine, client: Client, storage: Any, normalize: Any
) -> None:
    """The release before changes plaintext beside this one, and knows no index."""

    def stage(migrating: str | None) -> sa.Table:
        return sa.Table(
            "moved",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("value", Encrypted(sa.String, "k", storage=storage, migrating=migrating)),
            sa.Column("value_index", BlindIndex("value", normalize=normalize)),
        )

    plain, dual = stage("plain"), stage("plaintext")
    before = sa.table("moved", sa.column("id"), sa.column("value", sa.Text if storage == "text" else sa.LargeBinary))

    def ids(table: sa.Table, condition: Any) -> list[int]:
        return list(connection.scalars(sa.select(table.c.id).where(condition).order_by("id")))

    plain.metadata.drop_all(engine)
    plain.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(plain), [{"id": 1, "value": "first 1"}, {"id": 2, "value": None}])
        connection.execute(sa.insert(dual), [{"id": 3, "value": "third 3"}, {"id": 4, "value": "none"}])
        second = "Zweite Ä 2"
        connection.execute(
            sa.update(before).where(before.c.id == 1).values(value=second if storage == "text" else second.encode())
        )
        for table in (plain, dual):
            value = table.c.value
            assert ids(table, value == second) == ids(table, value.in_([second])) == [1]
            assert ids(table, value == "first 1") == []
            assert ids(table, value == "third 3") == [3]
            assert ids(table, value != second) == ids(table, ~(value == second)) == [3, 4]
            assert ids(table, value != "third 3") == ids(table, value.not_in(["third 3"])) == [1, 4]
            assert ids(table, value.is_distinct_from("third 3")) == [1, 2, 4]
        backfill(connection, dual.c.value, client)
        assert ids(dual, dual.c.value == second) == [1]
        assert ids(dual, dual.c.value == "first 1") == []
    plain.metadata.drop_all(engine)


def test_an_update_may_look_for_plaintext_of_a_partition(engine: sa.Engine) -> None:
    plain = sa.Table(
        "parted",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("clinic", sa.Integer),
        sa.Column("value", Encrypted(sa.String, "k", partition="clinic", storage="text", migrating="plain")),
        sa.Column("value_index", BlindIndex("value")),
        sa.Column("note", sa.String(9)),
    )
    plain.metadata.drop_all(engine)
    plain.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(plain), [{"id": 1, "clinic": 1, "value": "a"}, {"id": 2, "clinic": 2, "value": "a"}]
        )
        noted = sa.update(plain).values(note="x").where(plain.c.value == "a")
        assert connection.execute(noted.where(plain.c.clinic == 1)).rowcount == 1
        assert connection.execute(noted).rowcount == 2
    plain.metadata.drop_all(engine)
