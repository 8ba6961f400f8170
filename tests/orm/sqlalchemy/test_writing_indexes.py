"""An index always is that of its column's value, whoever writes which of them."""

from __future__ import annotations

from typing import Any

import pytest
from keyside.fields import NotSearchable
from keyside.testing import assert_round_trips
from sqlalchemy import Engine, insert, inspect, select, update
from sqlalchemy.orm import Session, make_transient

from tests.orm.sqlalchemy.accounts import Account, Greeting, stored

TABLE: Any = Account.__table__
GREETINGS: Any = Greeting.__table__


def found(engine: Engine, value: str) -> list[int]:
    with Session(engine) as session:
        return list(session.scalars(select(Account.id).where(Account.mail == value).order_by(Account.id)))


def greeted(engine: Engine, value: str) -> list[int]:
    with Session(engine) as session:
        return list(session.scalars(select(Greeting.id).where(Greeting.text == value).order_by(Greeting.id)))


def test_defaults_of_python_have_their_index(books: Engine) -> None:
    with Session(books) as session, assert_round_trips(max=9):
        session.add(Greeting(id=1))
        session.add_all([Greeting(id=2), Greeting(id=3, name="x"), Greeting(id=4, text="own")])
        session.flush()
        session.execute(insert(Greeting).values(id=5))
        session.execute(insert(GREETINGS), [{"id": 6}, {"id": 7}])
        session.execute(insert(GREETINGS).values([{"id": 8}, {"id": 9}]))
        session.execute(insert(Greeting), [{"id": 10, "name": "x"}, {"id": 11, "name": "y"}])
        session.commit()
    hello = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert greeted(books, "hello") == hello
    assert greeted(books, "own") == [4]
    with Session(books) as session:
        session.get_one(Greeting, 1).name = "new"
        session.get_one(Greeting, 4).name = "new"
        session.get_one(Greeting, 2).text = "mine"
        with assert_round_trips(max=3):
            session.flush()
        session.execute(update(Greeting).where(Greeting.id == 3).values(name="z"))
        session.execute(update(Greeting), [{"id": 5, "name": "u"}, {"id": 6, "name": "v"}])
        session.commit()
    assert greeted(books, "again") == [1, 3, 4, 5, 6]
    assert greeted(books, "mine") == [2]
    assert greeted(books, "hello") == [7, 8, 9, 10, 11]


def index_of(engine: Engine, key: int) -> Any:
    with Session(engine) as session:
        return session.scalars(select(Account.mail_index).where(Account.id == key)).one()


def test_an_object_does_not_keep_an_index_that_was_written_anew(books: Engine) -> None:
    with Session(books, expire_on_commit=False) as session:
        one, two = Account(id=1, mail="a"), Account(id=2)
        session.add_all([one, two])
        session.commit()
        assert [one.mail_index, two.mail_index] == [index_of(books, 1), None]
        one.mail = "b"
        session.commit()
        assert one.mail_index == index_of(books, 1)
        # what else changes does not make it load anew
        one.code = "x"
        session.commit()
        assert "mail_index" in inspect(one).dict


@pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch"])
def test_an_object_follows_updates_of_its_session(books: Engine, synchronize: Any) -> None:
    with Session(books, expire_on_commit=False) as session:
        one, two = Account(id=1, mail="a"), Account(id=2, mail="b")
        session.add_all([one, two])
        session.commit()
        before = [one.mail_index, two.mail_index]
        statement = update(Account).where(Account.id == 1).values(mail="new")
        session.execute(statement, execution_options={"synchronize_session": synchronize})
        session.commit()
        assert inspect(two).dict["mail_index"] == before[1]
        assert (one.mail, one.mail_index) == ("new", index_of(books, 1))
        session.execute(update(Account), [{"id": 1, "mail": "bulk"}])
        session.commit()
        assert (one.mail, one.mail_index) == ("bulk", index_of(books, 1))
        session.execute(update(Account).values(code=None))
        assert "mail_index" in inspect(one).dict


def test_defaults_of_rows_that_are_selected(book: Engine) -> None:
    statement = insert(GREETINGS).from_select(["id", "name"], select(TABLE.c.id, TABLE.c.code))
    with book.begin() as connection, pytest.raises(NotSearchable, match="insert the rows from Python"):
        connection.execute(statement)


