"""Classes whose rows are in several tables: statements of the ORM that write many of them, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from keyside.fields import BindingMissing, FieldUnwritable, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted
from keyside.testing import assert_round_trips
from sqlalchemy import Engine, ForeignKey, String, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    clinic: Mapped[int | None]
    remark: Mapped[str | None] = mapped_column(String(90))
    mail: Mapped[str | None] = mapped_column(Encrypted(String(90), keyring="notes", storage="text"))
    mail_index: Mapped[bytes | None] = mapped_column(BlindIndex("mail"), unique=True)
    bound: Mapped[str | None] = mapped_column(Encrypted(String(90), keyring="patients", partition="clinic", bind="id"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012  as documented


class Doctor(Person):
    """One of its attributes has the name of a column of the other table."""

    __tablename__ = "doctors"
    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    secret: Mapped[str | None] = mapped_column("remark", Encrypted(String(90), keyring="notes", bind="id"))
    secret_index: Mapped[bytes | None] = mapped_column(BlindIndex("remark"))
    __mapper_args__ = {"polymorphic_identity": "doctor"}  # noqa: RUF012


@pytest.fixture
def people(engine: Engine) -> Iterator[Engine]:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)


def read(session: Session) -> list[tuple[Any, ...]]:
    columns = Doctor.id, Doctor.clinic, Doctor.mail, Doctor.bound, Doctor.remark, Doctor.secret
    return [tuple(row) for row in session.execute(select(*columns).order_by(Doctor.id))]


ROWS = [
    {"id": 1, "clinic": 7, "mail": "m1", "bound": "b1", "remark": "plain", "secret": "s1"},
    {"id": 2, "clinic": 8, "mail": "m2", "bound": "b2", "remark": "plain", "secret": "s2"},
]
WHOLE = [(1, 7, "m1", "b1", "plain", "s1"), (2, 8, "m2", "b2", "plain", "s2")]


def test_rows_of_several_tables_are_inserted(people: Engine) -> None:
    with Session(people) as session:
        with assert_round_trips(max=2):
            session.execute(insert(Doctor), ROWS)
        assert read(session) == WHOLE
        assert session.scalars(select(Doctor.id).where(Doctor.mail == "m2", Doctor.secret == "s2")).all() == [2]
        with pytest.raises(IntegrityError):
            session.execute(insert(Doctor), [{"id": 3, "mail": "m1"}])
        session.rollback()


def test_values_beside_rows_are_those_of_their_table(people: Engine) -> None:
    with Session(people) as session:
        rows = [{"id": 1, "secret": "s"}, {"id": 2, "secret": "s"}]
        session.execute(insert(Doctor).values(remark="plain", clinic=3), rows)
        session.execute(insert(Doctor).values(secret="of both"), [{"id": 3, "mail": "m3"}, {"id": 4, "mail": "m4"}])
        assert session.scalars(select(Doctor.id).where(Doctor.secret == "s").order_by(Doctor.id)).all() == [1, 2]
        found = session.execute(select(Doctor.id, Doctor.remark).where(Doctor.mail == "m4", Doctor.secret == "of both"))
        assert found.all() == [(4, None)]
        assert session.scalars(select(Doctor.remark).where(Doctor.secret == "s")).all() == ["plain", "plain"]


@pytest.mark.parametrize("engine", ["sqlite", "psycopg", "psycopg2"], indirect=True)
def test_rows_of_several_tables_come_back(people: Engine) -> None:
    with Session(people) as session:
        made = session.scalars(insert(Doctor).returning(Doctor), ROWS).all()
        assert [(one.id, one.mail, one.secret) for one in made] == [(1, "m1", "s1"), (2, "m2", "s2")]
        assert session.scalars(select(Doctor.id).where(Doctor.mail == "m1", Doctor.secret == "s1")).all() == [1]


def test_rows_of_several_tables_are_updated_by_their_key(people: Engine) -> None:
    with Session(people) as session:
        session.execute(insert(Doctor), ROWS)
        with assert_round_trips(max=2):
            session.execute(
                update(Doctor),
                [{"id": 1, "mail": "n1", "secret": "t1"}, {"id": 2, "mail": "n2", "secret": "t2"}],
            )
        for old, new in ((["m1", "s1"], ["n1", "t1"]), (["m2", "s2"], ["n2", "t2"])):
            found = select(Doctor.mail, Doctor.secret).where(Doctor.mail == new[0], Doctor.secret == new[1])
            assert session.execute(found).all() == [tuple(new)]
            lost = select(Person.id).where((Person.mail == old[0]) | (Person.mail == old[1]))
            assert session.scalars(lost).all() == []
            assert session.scalars(select(Doctor.id).where(Doctor.secret == old[1])).all() == []
        session.execute(update(Doctor), [{"id": 1, "clinic": 9, "bound": "moved"}])
        assert read(session)[0] == (1, 9, "n1", "moved", "plain", "t1")


def test_a_partition_of_another_table_changes_with_its_values(people: Engine) -> None:
    with Session(people) as session:
        session.execute(insert(Doctor), ROWS)
        with pytest.raises(BindingMissing, match="is changed by an UPDATE"):
            session.execute(update(Doctor), [{"id": 1, "clinic": 2}])
        with pytest.raises(BindingMissing, match="compare clinic"):
            session.execute(update(Doctor), [{"id": 1, "bound": "whose"}])
        assert read(session) == WHOLE


def test_expressions_for_rows_of_several_tables_are_refused(people: Engine) -> None:
    with Session(people) as session:
        session.execute(insert(Doctor), ROWS)
        for name in ("mail", "secret"):
            with pytest.raises((FieldUnwritable, NotSearchable)):
                session.execute(insert(Doctor), [{"id": 3, name: func.lower("A")}])
            session.execute(text("DELETE FROM people WHERE id = 3"))
            with pytest.raises((FieldUnwritable, NotSearchable)):
                session.execute(update(Doctor), [{"id": 1, name: func.lower("A")}])
        assert read(session) == WHOLE
