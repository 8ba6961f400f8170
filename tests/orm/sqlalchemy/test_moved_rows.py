"""Objects whose rows another transaction, a relationship or the database moves to another partition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keyside import AsyncClient, Client
from keyside.sqlalchemy import BlindIndex, Encrypted, install, uninstall
from keyside.testing import assert_round_trips
from keyside.testing.server import Twin
from sqlalchemy import Engine, String, create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError

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
