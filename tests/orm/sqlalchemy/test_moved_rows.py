"""Objects whose rows another transaction, a relationship or the database moves to another partition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keyside import AsyncClient, Client
from keyside.fields import BindingMissing, FieldUnreadable
from keyside.sqlalchemy import BlindIndex, Encrypted, install, uninstall
from keyside.testing import assert_round_trips
from keyside.testing.server import Twin
from sqlalchemy import Engine, ForeignKey, String, create_engine, event, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError

from tests.orm.sqlalchemy.accounts import stored
from tests.orm.sqlalchemy.conftest import url


class Base(DeclarativeBase):
    pass


class Stay(Base):
    """Two columns of one partition."""

    __tablename__ = "stays"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    clinic: Mapped[int]
    reason: Mapped[str | None] = mapped_column(Encrypted(String(40), keyring="patients", partition="clinic"))
    reason_index: Mapped[bytes | None] = mapped_column(BlindIndex("reason"))
    report: Mapped[str | None] = mapped_column(Encrypted(String(40), keyring="patients", partition="clinic"))


TABLE: Any = Stay.__table__


@pytest.fixture
def stays(engine: Engine) -> Iterator[Engine]:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    fill(engine)
    yield engine
    Base.metadata.drop_all(engine)


@pytest.fixture
def stay(sqlite: Engine) -> Engine:
    Base.metadata.create_all(sqlite)
    fill(sqlite)
    return sqlite


def fill(engine: Engine, clinic: int = 1) -> None:
    with Session(engine) as session:
        session.add_all([Stay(id=n, clinic=clinic, reason=f"a{n}", report=f"b{n}") for n in (1, 2, 3)])
        session.commit()


def move(engine: Engine, clinic: int) -> None:
    with Session(engine) as session:
        session.get_one(Stay, 1).clinic = clinic
        session.commit()


def read(engine: Engine) -> list[tuple[Any, ...]]:
    columns = TABLE.c.id, TABLE.c.clinic, TABLE.c.reason, TABLE.c.report
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(TABLE.c.id))]


WHOLE = [(n, 1, f"a{n}", f"b{n}") for n in (1, 2, 3)]


def test_one_of_two_columns_of_a_partition_changes(stays: Engine) -> None:
    with Session(stays) as session:
        people = session.scalars(select(Stay)).all()
        for one in people:
            one.reason = f"new{one.id}"
        with assert_round_trips(max=1):
            session.flush()
        session.commit()
        # nothing is loaded any more
        people[0].report = "late"
        session.commit()
        assert session.scalars(select(Stay.id).where(Stay.reason == "new2")).all() == [2]
    assert read(stays) == [(1, 1, "new1", "late"), (2, 1, "new2", "b2"), (3, 1, "new3", "b3")]


@pytest.mark.parametrize("several", [False, True])
def test_a_row_that_was_moved_stays_where_it_is(stays: Engine, several: bool) -> None:
    with Session(stays, expire_on_commit=False) as session:
        people = session.scalars(select(Stay).order_by(Stay.id)).all()
        session.commit()
        move(stays, 2)
        for one in people if several else people[:1]:
            one.reason = "new"
        with pytest.raises(StaleDataError):
            session.commit()
    assert read(stays) == [(1, 2, "a1", "b1"), *WHOLE[1:]]


async def test_drivers_that_do_not_count_rows_of_several_updates(
    postgresql_socket: Path, twin: Twin, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine = create_async_engine(url("asyncpg", request, tmp_path))
    async with AsyncClient(twin.path, timeout=5, retries=1) as client:
        install(engine, client, unbatched="error")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            people = [Stay(id=n, clinic=1, reason=f"a{n}", report=f"b{n}") for n in (1, 2, 3)]
            session.add_all(people)
            await session.commit()
            for one in people:
                one.reason = "new"
            with assert_round_trips(max=1):
                await session.flush()
            await session.commit()
            async with AsyncSession(engine) as other:
                (await other.get_one(Stay, 1)).clinic = 2
                await other.commit()
            for one in people:
                one.reason = "newer"
            with pytest.raises(StaleDataError):
                await session.commit()
        async with engine.begin() as connection:
            rows = (await connection.execute(select(TABLE.c.clinic, TABLE.c.reason).order_by(TABLE.c.id))).all()
            await connection.run_sync(Base.metadata.drop_all)
        assert [tuple(row) for row in rows] == [(2, "new"), (1, "new"), (1, "new")]
        uninstall(engine)
        await engine.dispose()


@pytest.fixture
def mirror(client: Client) -> Iterator[Engine]:
    """Another database, with the same keys in another clinic."""
    engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    Base.metadata.create_all(engine)
    fill(engine, clinic=2)
    yield engine
    uninstall(engine)
    engine.dispose()


@pytest.mark.parametrize("when", ["before_update", "after_update"])
def test_a_listener_writes_the_same_key_in_another_database(stay: Engine, mirror: Engine, when: str) -> None:
    def listen(mapper: Any, connection: Any, target: Stay) -> None:
        if connection.engine is stay:
            with Session(mirror) as inner:
                inner.get_one(Stay, target.id).reason = target.reason
                inner.commit()

    event.listen(Stay, when, listen)
    try:
        with Session(stay) as session:
            for one in session.scalars(select(Stay)):
                one.reason = "new"
            session.commit()
    finally:
        event.remove(Stay, when, listen)
    for engine, clinic in ((stay, 1), (mirror, 2)):
        assert [row[:3] for row in read(engine)] == [(n, clinic, "new") for n in (1, 2, 3)]


def test_a_listener_writes_the_same_row_in_another_session(stay: Engine) -> None:
    """On the same connection, and with another column."""
    listening = [True]

    def listen(mapper: Any, connection: Any, target: Stay) -> None:
        if listening:
            listening.clear()
            with Session(connection, join_transaction_mode="create_savepoint") as inner:
                one = inner.get_one(Stay, 1)
                one.clinic, one.report = 5, "inner"
                inner.commit()

    event.listen(Stay, "before_update", listen)
    try:
        with Session(stay) as session:
            for one in session.scalars(select(Stay).where(Stay.id > 1)):
                one.reason = "new"
            session.commit()
    finally:
        event.remove(Stay, "before_update", listen)
    assert read(stay) == [(1, 5, "a1", "inner"), (2, 1, "new", "b2"), (3, 1, "new", "b3")]


class Linked(DeclarativeBase):
    """Foreign keys as SQLite has them."""


class Clinic(Linked):
    __tablename__ = "houses"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    beds: Mapped[list[Bed]] = relationship(back_populates="clinic", passive_updates=False, order_by="Bed.id")


class Bed(Linked):
    """A relationship chooses its partition."""

    __tablename__ = "beds"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    clinic_id: Mapped[int | None] = mapped_column(ForeignKey("houses.id", deferrable=True, initially="DEFERRED"))
    label: Mapped[str | None] = mapped_column(Encrypted(String(40), keyring="patients", partition="clinic_id"))
    label_index: Mapped[bytes | None] = mapped_column(BlindIndex("label"))
    notes: Mapped[str | None] = mapped_column(
        Encrypted(String(40), keyring="patients", partition="clinic_id", bind="id"), deferred=True
    )
    floor: Mapped[int | None]
    clinic: Mapped[Clinic | None] = relationship(back_populates="beds")


@pytest.fixture
def beds(sqlite: Engine) -> Engine:
    Linked.metadata.create_all(sqlite)
    with Session(sqlite) as session:
        for number in (1, 2):
            keys = 10 * number, 10 * number + 1
            session.add(Clinic(id=number, beds=[Bed(id=key, label=f"l{key}", notes=f"n{key}") for key in keys]))
        session.commit()
    return sqlite


def beds_of(engine: Engine) -> list[tuple[Any, ...]]:
    table: Any = Bed.__table__
    with engine.connect() as connection:
        rows = connection.execute(select(table.c.id, table.c.clinic_id, table.c.label, table.c.notes))
        return [tuple(row) for row in rows]


def test_a_relationship_moves_a_row(beds: Engine) -> None:
    with Session(beds) as session:
        session.get_one(Bed, 10).clinic = session.get_one(Clinic, 2)
        session.commit()
        one = session.get_one(Bed, 11)
        one.clinic, one.label = Clinic(id=3), "new"
        session.commit()
        assert session.scalars(select(Bed.id).where(Bed.label == "new")).all() == [11]
    assert beds_of(beds)[:2] == [(10, 2, "l10", "n10"), (11, 3, "new", "n11")]


def test_a_collection_moves_rows(beds: Engine) -> None:
    with Session(beds) as session:
        one, two = session.get_one(Clinic, 1), session.get_one(Clinic, 2)
        two.beds.append(session.get_one(Bed, 10))
        session.commit()
        for bed in list(two.beds):
            one.beds.append(bed)
        session.commit()
    assert beds_of(beds) == [(n, 1, f"l{n}", f"n{n}") for n in (10, 11, 20, 21)]


def test_a_key_takes_the_rows_with_it(beds: Engine) -> None:
    with Session(beds) as session:
        session.get_one(Clinic, 1).id = 9
        session.commit()
    assert beds_of(beds)[:3] == [(10, 9, "l10", "n10"), (11, 9, "l11", "n11"), (20, 2, "l20", "n20")]


def test_a_row_that_has_no_partition_any_more_is_refused(beds: Engine) -> None:
    before = beds_of(beds)
    with Session(beds) as session:
        session.delete(session.get_one(Clinic, 1))
        with pytest.raises(BindingMissing, match="its partition is the value of clinic_id"):
            session.commit()
    assert beds_of(beds) == before
    with Session(beds) as session:
        for one in session.get_one(Clinic, 1).beds:
            one.label = one.notes = None
        session.flush()
        session.delete(session.get_one(Clinic, 1))
        session.commit()
    assert beds_of(beds)[:2] == [(10, None, None, None), (11, None, None, None)]


class Person(Linked):
    __tablename__ = "persons"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]


class Nurse(Person):
    """Her key follows the one of the person."""

    __tablename__ = "nurses"
    __mapper_args__ = {"polymorphic_identity": "nurse"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("persons.id", onupdate="CASCADE"), primary_key=True)
    ward: Mapped[str | None] = mapped_column(Encrypted(String(40), keyring="notes", bind="id"))


PERSONS: Any = Person.__table__


def test_a_key_of_a_hierarchy_changes_in_every_table(client: Client) -> None:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda connection, record: connection.execute("PRAGMA foreign_keys = ON"))
    install(engine, client, unbatched="error")
    Linked.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Nurse(id=1, ward="w"), Person(id=2)])
        session.commit()
        for statement in (update(Person).values(id=7), update(PERSONS).values(id=7)):
            with pytest.raises(BindingMissing, match=r"nurses\.ward: its row key follows persons\.id"):
                session.execute(statement)
        session.get_one(Person, 1).id = 7
        session.commit()
        session.get_one(Person, 2).id = 8
        session.commit()
        session.expunge_all()
        assert [(one.id, one.ward) for one in session.scalars(select(Nurse))] == [(7, "w")]
    uninstall(engine)
    engine.dispose()


class Draft(Linked):
    """What does not open reads as None."""

    __tablename__ = "drafts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    clinic: Mapped[int]
    text: Mapped[str | None] = mapped_column(
        Encrypted(String(40), keyring="patients", partition="clinic", on_error="none")
    )
    title: Mapped[str | None] = mapped_column(Encrypted(String(40), keyring="notes", on_error="none"))


@pytest.mark.parametrize("loaded", [True, False])
def test_what_does_not_open_is_not_written_over(beds: Engine, loaded: bool) -> None:
    with Session(beds) as session:
        session.add_all([Draft(id=1, clinic=1, text="a"), Draft(id=2, clinic=1, title="t")])
        session.commit()
        session.execute(text("UPDATE drafts SET clinic = 2 WHERE id = 1"))
        session.commit()
    ciphertext = stored(beds, "drafts")[0]["text"]
    with Session(beds) as session:
        one, two = session.get_one(Draft, 1), session.get_one(Draft, 2)
        assert one.text is None
        if not loaded:
            session.expire(one, ["text"])
        one.clinic = 3
        with pytest.raises(FieldUnreadable, match=r"drafts\.text.*: does not open, so it cannot be encrypted"):
            session.commit()
        session.rollback()
        assert [row["text"] for row in stored(beds, "drafts")] == [ciphertext, None]
        session.execute(text("UPDATE drafts SET title = :other WHERE id = 2"), {"other": ciphertext})
        session.commit()
        # what is not bound to the clinic is of no concern
        two.clinic = 3
        one.clinic, one.text = 3, "given up"
        session.commit()
        assert session.execute(select(Draft.clinic, Draft.text).order_by(Draft.id)).all() == [
            (3, "given up"),
            (3, None),
        ]


def test_a_deferred_column_opens_with_what_its_row_says(beds: Engine) -> None:
    with Session(beds, expire_on_commit=False) as session:
        one = session.get_one(Bed, 10)
        session.commit()
        with Session(beds) as other:
            other.get_one(Bed, 10).clinic_id = 2
            other.commit()
        with assert_round_trips(max=1):
            assert one.notes == "n10"
        session.expire(one, ["label"])
        with assert_round_trips(max=1):
            assert one.label == "l10"
        assert one.clinic_id == 1
        one.notes = "lost"
        with pytest.raises(StaleDataError):
            session.commit()


def test_what_is_bound_is_not_loaded_for_other_changes(beds: Engine) -> None:
    with Session(beds) as session:
        one = session.get_one(Bed, 10)
        session.expire(one, ["label", "clinic_id"])
        one.floor = 3
        with assert_round_trips(max=0):
            session.flush()
        assert not {"label", "notes", "clinic_id"} & inspect(one).dict.keys()
        session.commit()


class Animal(Linked):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    owner: Mapped[int] = mapped_column("region")
    chip: Mapped[str] = mapped_column(Encrypted(String(40), keyring="patients", partition="region"), deferred=True)


class Dog(Animal):
    """A column of the same name in each of its tables, and another name of the same key."""

    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012
    animal_id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    breeder: Mapped[int] = mapped_column("region")
    tag: Mapped[str] = mapped_column(
        Encrypted(String(40), keyring="patients", partition="region", bind="animal_id"), deferred=True
    )
    name: Mapped[str] = mapped_column(Encrypted(String(40), keyring="patients", partition="region", bind="animal_id"))


def test_columns_of_one_name_in_the_tables_of_a_hierarchy(beds: Engine) -> None:
    with Session(beds, expire_on_commit=False) as session:
        session.add(Dog(id=1, owner=1, breeder=2, chip="c", tag="t", name="n"))
        session.commit()
        session.expunge_all()
        dog = session.get_one(Dog, 1)
        assert [dog.chip, dog.tag] == ["c", "t"]
        for names in (["tag"], ["chip", "name"], ["name", "breeder"], ["tag", "animal_id"], None):
            session.expire(dog, names)
            assert [dog.name, dog.chip, dog.tag] == ["n", "c", "t"]
        session.expire(dog)
        dog.breeder, dog.owner = 3, 4
        session.commit()
        session.expunge_all()
        dog = session.get_one(Dog, 1)
        assert [dog.chip, dog.tag, dog.name, dog.owner, dog.breeder] == ["c", "t", "n", 4, 3]


class Ship(ConcreteBase, Linked):
    """A class whose table says nothing of its kind."""

    __tablename__ = "ships"
    __mapper_args__ = {"polymorphic_identity": "ship", "concrete": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    harbour: Mapped[int]
    log: Mapped[str] = mapped_column(
        Encrypted(String(40), keyring="patients", partition="harbour", bind="id"), deferred=True
    )
    cargo: Mapped[str] = mapped_column(Encrypted(String(40), keyring="patients", partition="harbour", bind="id"))


class Ferry(Ship):
    __tablename__ = "ferries"
    __mapper_args__ = {"polymorphic_identity": "ferry", "concrete": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    harbour: Mapped[int]


class Seen(Linked):
    """A class that is mapped to a query."""

    __table__ = select(Ship.__table__).subquery("seen")
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012


def test_classes_that_are_mapped_to_more_than_a_table(beds: Engine) -> None:
    with Session(beds, expire_on_commit=False) as session:
        session.add(Ship(id=1, harbour=1, log="l", cargo="c"))
        session.commit()
        session.expunge_all()
        ship: Any = session.get_one(Ship, 1)
        assert [ship.log, ship.cargo] == ["l", "c"]
        ship.harbour = 2
        session.commit()
        seen: Any = session.get_one(Seen, 1)
        for one in (ship, seen):
            session.expire(one, ["log"])
            session.expire(one, ["cargo"])
            assert [one.log, one.cargo] == ["l", "c"]


class Hospital(DeclarativeBase):
    pass


class Member(Hospital):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "member"}  # noqa: RUF012  as documented there


class Carer(Member):
    __tablename__ = "carers"
    id: Mapped[int] = mapped_column(ForeignKey("members.id", onupdate="CASCADE"), primary_key=True)
    region: Mapped[int]
    note: Mapped[str | None] = mapped_column(String(10))
    bed: Mapped[str | None] = mapped_column(Encrypted(String, keyring="patients", partition="region", bind="id"))
    ward: Mapped[str | None] = mapped_column(Encrypted(String, keyring="patients", bind=("region", "id")))
    __mapper_args__ = {"polymorphic_identity": "carer"}  # noqa: RUF012  as documented there


@pytest.fixture
def hospital(engine: Engine) -> Iterator[Engine]:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
        engine.dispose()
    Hospital.metadata.drop_all(engine)
    Hospital.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Carer(id=1, region=1, bed="b1", ward="w1"), Carer(id=5, region=2, bed="b5", ward="w5")])
        session.commit()
    yield engine
    Hospital.metadata.drop_all(engine)


def carers(engine: Engine) -> list[tuple[Any, ...]]:
    with Session(engine) as session:
        found = session.execute(select(Carer.id, Carer.region, Carer.bed, Carer.ward).order_by(Carer.id)).all()
        return [tuple(row) for row in found]


@pytest.mark.parametrize("expired", [True, False])
def test_a_key_that_follows_takes_a_partition_along(hospital: Engine, expired: bool) -> None:
    with Session(hospital) as session:
        carer = session.get_one(Carer, 1)
        if expired:
            session.expire(carer)
        carer.id = 7
        session.commit()
        carer.id, carer.ward = 8, "w8"
        session.commit()
        carer.id, carer.region = 9, 3
        session.commit()
    assert carers(hospital) == [(5, 2, "b5", "w5"), (9, 3, "b1", "w8")]


def test_a_key_that_another_object_had_is_not_taken_for_its(hospital: Engine) -> None:
    with Session(hospital) as session:
        one, five = session.get_one(Carer, 1), session.get_one(Carer, 5)
        one.id, one.region, one.note = 7, 3, "x"
        session.flush()
        five.id = 1
        session.commit()
    assert carers(hospital) == [(1, 2, "b5", "w5"), (7, 3, "b1", "w1")]


@pytest.mark.parametrize("names", [["ward", "region"], ["ward"], ["region"], ["ward", "bed", "region"]])
def test_columns_that_are_loaded_together_with_what_they_are_bound_to(hospital: Engine, names: list[str]) -> None:
    with Session(hospital) as session:
        carer = session.get_one(Carer, 1)
        session.refresh(carer, names)
        assert (carer.ward, carer.bed, carer.region) == ("w1", "b1", 1)
        session.expire(carer, names)
        assert (carer.ward, carer.bed, carer.region) == ("w1", "b1", 1)
