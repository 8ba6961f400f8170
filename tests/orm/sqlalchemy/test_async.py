"""Async engines and sessions, with the drivers that have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import keyside
import pytest
import pytest_asyncio
from keyside import AsyncClient
from keyside.fields import FieldUnavailable
from keyside.sqlalchemy import install, uninstall
from keyside.testing import assert_encrypted, assert_round_trips, faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import selectinload

from tests.orm.sqlalchemy.conftest import ROWS, url
from tests.orm.sqlalchemy.models import Base, Card, Clinic, Memo, Patient, patient

EMAILS = [f"P{number}@Example.ORG" for number in range(ROWS)]


@pytest_asyncio.fixture(params=["aiosqlite", "asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, twin: Twin, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database with patients of three clinics."""
    engine = create_async_engine(url(request.param, request, tmp_path))
    async with AsyncClient(twin.path, timeout=5, retries=1) as client:
        install(engine, client, unbatched="error")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all([Clinic(id=number, name=f"clinic {number}") for number in (1, 2, 3)])
            await session.flush()
            session.add_all([patient(number, 1 + number % 3) for number in range(ROWS)])
            with assert_round_trips(max=1):
                await session.flush()
            await session.commit()
        yield engine
        uninstall(engine)
        await engine.dispose()


async def test_sessions(engine: AsyncEngine) -> None:
    statement = select(Patient).order_by(Patient.number)
    async with AsyncSession(engine) as session:
        with assert_round_trips(max=1):
            assert [one.email for one in await session.scalars(statement)] == EMAILS
        with assert_round_trips(max=1):
            assert (await session.scalars(select(Patient.email).order_by(Patient.number))).all() == EMAILS
        with assert_round_trips(max=2):
            found = await session.scalars(select(Patient).where(Patient.email == "p7@example.org"))
            assert [one.number for one in found] == [7]
        session.expunge_all()
        with assert_round_trips(max=2):
            clinics = await session.scalars(select(Clinic).options(selectinload(Clinic.patients)))
            assert sum(len(clinic.patients) for clinic in clinics) == ROWS
        one = await session.get_one(Patient, (await session.scalars(select(Patient.id).limit(1))).one())
        await session.refresh(one, ["email"])
        one.email = "new@x.org"
        with assert_round_trips(max=1):
            await session.commit()
        await session.refresh(one)
        assert one.email == "new@x.org"
        assert await session.run_sync(lambda inner: assert_encrypted(Patient, "email", bind=inner)) == ROWS


async def test_streams_take_a_round_trip_a_chunk(engine: AsyncEngine) -> None:
    statement = select(Patient).order_by(Patient.number)
    async with AsyncSession(engine) as session:
        with assert_round_trips(max=4):
            result = await session.stream_scalars(statement.execution_options(yield_per=10))
            assert [one.email async for one in result] == EMAILS
    async with engine.connect() as connection, connection.begin():
        with assert_round_trips(max=5):
            stream = await connection.stream(select(Patient.__table__).order_by("number"))
            assert [row.email async for row in stream] == EMAILS


async def test_core_writes(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        with assert_round_trips(max=1):
            await connection.execute(insert(Card), [{"number": f"{n}"} for n in range(ROWS)])
        changed = update(Card).where(Card.number == "7").values(number="7777")
        await connection.execute(changed)
        assert (await connection.scalars(select(Card.number).where(Card.last_four == "7777"))).all() == ["7777"]


async def test_the_context_follows_the_task(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with keyside.context(tenant="acme"):
            session.add(Memo(id=1, text="a"))
            await session.commit()
            assert (await session.scalars(select(Memo.text))).all() == ["a"]


async def test_an_absent_sidecar_is_said(engine: AsyncEngine, twin: Twin) -> None:
    async with AsyncSession(engine) as session:
        twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 20)
        with pytest.raises(FieldUnavailable):
            await session.scalars(select(Patient))
        twin.faults.clear()
        assert len((await session.scalars(select(Patient))).all()) == ROWS
