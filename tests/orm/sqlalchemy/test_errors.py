"""Bad days: values of elsewhere, a sidecar that is away, and an SQLAlchemy that changed."""

from __future__ import annotations

import warnings
from typing import Any
from uuid import uuid4

import keyside
import pytest
from keyside import AsyncClient, Client
from keyside.fields import (
    BatchingOff,
    BindingMissing,
    FieldUnavailable,
    FieldUnreadable,
    UnbatchedCall,
    UnbatchedWarning,
    counted,
)
from keyside.sqlalchemy import Encrypted, install, installation, uninstall
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from tests.orm.sqlalchemy.conftest import fill
from tests.orm.sqlalchemy.models import Base, Card, Memo, Patient, patient


@pytest.fixture
def tampered(sqlite: Engine) -> Engine:
    """Row 1 holds the ciphertext of row 0, and the card of row 2 a flipped bit."""
    with Session(sqlite) as session:
        fill(session, 3, clinics=1)
        session.add_all([Card(id=n, number=str(n), limit=n) for n in (1, 2)])
        session.commit()
    with sqlite.begin() as connection:
        connection.execute(
            text("UPDATE patients SET email = (SELECT email FROM patients WHERE number = 0) WHERE number = 1")
        )
        (limit,) = connection.execute(text('SELECT "limit" FROM cards WHERE id = 2')).one()
        flipped = limit[:-1] + bytes([limit[-1] ^ 1])
        connection.execute(text('UPDATE cards SET "limit" = :flipped WHERE id = 2'), {"flipped": flipped})
    return sqlite


def test_a_value_of_another_row_names_table_column_and_row(tampered: Engine) -> None:
    with Session(tampered) as session:
        (key,) = session.execute(select(Patient.id).where(Patient.number == 1)).one()
        with pytest.raises(FieldUnreadable) as caught:
            session.scalars(select(Patient)).all()
        assert (caught.value.table, caught.value.column, caught.value.key) == ("patients", "email", (key,))
        assert session.scalars(select(Patient.email).where(Patient.number == 0)).one() == "P0@Example.ORG"
        with pytest.raises(FieldUnreadable, match=r"cards\.limit of row 2: does not open"):
            session.scalars(select(Card)).all()


def test_a_column_may_read_what_does_not_open_as_none(tampered: Engine) -> None:
    forgiving = Table(
        "cards",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("limit", Encrypted(Card.limit.type.inner, keyring="cards", on_error="none")),
    )
    with tampered.connect() as connection:
        assert connection.execute(select(forgiving).order_by("id")).all() == [(1, 1), (2, None)]


def test_an_absent_sidecar_leaves_the_transaction_as_it_was(engine: Engine, twin: Twin) -> None:
    with Session(engine) as session:
        session.add(Card(number="1"))
        session.flush()
        twin.faults.extend([faults.refuse(Code.SHUTTING_DOWN)] * 9)
        with pytest.raises(FieldUnavailable) as caught, session.no_autoflush:
            session.connection().execute(insert(Card).values(number="2"))
        assert caught.value.retryable
        twin.faults.clear()
        session.connection().execute(insert(Card).values(number="3"))
        twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 9)
        with pytest.raises(FieldUnavailable):
            session.scalars(select(Card.number)).all()
        twin.faults.clear()
        assert sorted(session.scalars(select(Card.number))) == ["1", "3"]
        session.commit()
    with Session(engine) as session:
        assert len(session.scalars(select(Card)).all()) == 2


def test_the_tenant_is_the_one_for_whom_the_code_runs(sqlite: Engine) -> None:
    with Session(sqlite) as session:
        with keyside.context(tenant="acme"):
            session.add(Memo(id=1, text="a"))
            session.commit()
            assert session.scalars(select(Memo.text)).all() == ["a"]
        with keyside.context(tenant="other"), pytest.raises(FieldUnreadable):
            session.scalars(select(Memo.text)).all()
        with pytest.raises(BindingMissing, match=r"keyside\.context"):
            session.scalars(select(Memo.text)).all()
        session.add(Memo(id=2, text="b"))
        with pytest.raises(BindingMissing):
            session.flush()


@pytest.mark.filterwarnings("ignore:Column 'late.id' is marked")
def test_rows_need_their_key_before_they_are_inserted(sqlite: Engine) -> None:
    table = Table(
        "late",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("value", Encrypted(String, keyring="k", bind="id")),
    )
    with sqlite.begin() as connection:
        table.create(connection)
        with pytest.raises(BindingMissing, match="a default that Python computes"):
            connection.execute(insert(table).values(value="x"))
        connection.execute(insert(table).values(id=1, value="x"))
        assert connection.scalars(select(table.c.value)).all() == ["x"]
        grouped = select(table.c.value, text("count(*)")).group_by(table.c.id)
        with pytest.raises(BindingMissing, match="name the columns beside it"):
            connection.execute(grouped).all()


@pytest.mark.parametrize("policy", ["warn", "error", "allow"])
def test_without_batching_values_are_right_and_the_policy_is_kept(
    sqlite: Engine, client: Client, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(sqlite) as session:
        session.add_all([Card(number=str(n)) for n in range(3)])
        session.commit()
    monkeypatch.setattr(installation, "what_changed", lambda: "fetch strategies")
    with pytest.warns(BatchingOff, match="internals are not as expected"):
        install(sqlite, client, unbatched=policy)
    with Session(sqlite) as session, warnings.catch_warnings(), counted() as trips:
        warnings.simplefilter("error", UnbatchedWarning)
        if policy != "allow":
            with pytest.raises((UnbatchedCall, UnbatchedWarning), match=r"cards\.number"):
                session.scalars(select(Card.number)).all()
        else:
            assert session.scalars(select(Card.number)).all() == ["0", "1", "2"]
            assert (trips.count, trips.unbatched) == (3, 3)
        # nothing of SQLAlchemy's own is needed to write
        session.add_all([Card(number=str(n)) for n in range(3)])
        session.flush()


def test_hooks_come_off_and_go_on_again(client: Client) -> None:
    engine = create_engine("sqlite://")
    uninstall(engine)
    install(engine, client)
    install(engine, client)
    with counted() as trips, Session(engine) as session:
        Base.metadata.create_all(session.connection())
        session.add(Card(number="1"))
        session.flush()
        assert trips.count == 1
    uninstall(engine)
    with pytest.raises(TypeError, match=r"needs a keyside\.Client"):
        install(engine, AsyncClient("/x"))
    with pytest.raises(TypeError, match=r"needs a keyside\.AsyncClient"):
        install(create_async_engine("sqlite+aiosqlite://"), client)
    with pytest.raises(TypeError, match=r"needs a keyside\.Client, not a str"):
        install(engine, "/run/keyside.sock")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="expected an Engine or an AsyncEngine, not a str"):
        install("sqlite://", client)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="'warn', 'error' or 'allow'"):
        install(engine, client, unbatched="perhaps")  # type: ignore[arg-type]  # what is tested
    engine.dispose()


def test_a_new_row_may_hold_every_null(sqlite: Engine) -> None:
    with Session(sqlite) as session:
        fill(session, 1)
        session.add(patient(5, id=uuid4(), born=None))
        session.commit()
        assert session.scalars(select(Patient.born).where(Patient.number == 5)).one() is None
