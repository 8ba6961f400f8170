"""Declarations that cannot do what they look like are refused where they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from keyside.fields import NotInstalled, NotSearchable, from_context
from keyside.sqlalchemy import BlindIndex, Encrypted
from sqlalchemy import (
    Column,
    Computed,
    Engine,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError, StatementError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    configure_mappers,
    mapped_column,
    relationship,
)


def secret(**options: Any) -> Encrypted:
    return Encrypted(String, keyring="k", **options)


def table(*items: Any, key: Column[Any] | None = None) -> Table:
    if key is None:
        key = Column("id", Uuid, primary_key=True, default=uuid4)
    return Table("t", MetaData(), key, Column("tenant", Integer), *items)


def replaced(name: str, *declared: Any) -> Table:
    return Table("t", table(*declared).metadata, Column(name, String), extend_existing=True)


AT_ONCE: dict[str, tuple[Callable[[], Any], str]] = {
    "variant": (lambda: table(Column("s", secret().with_variant(Text(), "mysql"))), "give storage= a type with"),
    "variant of an index": (
        lambda: table(Column("m", secret()), Column("s", BlindIndex("m").with_variant(LargeBinary(40), "sqlite"))),
        "leave it out",
    ),
    "replaced": (lambda: replaced("S", Column("s", secret(), key="mail")), "autoload_replace=False"),
    "replaced index": (
        lambda: replaced("s", Column("m", secret()), Column("s", BlindIndex("m"))),
        "autoload_replace=False",
    ),
    "unique": (lambda: table(Column("s", secret(), unique=True)), "name its BlindIndex"),
    "index": (lambda: table(Column("s", secret(), index=True)), "name its BlindIndex"),
    "primary key": (lambda: table(Column("s", secret(), primary_key=True)), "use another key"),
    "server default": (lambda: table(Column("s", secret(), server_default="x")), "the database cannot encrypt"),
    "bound to itself": (lambda: table(Column("s", secret(bind="s"))), "bind names the column itself"),
    "its own partition": (lambda: table(Column("s", secret(partition="s"))), "partition names the column itself"),
    "unique constraint": (
        lambda: table(Column("s", secret()), UniqueConstraint("tenant", "s")),
        "UniqueC",
    ),
    "index object": (lambda: table(Column("s", secret()), Index("i", "s")), "Index over an encrypted column"),
    "index of a function": (lambda: Index("i", func.lower(table(Column("s", secret())).c.s)), "Index over"),
    "index beside": (lambda: Index("i", table(Column("s", secret())).c.s), "name its BlindIndex column"),
}


@pytest.mark.parametrize(("declare", "told"), AT_ONCE.values(), ids=AT_ONCE.keys())
def test_options_that_do_nothing_are_refused_at_once(declare: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"(t\.)?s: .*({told})"):
        declare()


BOUND = Encrypted(String, keyring="k", bind="id")
CHOSEN = Encrypted(String, keyring="k", partition="c")
LATER: dict[str, tuple[Callable[[], Table], str]] = {
    "no such partition": (
        lambda: table(Column("s", secret(partition="nope"))),
        r"names 'nope'.*\(id, tenant\)",
    ),
    "no such key": (lambda: table(Column("s", secret(bind="nope"))), "bind names 'nope'"),
    "autoincrement": (
        lambda: table(Column("s", BOUND), key=Column("id", Integer, primary_key=True)),
        "the database makes",
    ),
    "server default": (
        lambda: table(Column("s", BOUND), key=Column("id", Uuid, primary_key=True, server_default=text("x()"))),
        "autoincrement=False",
    ),
    "sequence": (
        lambda: table(Column("s", BOUND), key=Column("id", Integer, Sequence("q"), primary_key=True)),
        "a default that Python computes",
    ),
    "identity": (
        lambda: table(Column("s", BOUND), key=Column("id", Integer, Identity(), primary_key=True)),
        "database makes",
    ),
    "SQL default": (
        lambda: table(Column("s", BOUND), key=Column("id", String, primary_key=True, default=func.now())),
        "the database makes",
    ),
    "key that changes": (
        lambda: table(
            Column("s", BOUND),
            key=Column("id", Integer, autoincrement=False, primary_key=True, default=int, onupdate=text("7")),
        ),
        "'id', which the database changes by itself",
    ),
    "partition: server default": (
        lambda: table(Column("c", Integer, server_default="5"), Column("s", CHOSEN)),
        "its partition is 'c', which the database makes",
    ),
    "partition: SQL default": (
        lambda: table(Column("c", Integer, default=text("5")), Column("s", CHOSEN)),
        "the database makes",
    ),
    "partition: computed": (
        lambda: table(Column("c", Integer, Computed("tenant + 1")), Column("s", CHOSEN)),
        "the database makes",
    ),
    "partition: onupdate": (
        lambda: table(Column("c", Integer, onupdate=text("c + 1")), Column("s", CHOSEN)),
        "'c', which the database changes by itself",
    ),
    "partition: trigger": (
        lambda: table(Column("c", Integer, server_onupdate=FetchedValue()), Column("s", CHOSEN)),
        "the database changes by itself",
    ),
}


def follows(**rule: Any) -> Table:
    return table(Column("clinic", ForeignKey("clinics.id", **rule)), Column("s", secret(partition="clinic")))


LATER |= {
    "cascade": (
        lambda: follows(onupdate="CASCADE"),
        r"'clinic', which the database changes by itself \(ON UPDATE CASCADE\)",
    ),
    "null on update": (lambda: follows(onupdate="set null"), r"by itself \(ON UPDATE SET NULL\)"),
    "null on delete": (lambda: follows(ondelete="SET NULL"), r"by itself \(ON DELETE SET NULL\)"),
    "default on delete": (lambda: follows(ondelete="SET DEFAULT"), r"by itself \(ON DELETE SET DEFAULT\)"),
}


@pytest.mark.parametrize(("declare", "told"), LATER.values(), ids=LATER.keys())
def test_what_a_column_needs_must_be_there(sqlite: Engine, declare: Callable[[], Table], told: str) -> None:
    declared = declare()
    with sqlite.connect() as connection, pytest.raises(StatementError, match=told):
        connection.execute(insert(declared).values(s="x"))

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __table__ = declare()

    with pytest.raises(ValueError, match=told):
        configure_mappers()
    Base.registry.dispose()


def test_an_update_that_lets_the_database_change_a_partition_is_refused(sqlite: Engine) -> None:
    declared = table(Column("c", Integer, onupdate=text("c + 1")), Column("s", CHOSEN))
    with sqlite.connect() as connection, pytest.raises(ValueError, match="changes by itself"):
        connection.execute(update(declared).values(tenant=1))


@pytest.mark.parametrize(
    "key",
    [
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, default=lambda: 1),
        Column("id", Integer, ForeignKey("clinics.id"), primary_key=True),
        Column("id", String, primary_key=True),
    ],
)
def test_keys_that_python_knows_are_fine(sqlite: Engine, key: Column[Any]) -> None:
    declared = table(Column("s", BOUND), Column("u", secret(partition=from_context("x"))), key=key._copy())
    with sqlite.connect() as connection, pytest.raises(OperationalError, match="no such table"):
        connection.execute(select(declared))


def test_a_blind_index_is_indexed_unless_told_otherwise(sqlite: Engine) -> None:
    declared = table(
        Column("s", secret()),
        Column("a", BlindIndex("s")),
        Column("b", BlindIndex("s"), unique=True),
        Column("c", BlindIndex("s"), index=False),
        Column("d", BlindIndex("s"), index=True),
    )
    assert {index.name for index in declared.indexes} == {"ix_t_a", "ix_t_d"}
    copied = declared.to_metadata(MetaData())
    assert {index.name for index in copied.indexes} == {"ix_t_a", "ix_t_d"}

    class Mixin:
        s: Mapped[str] = mapped_column(secret())
        s_index: Mapped[bytes | None] = mapped_column(BlindIndex("s"))

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention={"ix": "own_%(table_name)s_%(column_0_name)s"})

    class One(Mixin, Base):
        __tablename__ = "one"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    class Two(Mixin, Base):
        __tablename__ = "two"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    names = {index.name for made in Base.metadata.tables.values() for index in made.indexes}
    assert names == {"own_one_s_index", "own_two_s_index"}
    with sqlite.begin() as connection:
        Base.metadata.create_all(connection)


def test_what_a_class_declares_is_checked_as_well() -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(secret())
        shouted: Mapped[str] = column_property(func.upper(text.column))  # type: ignore[attr-defined]  # a mapped_column here

    with pytest.raises(NotSearchable, match="a function"):
        configure_mappers()
    Base.registry.dispose()

    class Other(DeclarativeBase):
        pass

    class Person(Other):
        __tablename__ = "persons"
        id: Mapped[int] = mapped_column(primary_key=True)
        mail: Mapped[str] = mapped_column(secret())
        notes: Mapped[list[Letter]] = relationship(primaryjoin="Person.mail == foreign(Letter.mail)", viewonly=True)

    class Letter(Other):
        __tablename__ = "letters"
        id: Mapped[int] = mapped_column(primary_key=True)
        mail: Mapped[str] = mapped_column(secret())

    with pytest.raises(NotSearchable, match="a comparison with an expression"):
        configure_mappers()
    Other.registry.dispose()

    class Third(DeclarativeBase):
        pass

    class Lonely(Third):
        __tablename__ = "lonely"
        id: Mapped[int] = mapped_column(primary_key=True)
        index: Mapped[bytes] = mapped_column(BlindIndex("nothing"))

    with pytest.raises(NotInstalled, match="no Encrypted column"):
        configure_mappers()
    Third.registry.dispose()


def test_an_index_beside_a_renamed_column_says_what_it_was_called(sqlite: Engine) -> None:
    renamed = secret(context="people.s")
    for index, error in ((BlindIndex("s"), ValueError), (BlindIndex("s", context="people.i"), OperationalError)):
        declared = table(Column("s", renamed), Column("i", index))
        with sqlite.connect() as connection, pytest.raises((error, StatementError)) as caught:
            connection.execute(select(declared.c.id).where(declared.c.s == "x"))
        told = str(caught.value)
        assert ("t.i: the column that it indexes names a context=" in told) == (error is ValueError)

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "persons"
        id: Mapped[int] = mapped_column(primary_key=True)
        mail: Mapped[str] = mapped_column(secret(context="people.mail"))
        mail_index: Mapped[bytes] = mapped_column(BlindIndex("mail"))

    with pytest.raises(ValueError, match=r"Give it context= as well.*'persons\.mail_index' when it never"):
        configure_mappers()
    Base.registry.dispose()


def test_a_column_is_not_deferred_where_another_needs_it() -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant: Mapped[int] = mapped_column(deferred=True)
        text: Mapped[str] = mapped_column(secret(partition="tenant"))

    with pytest.raises(ValueError, match=r"notes\.text: it needs tenant, which is deferred"):
        configure_mappers()
    Base.registry.dispose()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_error": "None"}, "on_error: expected 'raise' or 'none', not 'None'"),
        ({"migrating": "plaintxt"}, "migrating: expected None, 'plain', 'plaintext' or 'rotating', not 'plaintxt'"),
        ({"storage": "blob"}, "storage: expected 'bytes', 'text' or a type"),
        ({"storage": String}, "storage: expected"),
    ],
)
def test_arguments_are_checked_at_run_time(options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        secret(**options)
    with pytest.raises(TypeError, match="keyring: expected the name of a keyring"):
        Encrypted(String, keyring=None)  # type: ignore[arg-type]  # what is tested


def test_reflection_does_not_undo_encryption(sqlite: Engine) -> None:
    declared = table(Column("mail", secret(storage="text"), key="email"))
    declared.metadata.create_all(sqlite)
    with pytest.raises(ValueError, match=r"t\.mail: a plain column would take its place"):
        declared.metadata.reflect(sqlite, extend_existing=True)
    assert isinstance(declared.c.email.type, Encrypted)
    declared.metadata.reflect(sqlite, extend_existing=True, autoload_replace=False)
    assert isinstance(declared.c.email.type, Encrypted)
    again = Table("t", declared.metadata, Column("mail", secret(), key="email"), extend_existing=True)
    assert isinstance(again.c.email.type, Encrypted)


def visits(ondelete: str) -> Table:
    metadata = MetaData()
    Table("clinics", metadata, Column("id", Integer, primary_key=True))
    Table("doctors", metadata, Column("clinic", Integer, primary_key=True), Column("id", Integer, primary_key=True))
    return Table(
        "visits",
        metadata,
        Column("id", Uuid, primary_key=True, default=uuid4),
        Column("clinic", ForeignKey("clinics.id", ondelete="CASCADE", onupdate="RESTRICT")),
        Column("doctor", Integer),
        Column("s", secret(partition="clinic")),
        ForeignKeyConstraint(["clinic", "doctor"], ["doctors.clinic", "doctors.id"], ondelete=ondelete),
    )


def test_foreign_keys_that_leave_what_is_bound_alone(sqlite: Engine) -> None:
    for allowed in ("SET NULL (doctor)", "no action", "CASCADE"):
        visits(allowed).c.s.type.field()  # type: ignore[attr-defined]  # an Encrypted
    for refused in ("SET NULL", 'set null (doctor, "clinic")'):
        with pytest.raises(ValueError, match=r"visits\.s: .*ON DELETE SET NULL"):
            visits(refused).c.s.type.field()  # type: ignore[attr-defined]  # an Encrypted


@pytest.mark.parametrize("inherits", [False, True])
def test_a_key_that_follows_another_is_the_one_of_a_hierarchy(inherits: bool) -> None:
    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "person"
        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)

    class Nurse(Person if inherits else Base):  # type: ignore[misc]  # either
        __tablename__ = "nurse"
        id: Mapped[UUID] = mapped_column(ForeignKey("person.id", onupdate="CASCADE"), primary_key=True, default=uuid4)
        s: Mapped[str] = mapped_column(secret(bind="id"))

    if inherits:
        configure_mappers()
    else:
        with pytest.raises(ValueError, match=r"nurse\.s: .*ON UPDATE CASCADE"):
            configure_mappers()
    Base.registry.dispose()
