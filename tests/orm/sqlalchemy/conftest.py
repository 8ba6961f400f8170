"""Engines of every database and driver, with a client of the plain-Python sidecar installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from keyside import Client
from keyside.sqlalchemy import install, uninstall
from keyside.testing.server import Twin
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from tests.orm.servers import mariadb, postgresql
from tests.orm.sqlalchemy import accounts
from tests.orm.sqlalchemy.models import Base, Clinic, patient

ROWS = 40
DRIVERS = ("sqlite", "psycopg", "psycopg2", "pymysql")


@pytest.fixture(scope="session")
def postgresql_socket() -> Iterator[Path]:
    with postgresql() as folder:
        yield folder


@pytest.fixture(scope="session")
def mariadb_socket() -> Iterator[Path]:
    with mariadb() as socket:
        yield socket


def url(driver: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if driver in ("sqlite", "aiosqlite"):
        return f"sqlite+{driver.replace('sqlite', '') or 'py'}sqlite:///{folder}/test.sqlite".replace("+aio", "+aio")
    if driver == "pymysql":
        return f"mysql+pymysql://root@/test?unix_socket={request.getfixturevalue('mariadb_socket')}&charset=utf8mb4"
    socket = request.getfixturevalue("postgresql_socket")
    return f"postgresql+{driver}://test@/postgres?host={socket}"


@pytest.fixture(params=DRIVERS)
def engine(request: pytest.FixtureRequest, client: Client, tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    engine = create_engine(url(request.param, request, tmp_path))
    install(engine, client, unbatched="error")
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    uninstall(engine)
    engine.dispose()


@pytest.fixture
def sqlite(client: Client) -> Iterator[Engine]:
    """For what does not depend on the database."""
    engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    Base.metadata.create_all(engine)
    yield engine
    uninstall(engine)
    engine.dispose()


@pytest.fixture
def books(engine: Engine) -> Engine:
    """Empty tables of accounts, in every database."""
    accounts.Base.metadata.drop_all(engine)
    accounts.Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def book(sqlite: Engine) -> Engine:
    """Empty tables of accounts, for what does not depend on the database."""
    accounts.Base.metadata.create_all(sqlite)
    return sqlite


def fill(session: Session, rows: int = ROWS, clinics: int = 3) -> None:
    """Patients of some clinics."""
    session.add_all([Clinic(id=number, name=f"clinic {number}") for number in range(1, clinics + 1)])
    session.flush()
    session.add_all([patient(number, 1 + number % clinics) for number in range(rows)])
    session.commit()


@pytest.fixture
def filled(engine: Engine) -> Engine:
    with Session(engine) as session:
        fill(session)
    return engine


__all__ = ["Twin"]
