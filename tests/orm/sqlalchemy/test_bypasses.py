"""Ways around the comparator: none may answer wrongly without a word, nor send a plaintext to the database."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from keyside import Client
from keyside.fields import FieldUnwritable, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install, uninstall
from sqlalchemy import (
    CHAR,
    Engine,
    ForeignKey,
    LargeBinary,
    String,
    all_,
    and_,
    any_,
    between,
    bindparam,
    case,
    cast,
    column,
    create_engine,
    delete,
    desc,
    except_,
    exists,
    func,
    insert,
    intersect,
    join,
    lambda_stmt,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    union,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)

SECRET = "ann@example.org"
OTHER = "bob@example.org"


class Base(DeclarativeBase):
    pass


class Person(Base):
    """An attribute that is named otherwise than its column, and one that is not encrypted."""

    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    mail: Mapped[str] = mapped_column("email", Encrypted(String(100), keyring="k"))
    mail_index: Mapped[bytes | None] = mapped_column("email_index", BlindIndex("email", normalize="casefold"))
    domain: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="domain"))
    secret: Mapped[str | None] = mapped_column(Encrypted(String(100), keyring="k"))
    active: Mapped[Any] = mapped_column(Encrypted(CHAR, keyring="k"), nullable=True)
    nick: Mapped[str | None]
    pets: Mapped[list[Pet]] = relationship(back_populates="owner", foreign_keys="Pet.owner_id")


class Pet(Base):
    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id"))
    mail: Mapped[str] = mapped_column(Encrypted(String(100), keyring="k"))
    mail_index: Mapped[bytes | None] = mapped_column(
        BlindIndex("mail", normalize="casefold", context="persons.email_index")
    )
    owner: Mapped[Person | None] = relationship(back_populates="pets", foreign_keys=owner_id)


@pytest.fixture
def sent() -> list[Any]:
    """Everything that the driver got."""
    return []


@pytest.fixture
def engine(client: Client, sent: list[Any]) -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    install(engine, client, unbatched="error")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Person(id=1, mail=SECRET, secret=SECRET, nick="a"))
        session.add(Person(id=2, mail=OTHER, secret=OTHER, nick="b"))
        session.flush()
        session.add_all([Pet(id=1, owner_id=1, mail=SECRET), Pet(id=2, owner_id=2, mail="carl@example.org")])
        session.commit()
    for name in ("do_execute", "do_executemany"):
        real = getattr(engine.dialect, name)

        def spy(cursor: Any, statement: str, parameters: Any, *rest: Any, real: Any = real) -> Any:
            sent.append((statement, parameters))
            return real(cursor, statement, parameters, *rest)

        setattr(engine.dialect, name, spy)
    yield engine
    uninstall(engine)
    engine.dispose()


mail, index = Person.mail, Person.mail_index
other, pet = aliased(Person), aliased(Pet)
of_person = select(Person.id).order_by(Person.id)


def named(value: Any) -> dict[str, Any]:
    return {"x": value}


ANSWERED: dict[str, tuple[Any, list[int]]] = {
    "literal": (of_person.where(mail == literal("ANN@example.org")), [1]),
    "unequal": (of_person.where(mail != literal(SECRET)), [2]),
    "typed": (of_person.where(mail == bindparam("x", type_=String)), [1]),
    "untyped": (of_person.where(mail == bindparam("x")), [1]),
    "with a value": (of_person.where(mail == bindparam("y", SECRET, String)), [1]),
    "called": (of_person.where(mail == bindparam("y", type_=String, callable_=lambda: SECRET)), [1]),
    "not null safe": (of_person.where(mail.is_distinct_from(literal(SECRET))), [2]),
    "null safe": (of_person.where(mail.is_not_distinct_from(bindparam("x", type_=String))), [1]),
    "in literals": (of_person.where(mail.in_([literal(SECRET), "nobody"])), [1]),
    "in parameters": (of_person.where(mail.in_([bindparam("x", type_=String), OTHER])), [1, 2]),
    "not in literals": (of_person.where(mail.not_in([literal(SECRET)])), [2]),
    "in a parameter": (of_person.where(mail.in_(bindparam("many", type_=String, expanding=True))), [1]),
    "in a set": (of_person.where(mail.in_({SECRET})), [1]),
    "in a generator": (of_person.where(mail.in_(one for one in [SECRET])), [1]),
    "in with None": (of_person.where(mail.in_([SECRET, None])), [1]),
    "one parameter, several columns": (
        of_person.where(or_(mail == bindparam("x"), Person.domain == bindparam("x"), Person.nick == bindparam("z"))),
        [1, 2],
    ),
    "negated": (of_person.where(not_(mail == literal(SECRET))), [2]),
    "an index": (of_person.where(index == literal(SECRET)), [1]),
    "an index and a parameter": (of_person.where(index == bindparam("x", type_=LargeBinary)), [1]),
    "an index in literals": (of_person.where(index.in_([literal(SECRET)])), [1]),
    "an alias": (select(other.id).where(other.mail == literal(SECRET)), [1]),
    "case": (select(case((mail == literal(SECRET), 1), else_=2)).order_by(Person.id), [1, 2]),
    "having": (select(Person.id).group_by(Person.id).having(mail == literal(SECRET)), [1]),
    "exists": (of_person.where(exists().where(pet.owner_id == Person.id, pet.mail == literal(SECRET))), [1]),
    "criteria": (of_person.options(with_loader_criteria(Person, mail == literal(SECRET))), [1]),
    "criteria of a function": (of_person.options(with_loader_criteria(Person, lambda cls: cls.mail == SECRET)), [1]),
    "a lambda": (lambda_stmt(lambda: select(Person.id).where(Person.mail == SECRET)), [1]),
    "filter_by": (select(Person.id).filter_by(mail=literal(SECRET)), [1]),
    "indexes of one context": (select(Person.id).join(Pet, index == Pet.mail_index), [1]),
    "an index in a query": (of_person.where(index.in_(select(Pet.mail_index))), [1]),
    "counting": (select(func.count(func.distinct(index)), func.count(mail)).with_only_columns(func.count(mail)), [2]),
    "a window": (select(func.row_number().over(order_by=Person.id)).order_by(Person.id), [1, 2]),
    "grouped by index": (select(func.count()).select_from(Person).group_by(index), [1, 1]),
    "names of plain columns": (select(Person.id).order_by(text("nick desc"), "id"), [2, 1]),
    "updated where": (update(Person).where(mail == literal(SECRET)).values(nick="z").returning(Person.id), [1]),
    "deleted where": (delete(Pet).where(Pet.mail == literal(SECRET)).returning(Pet.id), [1]),
}
GIVEN = {"x": SECRET, "z": "nobody", "many": [SECRET]}


def everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=0)) + repr(error) + repr(getattr(error, "params", ""))


@pytest.mark.parametrize(("statement", "want"), ANSWERED.values(), ids=ANSWERED.keys())
def test_values_of_any_type_are_looked_for_in_the_index(
    engine: Engine, sent: list[Any], caplog: pytest.LogCaptureFixture, statement: Any, want: list[int]
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    for _ in range(2):  # compiled, then from the cache
        with Session(engine) as session:
            parameters = {} if "Delete" in type(statement).__name__ or "Update" in type(statement).__name__ else GIVEN
            assert session.scalars(statement, parameters).all() == want
    assert SECRET not in repr(sent).lower()
    assert SECRET not in caplog.text.lower()


REFUSED: dict[str, Any] = {
    "a query": lambda: mail.in_(select(mail)),
    "not in a query": lambda: mail.not_in(select(Pet.mail)),
    "in a plain query": lambda: mail.in_(select(Person.nick)),
    "in columns": lambda: mail.in_([Person.nick]),
    "in a text": lambda: mail.in_(SECRET),
    "in a number": lambda: mail.in_(5),  # type: ignore[arg-type]  # what is tested
    "a scalar query": lambda: mail == select(Person.nick).scalar_subquery(),
    "equal to a query": lambda: mail == select(Person.nick),
    "text": lambda: mail == text(f"'{SECRET}'"),
    "a column": lambda: mail == Person.nick,
    "an encrypted column": lambda: mail == Pet.mail,
    "its own index": lambda: mail == index,
    "a function": lambda: mail == func.lower(SECRET),
    "cast value": lambda: mail == cast(SECRET, String),
    "coerced value": lambda: mail == type_coerce(SECRET, String),
    "reversed": lambda: literal(SECRET) == mail,
    "reversed in": lambda: literal(SECRET).in_([mail]),
    "is": lambda: mail.is_(literal(SECRET)),
    "op": lambda: mail.op("=")(SECRET),
    "bool_op": lambda: mail.bool_op("=")(SECRET),
    "reversed op": lambda: literal(SECRET).op("=")(mail),
    "any": lambda: any_(select(mail).scalar_subquery()) == SECRET,
    "all": lambda: mail == all_(select(Person.nick).scalar_subquery()),
    "a tuple": lambda: tuple_(mail, Person.id).in_([(SECRET, 1)]),
    "a tuple with an index": lambda: tuple_(index, Person.id).in_([(SECRET, 1)]),
    "between": lambda: mail.between(SECRET, "z"),
    "value between": lambda: between(literal(SECRET), mail, mail),
    "like": lambda: mail.like(SECRET),
    "reversed like": lambda: literal(SECRET).like(mail),
    "match": lambda: mail.match(SECRET),
    "regexp": lambda: mail.regexp_match(SECRET),
    "contains": lambda: mail.contains(SECRET),
    "startswith": lambda: mail.startswith(literal(SECRET)),
    "added": lambda: mail + "x" == SECRET,
    "concatenated": lambda: literal("x") + mail == SECRET,
    "coalesce": lambda: func.coalesce(mail, "x") == SECRET,
    "lower": lambda: func.lower(mail) == SECRET,
    "cast": lambda: cast(mail, String) == SECRET,
    "coerced": lambda: type_coerce(mail, String) == SECRET,
    "a label": lambda: mail.label("m") == func.lower(SECRET),
    "case of values": lambda: case({SECRET: 1}, value=mail) == 1,
    "case of values of an index": lambda: case({SECRET: 1}, value=index) == 1,
    "literal column": lambda: literal_column("email") == SECRET,
    "literal column of a table": lambda: literal_column('persons."email"') == SECRET,
    "bare column": lambda: column("email") == SECRET,
    "an index and a column": lambda: index == Person.nick,
    "an index and ciphertext": lambda: index == Person.secret,
    "an index and a function": lambda: index == func.lower(SECRET),
    "a function of an index": lambda: func.lower(index) == SECRET,
    "a cast index": lambda: cast(index, String) == SECRET,
    "a coerced index": lambda: type_coerce(index, String) == SECRET,
    "reversed index": lambda: literal(SECRET) == index,
    "an index in a plain query": lambda: index.in_(select(Person.nick)),
    "an index in a query of ciphertext": lambda: index.in_(select(Pet.mail)),
    "another index": lambda: index == Person.domain,
    "an index is": lambda: index.is_(SECRET),
    "an index with op": lambda: index.op("=")(SECRET),
    "an index and any": lambda: index == any_(select(Pet.mail_index).scalar_subquery()),
    "exists": lambda: exists().where(pet.mail == Person.mail),
    "a plain column in ciphertexts": lambda: Person.nick.in_(select(mail)),
    "a plain column and ciphertext": lambda: Person.nick == mail,
    "a wrong type": lambda: mail == 5,
    "a wrong type of an index": lambda: index == SECRET.encode(),
    "a wrong type among others": lambda: mail.in_([5]),
    "a wrong type of a part": lambda: Person.domain == 5,
}
STATEMENTS: dict[str, Any] = {
    "its truth": lambda: select(Person.id).where(Person.active),
    "its truth among others": lambda: select(Person.id).where(and_(Person.active, Person.id == 1)),
    "its lie": lambda: select(Person.id).where(not_(Person.active)),
    "joined on its truth": lambda: select(Pet.id).select_from(join(Pet, Person, and_(Person.active))),
    "order by a name": lambda: select(Person).order_by("email"),
    "order by a name, descending": lambda: select(Person).order_by(desc("email")),
    "order by a label": lambda: select(mail.label("m")).order_by("m"),
    "order by a labelled": lambda: select(mail.label("m")).order_by(desc("m")),
    "order by text": lambda: select(Person).order_by(text("email")),
    "order by text, qualified": lambda: select(Person).order_by(text('persons."email" DESC NULLS LAST')),
    "order by texts": lambda: select(Person).order_by(text("id, email")),
    "order by a joined name": lambda: select(Person.id).join(Person.pets).order_by("mail"),
    "order by a literal column": lambda: select(Person).order_by(literal_column("email")),
    "group by a name": lambda: select(func.count(), mail).group_by("email"),
    "group by text": lambda: select(func.count()).select_from(Person).group_by(text("email")),
    "distinct": lambda: select(mail).distinct(),
    "window": lambda: select(func.row_number().over(order_by=mail)),
    "window, descending": lambda: select(func.row_number().over(order_by=desc(mail))),
    "window by partition": lambda: select(func.row_number().over(partition_by=mail)),
    "window by name": lambda: select(Person.id, func.row_number().over(order_by="email")),
    "window by text": lambda: select(Person.id, func.row_number().over(partition_by=text("email"))),
    "union": lambda: union(select(mail), select(Pet.mail)),
    "intersect": lambda: intersect(select(mail), select(Pet.mail)),
    "except": lambda: except_(select(mail), select(Pet.mail)),
    "order of a union": lambda: select(mail).union_all(select(Pet.mail)).order_by("mail"),
    "a function": lambda: select(func.upper(mail)),
    "a function of an index": lambda: select(Person.id).where(func.length(index) == 3),
    "joined on ciphertexts": lambda: select(Person.id).join(Pet, Person.mail == Pet.mail),
    "having": lambda: select(Person.id).group_by(Person.id).having(mail == func.lower(SECRET)),
    "a value": lambda: update(Person).values(mail=func.lower(SECRET)),
    "a plain column": lambda: update(Person).values(mail=Person.nick),
    "a query as value": lambda: update(Person).values(mail=select(Person.nick).scalar_subquery()),
    "an index as value": lambda: update(Person).values(mail_index=func.lower(SECRET)),
    "ordered values": lambda: update(Person).ordered_values((Person.mail, func.lower(SECRET))),
    "several values": lambda: insert(Person).values([{"id": 7, "mail": func.lower(SECRET)}]),
    "several values by position": lambda: insert(Base.metadata.tables["pets"]).values(
        [(7, 1, func.lower(SECRET), None)]
    ),
    "a value without index": lambda: insert(Person).values(id=7, secret=func.lower(SECRET)),
    "from a query": lambda: insert(Person).from_select([Person.mail], select(literal(SECRET))),
    "an index from a query": lambda: insert(Person).from_select([index], select(literal(SECRET))),
    "ciphertext to a plain column": lambda: update(Person).values(nick=Person.secret),
    "ciphertext from a query": lambda: insert(Person).from_select(["nick"], select(mail)),
    "an upsert": lambda: (
        upsert(Person)
        .values(id=1, mail=SECRET)
        .on_conflict_do_update(index_elements=["id"], set_={"secret": func.lower(SECRET)})
    ),
    "an upsert where": lambda: (
        upsert(Person)
        .values(id=1, mail=SECRET)
        .on_conflict_do_update(index_elements=["id"], set_={"nick": "x"}, where=func.lower(mail) == SECRET)
    ),
    "criteria": lambda: select(Person.id).options(with_loader_criteria(Person, mail == Person.nick)),
    "a bundle": lambda: select(Bundle("b", Person.id, func.lower(mail))),
}


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
@pytest.mark.parametrize("condition", REFUSED.values(), ids=REFUSED.keys())
def test_conditions_that_cannot_be_answered_are_refused_and_not_sent(
    engine: Engine, sent: list[Any], caplog: pytest.LogCaptureFixture, condition: Any
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    for build in (
        lambda: of_person.where(condition()),
        lambda: select(Person.id, condition().label("c")),
        lambda: select(select(Person.id).where(condition()).subquery()),
        lambda: update(Person).where(condition()).values(nick="x").execution_options(synchronize_session=False),
        lambda: delete(Person).where(condition()).execution_options(synchronize_session=False),
        lambda: select(Pet.id).join(Person, condition()),
    ):
        # SQLite's DELETE knows one table, which SQLAlchemy says with a subclass of RuntimeError
        with Session(engine) as session, pytest.raises((NotSearchable, RuntimeError)) as caught:
            session.execute(build())
        assert SECRET not in everything(caught.value)
    assert SECRET not in repr(sent).lower()
    assert SECRET not in caplog.text.lower()


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_statements_that_cannot_be_answered_are_refused_and_not_sent(
    engine: Engine, sent: list[Any], caplog: pytest.LogCaptureFixture, statement: Any
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    with Session(engine) as session, pytest.raises(NotSearchable) as caught:
        session.execute(statement())
    assert SECRET not in everything(caught.value)
    assert SECRET not in repr(sent).lower()
    assert SECRET not in caplog.text.lower()


WRITTEN: dict[str, Any] = {
    "literal": lambda: insert(Person).values(id=7, mail=literal("new@x.org"), secret=literal("new")),
    "parameter": lambda: insert(Person).values(id=7, mail="new@x.org", secret=bindparam("p", "new", String)),
    "several": lambda: insert(Person).values([{"id": 7, "mail": literal("new@x.org"), "secret": literal("new")}]),
    "upsert": lambda: (
        upsert(Person)
        .values(id=7, mail="old@x.org", secret="old")
        .on_conflict_do_update(index_elements=["id"], set_={"email": literal("new@x.org"), "secret": literal("new")})
    ),
    "update": lambda: update(Person).where(Person.id == 7).values(mail=literal("new@x.org"), secret=literal("new")),
    "ordered": lambda: (
        update(Person)
        .where(Person.id == 7)
        .ordered_values((Person.mail, literal("new@x.org")), (Person.secret, literal("new")))
    ),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_values_with_a_type_of_their_own_are_encrypted(engine: Engine, sent: list[Any], how: str) -> None:
    with Session(engine) as session:
        if how in ("upsert", "update", "ordered"):
            session.execute(insert(Person).values(id=7, mail="first", secret="first"))
        session.execute(WRITTEN[how]())
        assert "new" not in repr(sent)
        found = session.execute(select(Person.mail, Person.secret).where(Person.mail == "NEW@x.org")).one()
        assert found == ("new@x.org", "new")
        assert session.scalars(select(Person.id).where(Person.domain == "x.org")).all() == [7]


def test_objects_with_expressions(engine: Engine, sent: list[Any]) -> None:
    persons = Base.metadata.tables["persons"]
    with Session(engine) as session:
        session.add(Person(id=8, mail=literal("new@x.org")))
        session.flush()
        assert session.scalars(select(Person.id).where(Person.mail == "new@x.org")).all() == [8]
        session.add(Person(id=9, mail=func.lower(SECRET)))
        with pytest.raises(NotSearchable):
            session.flush()
        session.rollback()
        with pytest.raises(FieldUnwritable):
            session.connection().execute(insert(persons), {"id": 9, "email": literal("new@x.org")})
    assert "new" not in repr(sent)
    assert SECRET not in repr(sent)


def test_loading_beside_conditions_still_works(engine: Engine) -> None:
    statement = select(Person).options(selectinload(Person.pets)).order_by(Person.id)
    with Session(engine) as session:
        assert [one.mail for one in session.scalars(statement)] == [SECRET, OTHER]
        joined = select(Person).options(joinedload(Person.pets)).where(Person.mail == SECRET)
        assert [one.pets[0].mail for one in session.scalars(joined).unique()] == [SECRET]
        assert session.scalars(select(func.count(type_coerce(Person.secret, LargeBinary)))).all() == [2]
        beside = select(Person.id, select(Pet.mail).where(Pet.owner_id == Person.id).scalar_subquery()).order_by(
            Person.id
        )
        assert session.execute(beside).all() == [(1, SECRET), (2, "carl@example.org")]
        assert session.scalars(select(case((Person.id == 1, Person.secret))).order_by(Person.id)).all() == [
            SECRET,
            None,
        ]


@pytest.mark.parametrize("how", ["auto", "evaluate", "fetch"])
def test_objects_follow_an_update_that_looks_for_a_value(engine: Engine, how: Any) -> None:
    options = {"synchronize_session": how}
    for condition in (mail == SECRET, index == SECRET, Person.domain == "example.org"):
        with Session(engine) as session:
            one = session.get_one(Person, 1)
            session.execute(update(Person).where(condition).values(nick="new"), execution_options=options)
            assert one.nick == "new"
            session.execute(delete(Person).where(condition), execution_options=options)
            assert one not in session
            session.rollback()
