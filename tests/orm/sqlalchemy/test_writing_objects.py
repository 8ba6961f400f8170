"""Objects whose row keys and partitions change: each row keeps its own values."""

from __future__ import annotations

from typing import Any

import pytest
from keyside.fields import BindingMissing
from keyside.testing import assert_round_trips
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session, attributes, defer

from tests.orm.sqlalchemy.accounts import Account, stored


def filled(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([Account(id=n, clinic=n, secret=f"s{n}", shared=f"p{n}") for n in (1, 2, 3)])
        session.commit()


def read(engine: Engine) -> list[tuple[Any, ...]]:
    columns = Account.id, Account.clinic, Account.secret, Account.shared
    with Session(engine) as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(Account.id))]


WHOLE = [(n, n, f"s{n}", f"p{n}") for n in (1, 2, 3)]


def test_a_key_that_another_row_has_overwrites_nothing(books: Engine) -> None:
    filled(books)
    with Session(books) as session:
        session.get_one(Account, 1).id = 2
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            session.commit()
    assert read(books) == WHOLE


def test_a_key_changes_and_the_row_still_opens(books: Engine) -> None:
    filled(books)
    with Session(books) as session:
        one = session.get_one(Account, 1)
        one.id = 9
        session.commit()
        one.id, one.secret = 10, "new"
        session.commit()
        two = session.scalars(select(Account).where(Account.id == 2).options(defer(Account.secret))).one()
        two.id = 8
        session.commit()
        # nothing is loaded any more
        one.id = 11
        session.commit()
    assert read(books) == [WHOLE[2], (8, 2, "s2", "p2"), (11, 1, "new", "p1")]


def test_a_partition_changes_and_the_row_still_opens(books: Engine) -> None:
    filled(books)
    with Session(books) as session:
        people = session.scalars(select(Account).order_by(Account.id)).all()
        for one in people:
            one.clinic = 7
        with assert_round_trips(max=1):
            session.flush()
        session.commit()
        # everything is expired
        people[0].clinic = 8
        session.commit()
        session.expunge_all()
        two = session.scalars(select(Account).where(Account.id == 2).options(defer(Account.shared))).one()
        two.clinic = 9
        session.commit()
    assert read(books) == [(1, 8, "s1", "p1"), (2, 9, "s2", "p2"), (3, 7, "s3", "p3")]


def test_values_change_and_the_row_tells_its_partition(books: Engine) -> None:
    filled(books)
    with Session(books) as session:
        people = session.scalars(select(Account).order_by(Account.id)).all()
        for one in people:
            one.shared = f"new{one.id}"
        with assert_round_trips(max=1):
            session.flush()
        session.commit()
        people[0].shared = "expired"
        session.commit()
        people[1].shared, people[1].clinic, people[1].id = "both", 5, 20
        session.commit()
    assert read(books) == [(1, 1, "s1", "expired"), (3, 3, "s3", "new3"), (20, 5, "s2", "both")]


def test_keys_and_partitions_to_and_from_null(book: Engine) -> None:
    filled(book)
    with Session(book) as session:
        session.get_one(Account, 1).clinic = None
        with pytest.raises(BindingMissing):
            session.commit()
        session.rollback()
        one = session.get_one(Account, 1)
        one.shared = None
        session.commit()
        one.clinic = None
        session.commit()
        one.clinic, one.shared = 4, "again"
        session.commit()
    assert read(book)[0] == (1, 4, "s1", "again")


def test_listeners_see_what_changed(book: Engine) -> None:
    filled(book)
    seen: list[Any] = []

    def listen(mapper: Any, connection: Any, target: Account) -> None:
        names = ("id", "clinic", "secret", "shared", "code")
        seen.append({name: attributes.get_history(target, name) for name in names})
        assert target in session.dirty

    event.listen(Account, "before_update", listen)
    try:
        with Session(book) as session:
            one = session.get_one(Account, 1)
            one.clinic = 2
            session.commit()
            one.shared = "new"
            session.commit()
    finally:
        event.remove(Account, "before_update", listen)
    assert [seen[0][name][:3] for name in ("id", "clinic", "secret")] == [
        ((), [1], ()),
        ([2], (), [1]),
        ((), ["s1"], ()),
    ]
    assert seen[0]["shared"].has_changes()  # it is encrypted anew
    assert seen[1]["clinic"][:3] == ((), [2], ())
    assert seen[1]["shared"][0] == ["new"]


def test_a_listener_may_write_what_is_bound(book: Engine) -> None:
    filled(book)

    def listen(mapper: Any, connection: Any, target: Account) -> None:
        target.shared, target.secret = "heard", "heard"

    event.listen(Account, "before_update", listen)
    try:
        with Session(book) as session:
            one = session.get_one(Account, 1)
            one.code = "x"
            session.commit()
    finally:
        event.remove(Account, "before_update", listen)
    assert read(book)[0] == (1, 1, "heard", "heard")


def test_a_listener_may_change_other_objects(book: Engine) -> None:
    filled(book)
    with Session(book) as session:
        one, two = session.get_one(Account, 1), session.get_one(Account, 2)

        def listen(flushed: Session, context: Any, instances: Any) -> None:
            two.shared = "heard"

        event.listen(session, "before_flush", listen)
        one.shared = "own"
        session.commit()
    assert [row[3] for row in read(book)] == ["own", "heard", "p3"]


def test_a_flush_that_fails_leaves_nothing_behind(book: Engine) -> None:
    from keyside.sqlalchemy import flushing

    filled(book)
    with Session(book) as session:
        session.get_one(Account, 1).shared = "x"
        session.add(Account(id=2))
        with pytest.raises(Exception, match=r"(?i)unique|conflicts"):
            session.flush()
        session.rollback()
        assert flushing._flushes.get() == ()
        session.get_one(Account, 1).shared = "y"
        session.commit()
        assert flushing._flushes.get() == ()
    assert [row["id"] for row in stored(book)] == [1, 2, 3]
    assert read(book)[0] == (1, 1, "s1", "y")
