"""The same with the real sidecar at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from keyside import AsyncClient, Client, context
from keyside.fields import FieldRefused, FieldUnavailable, FieldUnreadable
from keyside.sqlalchemy import install, uninstall
from keyside.sqlalchemy.living import reencrypt, status
from keyside.testing import assert_encrypted, assert_round_trips
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks.sidecar import Sidecar
from tests.orm.sqlalchemy.conftest import fill
from tests.orm.sqlalchemy.models import Base, Card, Clinic, Memo, Patient

KEYRINGS = {"patients": True, "clinics": False, "notes": False, "cards": False}


@pytest.fixture(scope="module")
def running() -> Iterator[Sidecar]:
    with Sidecar(workers=2) as sidecar:
        for name, partitioned in KEYRINGS.items():
            sidecar.create_keyring(name, partitioned=partitioned)
        yield sidecar


@pytest.fixture(params=["sqlite", "psycopg"])
def database(request: pytest.FixtureRequest, running: Sidecar, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/t.sqlite")
    else:
        engine = create_engine(
            f"postgresql+psycopg://test@/postgres?host={request.getfixturevalue('postgresql_socket')}"
        )
    with Client(running.path) as client:
        install(engine, client, unbatched="error")
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        yield engine
        uninstall(engine)
    engine.dispose()


def test_rows_of_several_partitions(database: Engine, running: Sidecar, tmp_path: Path) -> None:
    rows = 300
    with Session(database) as session, assert_round_trips(max=2):
        fill(session, rows, clinics=7)
    with Session(database) as session:
        with assert_round_trips(max=1):
            people = session.scalars(select(Patient).order_by(Patient.number)).all()
        assert [one.email for one in people] == [f"P{number}@Example.ORG" for number in range(rows)]
        with assert_round_trips(max=1):
            assert session.scalars(select(Patient.number).where(Patient.email == "p77@example.org")).all() == [77]
        assert assert_encrypted(Patient, "email", bind=session) == rows
        session.execute(text("UPDATE patients SET email = (SELECT email FROM patients WHERE number=1) WHERE number=2"))
        with pytest.raises(FieldUnreadable, match=r"patients\.email of row"):
            session.scalars(select(Patient).where(Patient.number == 2).execution_options(populate_existing=True)).all()
    with Client(running.path) as client:
        assert reencrypt(database, Base.metadata.tables["clinics"].c.name, client).changed == 0
    assert len(status(database, Base.metadata.tables["patients"].c.email).by_key) == 7
    database.dispose()
    for file in tmp_path.iterdir():
        assert b"example.org" not in file.read_bytes().lower()


def test_a_sidecar_that_is_gone_and_comes_back(running: Sidecar, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/t.sqlite")
    with Client(running.path, timeout=2, retries=0) as client:
        install(engine, client)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Card(number="1"))
            session.commit()
            running.stop()
            session.add(Card(number="2"))
            with pytest.raises(FieldUnavailable) as caught:
                session.flush()
            assert caught.value.retryable
            session.rollback()
            with pytest.raises(FieldUnavailable):
                session.scalars(select(Card)).all()
            running.start()
            assert [card.number for card in session.scalars(select(Card))] == ["1"]
    engine.dispose()


def test_a_keyring_that_does_not_exist_is_named(running: Sidecar) -> None:
    engine = create_engine("sqlite://")
    with Client(running.path) as client:
        install(engine, client)
        Base.metadata.create_all(engine)
        with Session(engine) as session, context(tenant="x"):
            session.add(Memo(text="a"))
            with pytest.raises(FieldRefused, match=r"memos\.text: the keyring 'memos' does not exist"):
                session.flush()
    engine.dispose()


async def test_asyncio(running: Sidecar, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/t.sqlite")
    async with AsyncClient(running.path) as client:
        install(engine, client, unbatched="error")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            await session.run_sync(fill, 60)
            with assert_round_trips(max=1):
                people = (await session.scalars(select(Patient).order_by(Patient.number))).all()
            assert people[59].email == "P59@Example.ORG"
            assert {clinic.name for clinic in await session.scalars(select(Clinic))} == {
                f"clinic {n}" for n in (1, 2, 3)
            }
        await engine.dispose()
