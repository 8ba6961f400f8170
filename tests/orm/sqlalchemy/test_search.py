"""What a blind index answers, and how everything else is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from keyside.fields import BindingMissing, FieldUnwritable, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted, install
from keyside.testing import assert_round_trips
from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    asc,
    case,
    cast,
    delete,
    desc,
    distinct,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)  # fmt: skip
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session, aliased

from tests.orm.sqlalchemy.conftest import fill
from tests.orm.sqlalchemy.models import Base, Card, Patient, patient


def numbers(session: Session, *conditions: Any) -> list[int]:
    return sorted(session.scalars(select(Patient.number).where(*conditions)))


def test_equality_is_a_lookup_in_the_same_round_trip(filled: Engine) -> None:
    with Session(filled) as session:
        with assert_round_trips(max=1):
            assert numbers(session, Patient.email == "p7@example.org") == [7]
        with assert_round_trips(max=2):
            assert session.scalars(select(Patient).where(Patient.email == "P7@EXAMPLE.ORG")).one().number == 7
        with assert_round_trips(max=1):
            assert numbers(session, Patient.email.in_([" p1@example.org", "p2@example.org", "nobody"])) == [1, 2]
        with assert_round_trips(max=1):
            assert len(numbers(session, Patient.email != "p1@example.org")) == 39
        assert len(numbers(session, Patient.email.not_in(["p1@example.org", "x"]))) == 39
        assert numbers(session, not_(Patient.email.in_(["p1@example.org"])), Patient.number < 3) == [0, 2]
        assert numbers(session, or_(Patient.email == "p1@example.org", Patient.number == 5)) == [1, 5]
        assert numbers(session, Patient.email.is_distinct_from("p1@example.org"), Patient.number < 3) == [0, 2]
        assert numbers(session, Patient.email == "nobody@example.org") == []
        assert numbers(session, Patient.email.in_([])) == []


def test_null_is_null(filled: Engine) -> None:
    with Session(filled) as session:
        session.add(patient(99, born=None))
        session.flush()
        assert numbers(session, Patient.born.is_(None)) == [99]
        assert numbers(session, Patient.born == None) == [99]  # noqa: E711  what is tested
        assert len(numbers(session, Patient.born.is_not(None), Patient.email != None)) == 40  # noqa: E711  what is tested


def test_parts_are_searched_by_their_own_column(filled: Engine) -> None:
    with Session(filled) as session:
        assert len(numbers(session, Patient.email_domain == "Example.org")) == 40
        assert numbers(session, Patient.email_domain == "other.org") == []
        session.add_all([Card(number="4111 1111 1111 1234"), Card(number="5500 0000 0000 1234"), Card(number="12")])
        session.flush()
        assert len(session.scalars(select(Card).where(Card.last_four == "1234")).all()) == 2
        assert session.scalars(select(Card.number).where(Card.last_four == "x 5500-1234")).all() != []
        assert session.scalars(select(Card.id).where(Card.number == "4111111111111234")).one()
        assert session.scalars(select(Card.number).where(Card.last_four.is_(None))).all() == ["12"]
        with pytest.raises(NotSearchable, match=r"no index under the normalisation 'last\(4\)'.*treat it as no result"):
            session.scalars(select(Card).where(Card.last_four == "12"))
        with pytest.raises(NotSearchable, match="no index"):
            session.scalars(select(Card).where(Card.last_four.in_(["1234", "12"])))


def test_aliases_subqueries_and_deletes(filled: Engine) -> None:
    other = aliased(Patient)
    inner = select(Patient.number, Patient.email, Patient.email_index).subquery()
    with Session(filled) as session:
        assert session.scalars(select(other.number).where(other.email == "p3@example.org")).all() == [3]
        assert session.scalars(select(inner.c.number).where(inner.c.email == "p3@example.org")).all() == [3]
        exists = select(other.id).where(other.number == Patient.number, other.email == "p3@example.org").exists()
        assert numbers(session, exists) == [3]
        session.execute(delete(Patient).where(Patient.email == "p3@example.org"))
        assert numbers(session, Patient.number < 5) == [0, 1, 2, 4]
        bare = select(Patient.number, Patient.email).subquery()
        with pytest.raises(NotSearchable, match="a subquery must select the BlindIndex column"):
            bare.c.email == "x"  # noqa: B015  what is tested


def test_uniqueness(filled: Engine) -> None:
    with Session(filled) as session:
        session.add(patient(50, clinic=2, email="p7@EXAMPLE.org"))
        with pytest.raises(IntegrityError) as caught:
            session.flush()
        assert "p7@" not in str(caught.value)


EMAIL = Patient.email
REFUSED: list[tuple[Any, str]] = [
    (lambda: EMAIL.like("%a%"), "substrings"),
    (lambda: EMAIL.ilike("%a%"), "substrings"),
    (lambda: EMAIL.startswith("a"), "substrings"),
    (lambda: EMAIL.contains("a"), "substrings"),
    (lambda: EMAIL.regexp_match("a"), "substrings"),
    (lambda: EMAIL < "a", "no order"),
    (lambda: EMAIL.between("a", "b"), "no order"),
    (lambda: EMAIL.desc(), "no order"),
    (lambda: EMAIL.asc().nulls_last(), "no order"),
    (lambda: EMAIL + "a", "in Python"),
    (lambda: "a" + EMAIL, "in Python"),
    (lambda: EMAIL.collate("C"), "in Python"),
    (lambda: EMAIL.distinct(), "in Python"),
    (lambda: Patient.notes["a"], "in Python"),
    (lambda: Patient.born == Patient.born.type, "BlindIndex"),
    (lambda: Patient.born.in_([None]), "BlindIndex"),
    (lambda: Patient.email_index < "a", "equality only"),
    (lambda: Patient.email_index.like("a"), "LIKE cannot be answered on a blind index: it knows equality only"),
    (lambda: EMAIL < "a", "email: < cannot"),
    (lambda: EMAIL + "a", r"email: \+ cannot"),
    (lambda: Patient.notes["a"], r"notes: \[\] cannot"),
    (lambda: EMAIL.not_like("a"), "email: NOT LIKE cannot"),
    (lambda: EMAIL.op("~~")("a"), "email: ~~ cannot"),
    (lambda: EMAIL.desc(), "email: ORDER BY cannot"),
]
EXECUTED: list[tuple[Any, str]] = [
    (lambda: select(Patient).order_by(EMAIL), "no order"),
    (lambda: select(Patient).order_by(desc(EMAIL)), "no order"),
    (lambda: select(Patient).order_by(asc("number"), EMAIL), "no order"),
    (lambda: select(func.count()).select_from(Patient).group_by(EMAIL), "different ciphertexts"),
    (lambda: select(Patient.born).distinct(), "different ciphertexts"),
    (lambda: select(func.count(distinct(EMAIL))), "in Python"),
    (lambda: select(func.lower(EMAIL)), "in Python"),
    (lambda: select(func.max(Patient.born)), "in Python"),
    (lambda: select(func.coalesce(EMAIL, "x")), "in Python"),
    (lambda: select(cast(EMAIL, String)), "in Python"),
    (lambda: select(Patient).where(Card.number == EMAIL), "compare blind indexes"),
    (lambda: select(Patient).where(literal("a") == EMAIL), "compare blind indexes"),
    (lambda: select(Patient).where(and_(Patient.number == 1, func.length(EMAIL) > 3)), "in Python"),
    (lambda: select(Patient.number).where(Patient.id.in_(select(Patient.id).order_by(EMAIL))), "no order"),
    (lambda: update(Patient).values(born=EMAIL), "expression cannot be encrypted"),
    (lambda: update(Patient).values(email=func.lower("A")), "expression cannot be encrypted"),
    (lambda: insert(Patient).from_select(["email"], select(EMAIL)), "insert the rows from Python"),
]


@pytest.mark.parametrize(("condition", "advice"), REFUSED)
def test_other_conditions_are_refused_with_advice(condition: Any, advice: str) -> None:
    with pytest.raises(NotSearchable, match=advice):
        condition()


@pytest.mark.parametrize(("statement", "advice"), EXECUTED)
def test_other_statements_are_refused_before_they_run(sqlite: Engine, statement: Any, advice: str) -> None:
    with Session(sqlite) as session, pytest.raises(NotSearchable, match=advice):
        session.execute(statement())


def test_what_stays_allowed(sqlite: Engine) -> None:
    with Session(sqlite) as session:
        fill(session, 3)
        assert session.scalar(select(func.count(EMAIL))) == 3
        assert len(session.scalars(select(Patient).distinct()).all()) == 3
        labelled = case((Patient.born.is_(None), "no"), else_="yes")
        assert set(session.scalars(select(labelled))) == {"yes"}


def test_wrong_types_are_refused_and_not_quoted(sqlite: Engine) -> None:
    with Session(sqlite) as session:
        for values in ({"email": 42}, {"born": "secret"}, {"notes": {"secret"}}):
            session.add(patient(1, **values))
            with pytest.raises(FieldUnwritable) as caught:
                session.flush()
            assert "secret" not in str(caught.value)
            session.rollback()
        with pytest.raises(NotSearchable, match=r"patients\.email: the value is not of the column's type"):
            session.scalars(select(Patient).where(EMAIL == 42))


def test_an_index_needs_an_encrypted_source(sqlite: Engine) -> None:
    table = Table("t", MetaData(), Column("id", Integer), Column("i", BlindIndex("nothing")))
    with sqlite.connect() as connection, pytest.raises(StatementError, match="no Encrypted column"):
        connection.execute(select(table).where(table.c.i == "a"))


def test_a_partitioned_index_searches_one_partition(sqlite: Engine, client: Any) -> None:
    import keyside

    metadata = MetaData()
    table = Table(
        "t",
        metadata,
        Column("tenant", Integer),
        Column("name", Encrypted(String, "users", partition="tenant")),
        Column("name_index", BlindIndex("name", partitioned=True)),
        Column("data", Encrypted(JSON, "users", partition="tenant", context="old.data")),
    )
    install(sqlite, client, unbatched="error")
    with sqlite.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(table), [{"tenant": n, "name": "x", "data": [n]} for n in range(3)])
        with pytest.raises(BindingMissing, match=re.escape("with keyside.context(tenant=")):
            connection.execute(select(table.c.data).where(table.c.name == "x"))
        with keyside.context(tenant=1):
            assert connection.scalars(select(table.c.data).where(table.c.name == "x")).all() == [[1]]
        condition = (table.c.name == "x") & (table.c.tenant == 2)
        with keyside.context(tenant=2):
            assert connection.scalars(select(table.c.data).where(condition)).all() == [[2]]


def test_a_search_takes_the_partition_of_its_own_rows(engine: Engine) -> None:
    """What an UPDATE says of the rows that it changes says nothing of others that it looks at."""
    import keyside

    table = Table(
        "searched",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("tenant", Integer),
        Column("done", Integer),
        Column("name", Encrypted(String, "users", partition="tenant")),
        Column("name_index", BlindIndex("name", partitioned=True)),
    )
    own, other = table.c, table.alias("other").c
    elsewhere = select(other.id).where(other.tenant == 2)
    conditions = [
        ([own.tenant == 1, own.name == "a"], [1]),
        ([own.tenant == 1, own.name_index.in_(["a", "b"])], [1]),
        ([own.tenant == 1, or_(own.name.in_(["b", "c"]), own.name_index == "a")], [1]),
        ([own.tenant == 1, elsewhere.where(other.name == "b").exists()], [1]),
        ([own.tenant == 1, elsewhere.where(other.name.in_(["b", "c"])).exists(), own.name == "a"], [1]),
        ([own.tenant == 1, elsewhere.where(other.name_index == "a").exists()], []),
    ]
    table.drop(engine, checkfirst=True)
    with engine.begin() as connection, keyside.context(tenant=2):
        table.create(connection)
        connection.execute(insert(table), [{"id": 1, "tenant": 1, "name": "a"}, {"id": 2, "tenant": 2, "name": "b"}])
        # MySQL reads no table in a subquery that it writes
        for number, (criteria, found) in enumerate(conditions[: 3 if engine.dialect.name == "mysql" else None]):
            with assert_round_trips(max=1):
                connection.execute(update(table).where(*criteria).values(done=number))
            assert connection.scalars(select(own.id).where(own.done == number)).all() == found
        beside = own.id < other.id, own.tenant == 1, other.tenant == 2, other.name == "b"
        connection.execute(update(table).where(*beside).values(done=100))
        assert connection.scalars(select(own.id).where(own.done == 100)).all() == [1]
    table.drop(engine)


def upsert(statement: Any, target: str, column: str, value: Any = None) -> Any:
    """The statement with the clause of its database; without a value the one that was to be inserted."""
    if hasattr(statement, "on_duplicate_key_update"):
        return statement.on_duplicate_key_update({column: value or statement.inserted[column]})
    return statement.on_conflict_do_update(index_elements=[target], set_={column: value or statement.excluded[column]})


def test_upserts(engine: Engine) -> None:
    dialect = __import__(f"sqlalchemy.dialects.{engine.dialect.name}", fromlist=["insert"])
    cards = Base.metadata.tables["cards"]
    with Session(engine) as session:
        session.add(Card(id=1, number="1111"))
        session.commit()
        statement = dialect.insert(cards).values([{"id": 1, "number": "2222"}, {"id": 2, "number": "3333"}])
        with assert_round_trips(max=1):
            session.execute(upsert(statement, "id", "number"))
        found = session.execute(select(Card.id, Card.number).where(Card.number.in_(["2222", "3333"]))).all()
        assert sorted(found) == [(1, "2222"), (2, "3333")]
        one = dialect.insert(cards).values(id=1, number="x")
        session.execute(upsert(one, "id", "number", "4444"))
        assert session.scalars(select(Card.id).where(Card.last_four == "4444")).all() == [1]
        fill(session, 2)
        row = {"number": 7, "clinic_id": 1, "email": "p1@example.org", "notes": {}}
        bound = dialect.insert(Patient).values(row)
        with pytest.raises(BindingMissing, match="bound to"):
            session.execute(upsert(bound, "email_index", "email"))


def test_an_update_must_not_lose_what_it_binds(filled: Engine) -> None:
    with Session(filled) as session:
        with pytest.raises(BindingMissing, match="changed by an UPDATE that does not write it"):
            session.execute(update(Patient).values(clinic_id=3))
        with pytest.raises(BindingMissing, match="bound to the row"):
            session.execute(update(Patient).where(Patient.number == 1).values(email="x", clinic_id=1))
