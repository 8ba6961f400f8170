"""Subqueries that take an encrypted column from two rows of a table: each has its own key, and its own index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from keyside import Client
from keyside.fields import BindingMissing, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install
from sqlalchemy import Engine, Integer, String, create_engine, null, select, union_all
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    name: Mapped[str] = mapped_column(Encrypted(String, keyring="people", bind="id"))
    name_index: Mapped[bytes] = mapped_column(BlindIndex("name"))


class Pet(Base):
    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[int]
    name: Mapped[str] = mapped_column(Encrypted(String, keyring="people"))
    name_index: Mapped[bytes] = mapped_column(BlindIndex("name"))
    breed: Mapped[str | None] = mapped_column(Encrypted(String, keyring="people"))


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    engine: Engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Person(id=1, parent=2, name="ann"), Person(id=2, parent=1, name="bob")])
        session.add_all([Pet(id=1, owner=2, name="ann"), Pet(id=2, owner=1, name="bob")])
        session.commit()
        yield session
    engine.dispose()


CHILD, PARENT = aliased(Person), aliased(Person)
FAMILY = select(
    CHILD.id.label("child_id"),
    CHILD.name.label("child"),
    CHILD.name_index.label("child_index"),
    PARENT.id.label("parent_id"),
    PARENT.name.label("parent"),
    PARENT.name_index.label("parent_index"),
).join(PARENT, CHILD.parent == PARENT.id)


def test_each_side_of_a_self_join_opens_with_its_own_key(session: Session) -> None:
    family = FAMILY.subquery()
    found = session.execute(select(family.c.child, family.c.parent).order_by(family.c.child_id)).all()
    assert found == [("ann", "bob"), ("bob", "ann")]
    again = select(family.c.child_id, family.c.child.label("x"), family.c.parent.label("y"), family.c.parent_id).cte()
    assert session.execute(select(again.c.y, again.c.x).order_by(again.c.child_id)).all() == [
        ("bob", "ann"),
        ("ann", "bob"),
    ]
    keyless = (
        select(CHILD.id, CHILD.name, PARENT.name.label("other")).join(PARENT, CHILD.parent == PARENT.id).subquery()
    )
    assert session.scalars(select(keyless.c.name).order_by(keyless.c.id)).all() == ["ann", "bob"]
    with pytest.raises(BindingMissing):
        session.execute(select(keyless.c.other)).all()


def test_each_side_of_a_join_is_searched_by_its_own_index(session: Session) -> None:
    family = FAMILY.subquery()
    for side, key in ((family.c.child, 1), (family.c.parent, 2)):
        assert session.scalars(select(family.c.child_id).where(side == "ann")).all() == [key]
        assert session.scalars(select(family.c.child_id).where(side != "ann")).all() == [3 - key]
    deeper = select(family.c.parent.label("x"), family.c.child_index, family.c.parent_index, family.c.child_id).cte()
    assert session.scalars(select(deeper.c.child_id).where(deeper.c.x == "ann")).all() == [2]
    pets: Any = select(Person.id, Person.name, Person.name_index, Pet.name, Pet.name_index)
    pets = pets.join(Pet, Pet.owner == Person.id).subquery()
    assert session.scalars(select(pets.c.id).where(pets.c.name == "ann")).all() == [1]
    assert session.scalars(select(pets.c.id).where(pets.c.name_1 == "ann")).all() == [2]


def test_an_index_of_another_row_or_table_answers_nothing() -> None:
    other = select(CHILD.id, CHILD.name, PARENT.name_index).join(PARENT, CHILD.parent == PARENT.id).subquery()
    pets = select(Person.name, Pet.name_index).join(Pet, Pet.owner == Person.id).subquery()
    for one in (other, pets):
        with pytest.raises(NotSearchable, match="a subquery must select the BlindIndex column"):
            one.c.name == "ann"  # noqa: B015  what is tested


def test_unions(session: Session) -> None:
    of_two = union_all(
        select(Person.id, Person.name, Person.name_index), select(Pet.id, Pet.name, Pet.name_index)
    ).subquery()
    with pytest.raises(NotSearchable, match="union"):
        of_two.c.name == "ann"  # noqa: B015  what is tested
    one = select(Person.id, Person.name, Person.name_index)
    of_one = union_all(one.where(Person.id == 1), one.where(Person.id == 2)).subquery()
    assert session.execute(select(of_one.c.id, of_one.c.name).where(of_one.c.name == "bob")).all() == [(2, "bob")]
    renamed = union_all(select(Pet.name, Pet.name_index), select(Pet.breed, Pet.name_index)).subquery()
    with pytest.raises(NotSearchable):
        renamed.c.name == "ann"  # noqa: B015  what is tested
    crossed = union_all(select(CHILD.name, CHILD.name_index), select(CHILD.name, PARENT.name_index)).subquery()
    with pytest.raises(NotSearchable):
        crossed.c.name == "ann"  # noqa: B015  what is tested
    with_null = union_all(one, select(Pet.id, null(), null())).subquery()
    found = session.execute(select(with_null.c.id, with_null.c.name).order_by(with_null.c.name.is_(None), "id")).all()
    assert found == [(1, "ann"), (2, "bob"), (1, None), (2, None)]
    assert session.scalars(select(with_null.c.id).where(with_null.c.name == "ann")).all() == [1]
