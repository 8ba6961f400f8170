"""Every way to read and write rows: right values, and how often the sidecar is asked."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from keyside.testing import assert_encrypted, assert_round_trips
from sqlalchemy import Engine, bindparam, delete, func, insert, select, text, union_all, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    Load,
    Session,
    aliased,
    defer,
    joinedload,
    lazyload,
    load_only,
    selectinload,
    subqueryload,
    undefer,
)

from tests.orm.sqlalchemy.conftest import ROWS
from tests.orm.sqlalchemy.models import Base, Card, Clinic, Patient, patient

EMAILS = [f"P{number}@Example.ORG" for number in range(ROWS)]
BORN = [date(2000, 1, 1 + number % 28) for number in range(ROWS)]


def test_a_flush_is_one_round_trip_a_statement(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Clinic(id=1, name="x"))
        with assert_round_trips(max=1):
            session.flush()
        session.add_all([patient(number) for number in range(ROWS)])
        with assert_round_trips(max=1):
            session.flush()
        session.add_all([Card(number=f"4111 {n:04}", limit=n) for n in range(ROWS)])
        with assert_round_trips(max=1):
            session.flush()
        session.commit()
        assert_encrypted(Patient, "email", bind=session)
        assert_encrypted(Patient, "notes", bind=session)
        assert assert_encrypted(Card, "number", bind=session) == ROWS


def test_loading_entities(filled: Engine) -> None:
    with Session(filled) as session, assert_round_trips(max=1):
        people = session.scalars(select(Patient).order_by(Patient.number)).all()
    assert [one.email for one in people] == EMAILS
    assert [one.born for one in people] == BORN
    assert [one.notes for one in people] == [{"n": number} for number in range(ROWS)]
    with Session(filled) as session, assert_round_trips(max=1):
        assert [one.email for one in session.query(Patient).order_by(Patient.number)] == EMAILS


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        ([Patient.email], [(email,) for email in EMAILS]),
        ([Patient.born, Patient.email.label("mail")], list(zip(BORN, EMAILS, strict=True))),
        ([Patient.email, Patient.id.is_(None)], [(email, False) for email in EMAILS]),
        ([Patient.born, func.length("ab")], [(born, 2) for born in BORN]),
    ],
)
def test_columns_alone_bring_what_they_are_bound_to(filled: Engine, columns: Any, want: Any) -> None:
    by_orm = select(*columns).order_by(Patient.number)
    with Session(filled) as session, assert_round_trips(max=1):
        result = session.execute(by_orm)
        assert len(result.keys()) == len(columns)
        assert result.all() == want


def test_columns_alone_without_the_orm(filled: Engine) -> None:
    table = Patient.__table__
    statement = select(table.c.email, table.c.born.label("birthday")).order_by(table.c.number)
    with filled.connect() as connection, assert_round_trips(max=1):
        result = connection.execute(statement)
        assert list(result.keys()) == ["email", "birthday"]
        assert result.all() == list(zip(EMAILS, BORN, strict=True))
    with filled.connect() as connection, assert_round_trips(max=1):
        assert connection.scalars(select(table.c.email).order_by(table.c.number)).all() == EMAILS


def test_columns_that_are_selected_more_than_once(filled: Engine) -> None:
    table: Any = Patient.__table__
    other = aliased(Patient)
    emails, first = Patient.email, Patient.number == 0
    pair = select(emails, other.email, other.email, emails).join(other, other.number == Patient.number + 1).where(first)
    with Session(filled) as session:
        with assert_round_trips(max=1):
            rows = session.execute(select(Patient, emails, emails).order_by(Patient.number)).all()
        assert [(one.email, *more) for one, *more in rows] == [(email,) * 3 for email in EMAILS]
        assert [row[1:] for row in session.query(Patient, emails).order_by(Patient.number)] == [(e,) for e in EMAILS]
        assert session.execute(select(emails, emails).where(first)).all() == [(EMAILS[0],) * 2]
        assert session.execute(pair).all() == [(EMAILS[0], EMAILS[1], EMAILS[1], EMAILS[0])]
        twice = select(table.c.email, table.c.number, table.c.email).where(table.c.number == 2)
        assert session.connection().execute(twice).all() == [(EMAILS[2], 2, EMAILS[2])]


@pytest.mark.parametrize("engine", ["sqlite", "psycopg", "psycopg2"], indirect=True)
def test_columns_that_are_returned_more_than_once(filled: Engine) -> None:
    table: Any = Patient.__table__
    with Session(filled) as session:
        key = session.scalars(select(Patient.id).where(Patient.number == 0)).one()
        for one, changed in (
            (Patient.email, update(Patient).where(Patient.id == key)),
            (table.c.email, update(table).where(table.c.id == key)),
        ):
            twice = changed.values(notes={}).returning(one, one)
            assert session.execute(twice, execution_options={"synchronize_session": False}).all() == [(EMAILS[0],) * 2]


def test_values_that_have_no_hash_beside_a_collection(filled: Engine) -> None:
    with Session(filled) as session:
        query = session.query(Clinic, Patient.notes).join(Clinic.patients).options(joinedload(Clinic.patients))
        rows = query.filter(Patient.number < 3).all()
        assert {(len(clinic.patients), notes["n"]) for clinic, notes in rows} == {(14, 0), (13, 1), (13, 2)}
        with pytest.raises(InvalidRequestError, match="non-hashable"):
            session.execute(select(Patient.notes)).unique().all()


def test_mapped_attributes_without_a_session(filled: Engine) -> None:
    alone = select(Patient.email).order_by(Patient.number)
    below = select(Patient.id, Patient.clinic_id, Patient.email).where(Patient.number == 3).subquery()
    with filled.connect() as connection:
        with assert_round_trips(max=1):
            assert connection.scalars(alone).all() == EMAILS
        assert connection.execute(select(Patient.number, Patient.email).limit(1)).keys() == ["number", "email"]
        assert connection.execute(select(below.c.email)).all() == [(EMAILS[3],)]
        assert connection.execute(alone.join(Patient.clinic).where(Clinic.id == 2)).all() == [
            (e,) for e in EMAILS[1::3]
        ]
        whole = connection.execute(select(Patient).where(Patient.number == 3)).one()
        assert (whole.email, whole.number, whole.notes) == (EMAILS[3], 3, {"n": 3})


@pytest.mark.parametrize("engine", ["sqlite", "psycopg", "psycopg2"], indirect=True)
def test_what_mapped_attributes_return_without_a_session(filled: Engine) -> None:
    with filled.begin() as connection:
        changed = update(Patient).where(Patient.number == 3).values(notes={})
        assert connection.scalars(changed.returning(Patient.email)).all() == [EMAILS[3]]
        new = {"id": uuid4(), "number": 99, "clinic_id": 1, "email": "n@x.org", "notes": {}}
        assert connection.scalars(insert(Patient).values(new).returning(Patient.email)).all() == ["n@x.org"]
        gone = delete(Patient).where(Patient.number == 99).returning(Patient.email, Patient.number)
        assert connection.execute(gone).all() == [("n@x.org", 99)]


def test_scalars_first_one_and_loops(filled: Engine) -> None:
    statement = select(Patient.email).order_by(Patient.number)
    with Session(filled) as session:
        with assert_round_trips(max=1):
            assert session.scalars(statement).all() == EMAILS
        with assert_round_trips(max=1):
            assert session.scalar(statement.limit(1)) == EMAILS[0]
        with assert_round_trips(max=2):
            assert [email for (email,) in session.execute(statement)] == EMAILS
        with assert_round_trips(max=4):
            assert [email for part in session.scalars(statement).partitions(10) for email in part] == EMAILS
    with filled.connect() as connection, assert_round_trips(max=2):
        result = connection.execute(select(Patient.__table__).order_by(Patient.__table__.c.number))
        seen = []
        while row := result.fetchone():
            seen.append(row.email)
    assert seen == EMAILS


@pytest.mark.parametrize(("size", "trips"), [(10, 4), (ROWS, 1), (7, 6)])
def test_yield_per_is_one_round_trip_a_chunk(filled: Engine, size: int, trips: int) -> None:
    statement = select(Patient).order_by(Patient.number).execution_options(yield_per=size)
    with Session(filled) as session, assert_round_trips(max=trips):
        assert [one.email for one in session.scalars(statement)] == EMAILS
    with filled.connect() as connection, assert_round_trips(max=trips):
        rows = connection.execution_options(yield_per=size).execute(select(Patient.__table__).order_by("number"))
        assert [row.email for row in rows] == EMAILS


def test_joins_and_relationships(filled: Engine) -> None:
    with Session(filled) as session:
        with assert_round_trips(max=1):
            rows = session.execute(select(Patient, Clinic).join(Clinic).order_by(Patient.number)).all()
            assert [(p.email, c.name) for p, c in rows][1] == ("P1@Example.ORG", "clinic 2")
        session.expunge_all()
        with assert_round_trips(max=1):
            clinics = session.scalars(select(Clinic).options(joinedload(Clinic.patients))).unique().all()
            assert sorted(one.email for clinic in clinics for one in clinic.patients) == sorted(EMAILS)
        session.expunge_all()
        with assert_round_trips(max=2):
            clinics = session.scalars(select(Clinic).options(selectinload(Clinic.patients))).all()
            assert sorted(one.email for clinic in clinics for one in clinic.patients) == sorted(EMAILS)
        session.expunge_all()
        clinic = session.get_one(Clinic, 1)
        with assert_round_trips(max=1):
            assert [one.email for one in clinic.patients] == EMAILS[::3]


def test_aliases_subqueries_and_text(filled: Engine) -> None:
    other = aliased(Patient)
    beside = select(Patient.email, other.email).join(other, other.number == Patient.number + 1).order_by(Patient.number)
    whole = select(Patient).where(Patient.number < 5).subquery()
    with Session(filled) as session:
        with assert_round_trips(max=1):
            assert session.execute(beside).all() == list(pairwise(EMAILS))
        with assert_round_trips(max=1):
            assert session.scalars(select(whole.c.email).order_by(whole.c.number)).all() == EMAILS[:5]
        with assert_round_trips(max=1):
            inside = aliased(Patient, whole)
            assert [one.email for one in session.scalars(select(inside).order_by(inside.number))] == EMAILS[:5]
        with assert_round_trips(max=1):
            spoken = text("SELECT id, clinic_id, email FROM patients ORDER BY number")
            columns = spoken.columns(Patient.id, Patient.clinic_id, Patient.email)
            assert [row.email for row in session.execute(columns).all()] == EMAILS
        with assert_round_trips(max=1):
            both = union_all(select(Patient).where(Patient.number == 1), select(Patient).where(Patient.number == 2))
            assert {one.email for one in session.scalars(select(Patient).from_statement(both))} == set(EMAILS[1:3])


def test_getting_refreshing_and_deferring(filled: Engine) -> None:
    with Session(filled) as session:
        key = session.scalars(select(Patient.id).where(Patient.number == 3)).one()
        with assert_round_trips(max=1):
            one = session.get_one(Patient, key)
            assert one.email == EMAILS[3]
        with assert_round_trips(max=1):
            session.refresh(one)
        session.expire(one, ["email"])
        with assert_round_trips(max=1):
            assert one.email == EMAILS[3]
        session.expunge_all()
        one = session.scalars(select(Patient).options(defer(Patient.email)).where(Patient.number == 4)).one()
        with assert_round_trips(max=1):
            assert one.email == EMAILS[4]
        session.expunge_all()
        loaded = load_only(Patient.email, Patient.clinic_id)
        with assert_round_trips(max=1):
            assert session.scalars(select(Patient).options(loaded).where(Patient.number == 5)).one().email == EMAILS[5]
        session.expunge_all()
        with assert_round_trips(max=1):
            everything = undefer("*")
            assert session.scalars(select(Patient).options(everything).where(Patient.number == 6)).one().born == BORN[6]


def test_updating_objects(filled: Engine) -> None:
    with Session(filled) as session:
        people = session.scalars(select(Patient).order_by(Patient.number)).all()
        for one in people:
            one.email = f"new{one.number}@example.org"
            one.born = None
        with assert_round_trips(max=1):
            session.flush()
        people[0].clinic_id = 3  # another partition: what is bound to it is written anew
        people[1].notes = {"changed": True}
        with assert_round_trips(max=2):
            session.flush()
        session.commit()
    with Session(filled) as session:
        rows = session.execute(select(Patient.email, Patient.born, Patient.clinic_id).order_by(Patient.number)).all()
        assert rows[:2] == [("new0@example.org", None, 3), ("new1@example.org", None, 2)]
        assert session.scalars(select(Patient.number).where(Patient.email == "NEW7@example.org")).all() == [7]
        assert session.scalars(select(Patient).where(Patient.email == EMAILS[7])).all() == []


def test_bulk_and_core_writes(filled: Engine) -> None:
    rows: list[dict[str, Any]] = [
        {"number": 100 + n, "clinic_id": 1, "email": f"bulk{n}@x.org", "born": None, "notes": {}} for n in range(ROWS)
    ]
    with Session(filled) as session:
        with assert_round_trips(max=1):
            session.execute(insert(Patient), rows)
        with assert_round_trips(max=2):
            statement = insert(Card).returning(Card.number, Card.last_four)
            cards = session.execute(statement, [{"number": f"5500 0000 {n:04}"} for n in range(5)]).all()
            assert sorted(row.number for row in cards) == [f"5500 0000 {n:04}" for n in range(5)]
        keys = dict(session.execute(select(Patient.number, Patient.id).where(Patient.number >= 100)).all())
        changes = [{"id": key, "clinic_id": 2, "email": f"again{n}@x.org"} for n, key in keys.items()]
        with assert_round_trips(max=1):
            session.execute(update(Patient), changes)
        session.commit()
        found = session.scalars(select(Patient).where(Patient.email.in_(["again100@x.org", "AGAIN107@x.org"]))).all()
        assert {(one.number, one.email) for one in found} == {(100, "again100@x.org"), (107, "again107@x.org")}
        with assert_round_trips(max=1):
            session.execute(
                update(Patient)
                .where(Patient.id == keys[100], Patient.clinic_id == 2)
                .values(email="core@x.org")
                .execution_options(synchronize_session=False)
            )
        assert session.scalars(select(Patient.email).where(Patient.email == "CORE@x.org")).all() == ["core@x.org"]
        session.execute(delete(Patient).where(Patient.email == "core@x.org"))
        assert session.scalars(select(Patient.email).where(Patient.email == "core@x.org")).all() == []
    table = Base.metadata.tables["cards"]
    with filled.begin() as connection:
        with assert_round_trips(max=1):
            connection.execute(insert(table).values([{"number": "1"}, {"number": "22222"}]))
        with assert_round_trips(max=1):
            connection.execute(insert(table).values(number="333 33"))
        with assert_round_trips(max=1):
            where = table.c.id == bindparam("which")
            changes = [{"which": 1, "number": "9001"}, {"which": 2, "number": "9002"}]
            connection.execute(update(table).where(where), changes)
        numbers = connection.scalars(select(table.c.number).where(table.c.number.in_(["33333", "22222", "9002"]))).all()
        assert set(numbers) == {"333 33", "22222", "9002"}


LEAVING_OUT: dict[str, Any] = {
    "load_only": lambda: (load_only(Patient.email),),
    "defer": lambda: (defer(Patient.clinic_id),),
    "defer, of an entity": lambda: (Load(Patient).defer(Patient.clinic_id),),
    "defer all but": lambda: (defer("*"), undefer(Patient.email)),
    "defer all of an entity but": lambda: (Load(Patient).defer("*").undefer(Patient.email),),
    "raiseload": lambda: (load_only(Patient.email, raiseload=True),),
}


@pytest.mark.parametrize("options", LEAVING_OUT.values(), ids=LEAVING_OUT.keys())
def test_what_is_deferred_is_loaded_where_a_column_needs_it(filled: Engine, options: Any) -> None:
    statement = select(Patient).options(*options()).order_by(Patient.number)
    with Session(filled) as session:
        with assert_round_trips(max=1):
            assert [one.email for one in session.scalars(statement)] == EMAILS
        session.expunge_all()
        query = session.query(Patient).options(*options()).order_by(Patient.number)
        assert [one.email for one in query] == EMAILS
        session.expunge_all()
        beside = select(Patient, Patient.born).options(*options()).order_by(Patient.number)
        assert [(one.email, born) for one, born in session.execute(beside)] == list(zip(EMAILS, BORN, strict=True))
        session.expunge_all()
        other = aliased(Patient)
        of_alias = select(other).options(Load(other).load_only(other.email)).order_by(other.number)
        assert [one.email for one in session.scalars(of_alias)] == EMAILS


@pytest.mark.parametrize("load", [joinedload, selectinload, subqueryload, lazyload], ids=lambda load: load.__name__)
def test_what_is_deferred_beyond_a_relationship_is_loaded_as_well(filled: Engine, load: Any) -> None:
    for option in (load(Clinic.patients).load_only(Patient.email), load(Clinic.patients).defer(Patient.clinic_id)):
        with Session(filled) as session:
            clinics = session.scalars(select(Clinic).options(option)).unique().all()
            with assert_round_trips(max=3 if load is lazyload else 0):
                assert sorted(one.email for clinic in clinics for one in clinic.patients) == sorted(EMAILS)


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_returning_brings_what_a_column_needs(filled: Engine) -> None:
    table = Base.metadata.tables["patients"]
    row: dict[str, Any] = {"number": 100, "clinic_id": 1, "email": "a@x.org", "notes": {}}
    rows = [row | {"number": 101 + n, "email": f"b{n}@x.org"} for n in range(3)]
    with filled.begin() as connection:
        with assert_round_trips(max=2):
            result = connection.execute(insert(table).values(row).returning(table.c.email))
            assert list(result.keys()) == ["email"]
            assert result.all() == [("a@x.org",)]
        many = insert(table).returning(table.c.number, table.c.email, sort_by_parameter_order=True)
        assert connection.execute(many, rows).all() == [(101 + n, f"b{n}@x.org") for n in range(3)]
        changed = update(table).where(table.c.number == 100).values(born=BORN[0]).returning(table.c.email)
        assert connection.scalars(changed).all() == ["a@x.org"]
        gone = delete(table).where(table.c.number > 99).returning(table.c.email)
        assert sorted(connection.scalars(gone)) == ["a@x.org", *[f"b{n}@x.org" for n in range(3)]]

    with Session(filled) as session:
        assert session.scalars(insert(Patient).values(row).returning(Patient.email)).all() == ["a@x.org"]
        bulk = insert(Patient).returning(Patient.number, Patient.email)
        assert sorted(session.execute(bulk, rows).all()) == [(101 + n, f"b{n}@x.org") for n in range(3)]
        changed = update(Patient).where(Patient.number == 100).values(born=BORN[0]).returning(Patient.email)
        assert session.scalars(changed).all() == ["a@x.org"]
        removed = delete(Patient).where(Patient.number > 100).returning(Patient.email)
        assert sorted(session.scalars(removed)) == [f"b{n}@x.org" for n in range(3)]
        whole = insert(Patient).values(row | {"email": "c@x.org"}).returning(Patient)
        assert session.scalars(whole).one().email == "c@x.org"