@pytest.mark.parametrize("engine", ["pymysql"], indirect=True)
def test_defaults_of_another_table(books: Engine) -> None:
    """MySQL computes them for each table that an UPDATE writes."""
    with Session(books) as session:
        session.add_all([Account(id=1), Greeting(id=1)])
        session.commit()
    beside = update(TABLE).where(TABLE.c.id == GREETINGS.c.id)
    with books.begin() as connection, pytest.raises(NotSearchable, match="without its index"):
        connection.execute(beside.values({TABLE.c.code: "x", GREETINGS.c.name: "x"}))
    with books.begin() as connection:
        connection.execute(beside.values({TABLE.c.code: "x", GREETINGS.c.name: "x", GREETINGS.c.text: "said"}))
    assert greeted(books, "said") == [1]


def test_rows_that_are_copied(books: Engine) -> None:
    with Session(books) as session:
        session.add(Account(id=1, mail="a@b"))
        session.commit()
    with books.begin() as connection:
        row = dict(connection.execute(select(TABLE)).mappings().one())
        connection.execute(insert(TABLE).values({**row, "id": 2}))
        connection.execute(insert(TABLE), [{**row, "id": 3}, {**row, "id": 4}])
        connection.execute(insert(TABLE).values([{**row, "id": 5}, {**row, "id": 6}]))
        connection.execute(update(TABLE).where(TABLE.c.id == 6).values({**row, "id": 6, "email": "c@d"}))
    with Session(books) as session:
        copy = session.get_one(Account, 1)
        assert copy.mail_index is not None
        session.expunge(copy)
        make_transient(copy)
        copy.id = 7
        session.add(copy)
        session.commit()
        assert copy.mail_index is not None
    assert found(books, "a@b") == [1, 2, 3, 4, 5, 7]
    assert found(books, "c@d") == [6]


def test_objects_that_are_merged(book: Engine) -> None:
    with Session(book) as session:
        session.add_all([Account(id=1, mail="a@b"), Account(id=2, mail="a@b")])
        session.commit()
        loaded = [session.get_one(Account, key) for key in (1, 2)]
        assert all(one.mail_index is not None for one in loaded)
        session.expunge_all()
    with Session(book) as session:
        session.get_one(Account, 1).mail = "c@d"
        session.commit()
    assert found(book, "c@d") == [1]
    with Session(book) as session:
        for one in loaded:
            session.merge(one)
        session.commit()
    assert found(book, "a@b") == [1, 2]
    with Session(book) as session:
        # the index alone differs from what the session knows
        session.merge(Account(id=1, mail_index=b"old"))
        session.commit()
    assert found(book, "a@b") == [1, 2]


def test_indexes_that_are_given_are_not_taken(books: Engine) -> None:
    with Session(books) as session:
        session.add(Account(id=1, mail="a", mail_index=b"zzz"))
        session.add(Account(id=2, mail="b", mail_index=None))
        session.flush()
        session.execute(insert(Account).values(id=3, mail="c", mail_index="zzz"))
        session.execute(insert(TABLE), [{"id": 4, "email": "d", "email_index": "zzz"}])
        session.execute(insert(TABLE).values([{"id": 5, "email": "e", "email_index": "zzz"}]))
        session.execute(update(Account).where(Account.id == 5).values(mail="f", mail_index="zzz"))
        session.commit()
    assert [found(books, value) for value in ("a", "b", "c", "d", "e", "f")] == [[1], [2], [3], [4], [], [5]]
    assert found(books, "zzz") == []


ALONE: list[Any] = [
    lambda: (update(Account).values(mail_index="zzz"), None),
    lambda: (update(TABLE).values(email_index=None), None),
    lambda: (update(TABLE), [{"email_index": "zzz"}]),
    lambda: (insert(TABLE).values(id=2, email_index="zzz"), None),
    lambda: (insert(TABLE), [{"id": 2, "email_index": None}, {"id": 3, "email_index": "zzz"}]),
    lambda: (insert(TABLE).values([{"id": 2, "email_index": "zzz"}]), None),
]


@pytest.mark.parametrize("statement", ALONE)
def test_indexes_are_not_written_alone(book: Engine, statement: Any) -> None:
    with Session(book) as session:
        session.add(Account(id=1, mail="a"))
        session.commit()
        with pytest.raises(NotSearchable, match="follows its column"):
            session.connection().execute(*statement())
        session.rollback()
    assert found(book, "a") == [1]
    assert len(stored(book)) == 1


def test_an_index_that_an_object_sets_alone(book: Engine) -> None:
    with Session(book) as session:
        session.add(Account(id=1, mail="a"))
        session.commit()
        session.get_one(Account, 1).mail_index = "zzz"  # type: ignore[assignment]  # what must not pass
        with pytest.raises(NotSearchable, match="follows its column"):
            session.flush()
