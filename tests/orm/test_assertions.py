"""`assert_encrypted` looks at the column that a model's attribute has, and not at one that is called like it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.testing import assert_encrypted
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    born: Mapped[bytes] = mapped_column("born_encrypted")
    born_plain: Mapped[str] = mapped_column("born")


class Employee(Person):
    __tablename__ = "employees"
    id: Mapped[int] = mapped_column(sa.ForeignKey(Person.id), primary_key=True)
    room: Mapped[bytes] = mapped_column()


@pytest.fixture
def filled(client: Client) -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    sealed = client.encrypt("people", b"1990")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO people VALUES (1, :sealed, '1990')"), {"sealed": sealed})
        connection.execute(sa.text("INSERT INTO employees VALUES (1, :sealed)"), {"sealed": sealed})
    return engine


def test_the_column_of_an_attribute(filled: sa.Engine) -> None:
    for model, names in ((Person, ["born"]), (Employee, ["born", "room"])):
        for name in names:
            assert assert_encrypted(model, name, bind=filled) == 1
        with pytest.raises(AssertionError, match=r"born_plain are not encrypted"):
            assert_encrypted(model, "born_plain", bind=filled)


def test_a_name_that_is_no_column(filled: sa.Engine) -> None:
    with pytest.raises(ValueError, match="Person has no column 'borm'; it has born, born_plain, id"):
        assert_encrypted(Person, "borm", bind=filled)
