"""Neither errors, nor logs, nor `repr` show what is encrypted, and the database never holds it."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from keyside import Client
from keyside.fields import BindingMissing
from keyside.sqlalchemy import install
from keyside.testing import assert_encrypted
from sqlalchemy import Engine, create_engine, func, insert, select
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session

from tests.orm.sqlalchemy.conftest import fill
from tests.orm.sqlalchemy.models import Base, Card, Clinic, Memo, Patient, patient

SECRET = "tell-nobody"


@pytest.fixture
def unhooked(tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path}/bare.sqlite")
    Base.metadata.create_all(engine)
    return engine


def everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "params", ""))


def test_the_database_file_holds_no_plaintext(client: Client, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/t.sqlite")
    install(engine, client)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        fill(session, 3)
        session.add(patient(9, email=f"{SECRET}@example.org", notes={SECRET: SECRET}))
        session.add(Card(number=SECRET, limit=1))
        session.commit()
        assert assert_encrypted(Patient, "email", bind=session) == 4
        with pytest.raises(AssertionError, match="not encrypted"):
            assert_encrypted(Patient, "number", bind=session)
        with pytest.raises(AssertionError, match="no value at all"):
            assert_encrypted(Memo, "text", bind=session)
    engine.dispose()
    for file in tmp_path.iterdir():
        held = file.read_bytes()
        assert SECRET.encode() not in held
        assert b"example.org" not in held.lower()


def test_echoed_sql_shows_a_mask(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    with Session(engine) as session:
        session.add(Clinic(id=1, name=SECRET))
        session.add(patient(1, email=f"{SECRET}@x", notes={"a": SECRET}))
        session.add_all([Card(number=f"{SECRET}{n}") for n in range(3)])
        session.flush()
        session.scalars(select(Patient.number).where(Patient.email == f"{SECRET}@x")).all()
        assert session.scalars(select(Card.number)).all() == [f"{SECRET}{n}" for n in range(3)]
        session.execute(insert(Card), [{"number": SECRET}, {"number": SECRET}])
    assert "<encrypted>" in caplog.text
    assert SECRET not in caplog.text


def test_errors_of_statements_show_a_mask(engine: Engine) -> None:
    with Session(engine) as session:
        # another column fails while parameters are bound, before there are placeholders
        session.add(patient(1, clinic=1, id=SECRET + "-no-uuid", email=SECRET, notes={"a": SECRET}))
        with pytest.raises((StatementError, AttributeError, BindingMissing)) as caught:
            session.flush()
        assert SECRET not in everything(caught.value).replace(SECRET + "-no-uuid", "")
        session.rollback()
        # the database refuses the statement
        session.add(Clinic(id=None, name=SECRET))
        session.add_all([Card(id=1, number=SECRET), Card(id=1, number=SECRET)])
        with pytest.raises(Exception) as refused, session.no_autoflush:  # noqa: PT011  whichever it is, it tells nothing
            session.flush()
        assert SECRET not in everything(refused.value)
        session.rollback()
        with pytest.raises(DBAPIError) as failed:
            session.execute(select(Patient).where(Patient.email == SECRET, func.no_such_function() == 1))
        assert SECRET not in everything(failed.value)


def test_literal_binds_show_a_mask_and_cannot_run(sqlite: Engine) -> None:
    statements = [select(Patient.id).where(Patient.email == SECRET), insert(Card).values(number=SECRET)]
    for statement in statements:
        shown = str(statement.compile(sqlite, compile_kwargs={"literal_binds": True}))
        assert SECRET not in shown
        assert "<encrypted>" in shown
        with sqlite.connect() as connection, pytest.raises(DBAPIError):
            connection.exec_driver_sql(shown)


def test_models_show_a_mask(sqlite: Engine) -> None:
    with Session(sqlite) as session:
        fill(session, 1)
        one = session.scalars(select(Patient)).one()
        shown = repr(one)
        assert "number=0" in shown
        assert "email=<encrypted>" in shown
        assert "Example.ORG" not in shown


def test_without_install_nothing_is_stored_and_nothing_told(unhooked: Engine) -> None:
    with Session(unhooked) as session:
        session.add(Card(number=SECRET))
        with pytest.raises(DBAPIError, match="NotInstalledPlaceholder") as caught:
            session.flush()
        assert SECRET not in everything(caught.value)
        session.rollback()
        assert session.scalars(select(Card.id)).all() == []


def test_without_install_nothing_is_read(client: Client, tmp_path: Path) -> None:
    path: Any = f"sqlite:///{tmp_path}/t.sqlite"
    hooked = create_engine(path)
    install(hooked, client)
    Base.metadata.create_all(hooked)
    with Session(hooked) as session:
        session.add(Card(number="1"))
        session.commit()
    hooked.dispose()
    bare = create_engine(path)
    with (
        Session(bare) as session,
        pytest.raises(RuntimeError, match=r"cards\.number: call keyside"),
    ):
        session.scalars(select(Card)).all()
    bare.dispose()
