"""Unions of different columns: no row tells what it holds, so nothing is opened or found in them by the wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from keyside import Client
from keyside.fields import NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    case,
    create_engine,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

METADATA = MetaData()


def table(name: str, context: str = "", **options: Any) -> Table:
    return Table(
        name,
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", Encrypted(String, keyring="people", context=context, **options)),
        Column("name_index", BlindIndex("name", context=f"{context}_index" if context else "")),
        Column("nick", Encrypted(String, keyring="people")),
        Column("plain", String),
        Column("raw", LargeBinary),
    )


ANN, BOB = table("ann"), table("bob")
ONE, TWO = table("one", "people.name"), table("two", "people.name")
MIGRATING, TEXT = (
    table("migrating", "people.name", storage="text", migrating="plaintext"),
    table("text", "people.name", storage="text"),
)


class Base(DeclarativeBase):
    pass


class Person(ConcreteBase, Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Encrypted(String, keyring="people"))
    name_index: Mapped[bytes] = mapped_column(BlindIndex("name"))
    __mapper_args__ = {"polymorphic_identity": "person", "concrete": True}  # noqa: RUF012  as SQLAlchemy documents it


class Doctor(Person):
    __tablename__ = "doctor"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Encrypted(String, keyring="people"))
    name_index: Mapped[bytes] = mapped_column(BlindIndex("name"))
    __mapper_args__ = {"polymorphic_identity": "doctor", "concrete": True}  # noqa: RUF012  as SQLAlchemy documents it


@pytest.fixture
def engine(client: Client) -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    METADATA.create_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for number, one in enumerate((ANN, BOB, ONE, TWO, TEXT)):
            connection.execute(insert(one), [{"id": number, "name": "ann"}])
    yield engine
    engine.dispose()


def both(one: Table, two: Table) -> Any:
    return union_all(*[select(side.c.id, side.c.name, side.c.name_index) for side in (one, two)]).subquery()


def test_an_index_of_two_kinds_is_neither_searched_nor_grouped(engine: Engine) -> None:
    of_both = both(ANN, BOB)
    for statement in (
        select(of_both.c.id).where(of_both.c.name_index == "ann"),
        select(of_both.c.id).where(of_both.c.name_index != "ann"),
        select(of_both.c.id).where(of_both.c.name_index.in_(["ann"])),
        select(func.count()).select_from(of_both).group_by(of_both.c.name_index),
        select(of_both.c.id).join(ANN, ANN.c.name_index == of_both.c.name_index),
    ):
        with engine.connect() as connection, pytest.raises(NotSearchable, match="a union with another column"):
            connection.execute(statement)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(of_both).where(of_both.c.name.is_not(None))) == 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (ANN.c.name, BOB.c.name),
        (ANN.c.name, BOB.c.plain),
        (BOB.c.plain, ANN.c.name),
        (ANN.c.name, literal("x")),
        (ANN.c.name_index, BOB.c.raw),
        (ANN.c.name_index, BOB.c.name_index),
        (MIGRATING.c.name, TEXT.c.name),
        (TEXT.c.name, MIGRATING.c.name),
    ],
)
def test_values_of_two_kinds_are_not_selected(engine: Engine, one: Any, two: Any) -> None:
    statement = union_all(select(one), select(two))
    within = statement.subquery()
    nested = union_all(select(null()), statement)
    with engine.connect() as connection:
        for selected in (statement, nested, select(within), select(within.c[0].label("x"))):
            with pytest.raises(NotSearchable, match="a union with another column"):
                connection.execute(selected)


def test_columns_declared_alike_are_one_kind(engine: Engine) -> None:
    of_both = both(ONE, TWO)
    with engine.connect() as connection:
        assert connection.execute(select(of_both.c.id, of_both.c.name)).all() == [(2, "ann"), (3, "ann")]
        assert connection.scalars(select(of_both.c.id).where(of_both.c.name_index == "ann")).all() == [2, 3]
        counted = select(func.count()).select_from(of_both).group_by(of_both.c.name_index)
        assert connection.scalars(counted).all() == [2]


def test_a_concrete_hierarchy_is_not_searched_by_the_index_of_one_table(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([Person(id=1, name="ann"), Doctor(id=2, name="ann")])
        session.commit()
        for statement in (select(Person.id).where(Person.name == "ann"), select(Person)):
            with pytest.raises(NotSearchable, match="a union with another column"):
                session.execute(statement)
        assert session.scalars(select(Doctor.id).where(Doctor.name == "ann")).all() == [2]
        assert session.scalars(select(Person.id).order_by(Person.id)).all() == [1, 2]


def test_a_case_gives_one_kind_of_value(engine: Engine) -> None:
    for result in (literal("none"), ANN.c.plain, ANN.c.nick, ANN.c.name_index):
        for mixed in (case((ANN.c.id == 1, result), else_=ANN.c.name), case((ANN.c.id == 1, ANN.c.name), else_=result)):
            with engine.connect() as connection, pytest.raises(NotSearchable, match="CASE with another value"):
                connection.execute(select(mixed))
            with engine.connect() as connection, pytest.raises(NotSearchable, match=r"another (value|column)"):
                connection.execute(update(ANN).values(plain=mixed))
    with engine.connect() as connection:
        assert connection.scalars(select(case((ANN.c.id == 1, None), else_=ANN.c.name))).all() == ["ann"]


def test_ciphertext_is_not_written_to_another_column(engine: Engine) -> None:
    upsert = sqlite.insert(ANN).values(id=0, name="bob")
    written = (
        update(ANN).values(plain=ANN.c.name),
        update(ANN).values(plain=case((ANN.c.id == 0, ANN.c.name))),
        upsert.on_conflict_do_update(index_elements=["id"], set_={"plain": upsert.excluded.name}),
        upsert.on_conflict_do_update(index_elements=["id"], set_={ANN.c.raw: upsert.excluded.name_index}),
    )
    for statement in written:
        with engine.connect() as connection, pytest.raises(NotSearchable, match="writing it to another column"):
            connection.execute(statement)


def test_positions_name_columns_as_well(engine: Engine) -> None:
    for statement in (
        select(ANN.c.name, ANN.c.id).order_by(text("1")),
        select(ANN.c.id, ANN.c.name).order_by(text("1, 2 desc")),
        select(ANN.c.name, func.count()).group_by(literal_column("1")),
        union_all(select(ANN.c.name), select(ANN.c.name)).order_by(text("1")),
    ):
        with engine.connect() as connection, pytest.raises(NotSearchable, match=r"(ORDER|GROUP) BY [12] cannot"):
            connection.execute(statement)
    numbered = func.row_number().over(order_by=literal_column("1"))
    with engine.connect() as connection:
        assert connection.execute(select(ANN.c.name, numbered).order_by(text("2"))).all() == [("ann", 1)]
        assert connection.execute(select(ANN.c.name, ANN.c.id).where(text("1"))).all() == [("ann", 0)]
