"""Writing through drivers that number their parameters, or that run in an event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keyside import AsyncClient
from keyside.sqlalchemy import install, uninstall
from keyside.testing.server import Twin
from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.orm.sqlalchemy.accounts import Account, Base
from tests.orm.sqlalchemy.conftest import url

TABLE: Any = Account.__table__


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg", "psycopg"])
async def test_lists_among_the_parameters(
    driver: str, request: pytest.FixtureRequest, twin: Twin, tmp_path: Path
) -> None:
    engine = create_async_engine(url(driver, request, tmp_path))
    columns = Account.id, Account.clinic, Account.secret, Account.shared
    async with AsyncClient(twin.path, timeout=5, retries=1) as client:
        install(engine, client, unbatched="error")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all([Account(id=n, clinic=n, secret="s", shared="p") for n in (1, 2)])
            await session.commit()
        change = (
            update(TABLE)
            .where(TABLE.c.id.in_([1, 7, 8]), TABLE.c.clinic.in_([1, 5]), TABLE.c.id == 1)
            .where(TABLE.c.clinic == bindparam("at", 1), TABLE.c.code.is_(None), TABLE.c.id.not_in([2, 3]))
            .values(secret="new", shared="new", code="x")
        )
        async with engine.begin() as connection:
            await connection.execute(change)
        async with AsyncSession(engine) as session:
            found = (await session.execute(select(*columns).order_by(Account.id))).all()
            assert found == [(1, 1, "new", "new"), (2, 2, "s", "p")]
            one = await session.get_one(Account, 2)
            one.clinic, one.id = 5, 9
            await session.commit()
            # nothing is loaded any more
            one.clinic = 6
            await session.commit()
            found = (await session.execute(select(*columns).order_by(Account.id))).all()
            assert found == [(1, 1, "new", "new"), (9, 6, "s", "p")]
        uninstall(engine)
        await engine.dispose()
