"""A value is encrypted for the row that gets it, or not written at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import keyside
import pytest
from keyside.fields import BindingMissing
from keyside.sqlalchemy import Encrypted
from keyside.testing import assert_round_trips
from sqlalchemy import (
    Column,
    Engine,
    Enum,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    alias,
    bindparam,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.orm import Session, aliased

from tests.orm.sqlalchemy.accounts import Account, Base, Priced, renamed, stored
from tests.orm.sqlalchemy.test_writing import excluded, on_conflict, upsert

TABLE: Any = Account.__table__
PLAIN = {"synchronize_session": False}


def filled(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all(
            [
                Account(id=1, code="one", parent=5, clinic=1, secret="s1", shared="p1"),
                Account(id=5, code="five", clinic=2, secret="s5", shared="p5"),
            ]
        )
        session.commit()


def read(engine: Engine) -> list[tuple[Any, ...]]:
    columns = Account.id, Account.clinic, Account.secret, Account.shared
    with Session(engine) as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(Account.id))]


WHOLE = [(1, 1, "s1", "p1"), (5, 2, "s5", "p5")]
OTHER = aliased(Account)
ALIAS: Any = alias(TABLE, "other")

ELSEWHERE: list[Callable[[], Any]] = [
    lambda: update(Account).where(Account.parent == OTHER.id, OTHER.id == 5).values(secret="lost"),
    lambda: update(Account).where(Account.parent == OTHER.id, OTHER.clinic == 2).values(shared="lost"),
    lambda: update(TABLE).where(TABLE.c.parent == ALIAS.c.id, ALIAS.c.id == 5).values(secret="lost"),
    lambda: update(ALIAS).where(ALIAS.c.parent == TABLE.c.id, TABLE.c.id == 5).values(secret="lost"),
    lambda: update(TABLE).where(TABLE.c.parent == bindparam("which", 5)).values(secret="lost"),
    lambda: update(TABLE).where((TABLE.c.id == 1) | (TABLE.c.id == 5)).values(secret="lost"),
    lambda: update(TABLE).where(TABLE.c.id.in_([1])).values(secret="lost"),
    # what it is set to is computed by the database
    lambda: update(Account).where(Account.id == 1).values(id=Account.id + 7, secret="lost"),
    lambda: update(Account).where(Account.clinic == 1).values(clinic=Account.clinic + 1, shared="lost"),
    # what it is bound to changes without it
    lambda: update(Account).where(Account.id == 1).values(id=7),
    lambda: update(Account).where(Account.clinic == 1).values(clinic=2),
    lambda: update(Account).where(Account.clinic == 1).values(clinic=Account.clinic + 1),
]


@pytest.mark.parametrize("statement", ELSEWHERE)
def test_updates_that_do_not_tell_their_row_are_refused(books: Engine, statement: Any) -> None:
    filled(books)
    with Session(books) as session, pytest.raises(BindingMissing):
        session.execute(statement(), execution_options=PLAIN)
    assert read(books) == WHOLE


def test_updates_that_tell_their_row(books: Engine) -> None:
    filled(books)
    statements = [
        update(Account).where(Account.id == 1).values(secret="a"),
        update(TABLE).where(TABLE.c.id == 5, TABLE.c.code.in_(["five", "six"])).values(secret="b"),
        update(ALIAS).where(ALIAS.c.id == 1, ALIAS.c.clinic == 1).values(shared="c"),
        update(Account).where(Account.clinic == 2).values(clinic=3, shared="d"),
        update(Account).where(Account.id == 5).values(id=6, secret="e"),
    ]
    with books.begin() as connection:
        for statement in statements:
            if books.dialect.name == "mysql" or not isinstance(statement.table, type(ALIAS)):
                with assert_round_trips(max=1):
                    connection.execute(statement)
            else:
                connection.execute(statement)
    assert read(books) == [(1, 1, "a", "c"), (6, 3, "e", "d")]


def test_the_context_does_not_say_whose_rows_an_update_changes(books: Engine) -> None:
    filled(books)
    with keyside.context(clinic=1), Session(books) as session:
        for statement in (
            update(Account).values(shared="n"),
            update(Account).where(Account.id == 5).values(shared="n"),
        ):
            with pytest.raises(BindingMissing, match=r"compare clinic with one value in WHERE"):
                session.execute(statement, execution_options=PLAIN)
        with pytest.raises(BindingMissing):
            session.execute(update(Account), [{"id": 1, "shared": "n"}, {"id": 5, "shared": "n"}])
        session.execute(update(Account), [{"id": 1, "clinic": 1, "shared": "n"}])
        session.commit()
    assert read(books) == [(1, 1, "s1", "n"), (5, 2, "s5", "p5")]


def test_the_context_does_not_stand_in_for_what_the_database_computes(books: Engine) -> None:
    five: Any = literal_column("5")
    with keyside.context(clinic=7), books.begin() as connection:
        for refused in (
            insert(TABLE).values(id=1, clinic=five, shared="x"),
            insert(TABLE).values(id=1, clinic=select(five).scalar_subquery(), shared="x"),
            insert(TABLE).values([{"id": 1, "clinic": 5, "shared": "x"}, {"id": 2, "clinic": five, "shared": "x"}]),
            insert(Account).values(id=1, clinic=five, shared="x"),
        ):
            with pytest.raises(BindingMissing, match="set clinic to a value"):
                connection.execute(refused)
        with pytest.raises(BindingMissing, match="set clinic to a value"):
            connection.execute(insert(TABLE).values(clinic=five), [{"id": 1, "shared": "x"}, {"id": 2, "shared": "y"}])
        connection.execute(insert(TABLE).values(id=3, clinic=null(), shared="a"))
        connection.execute(insert(TABLE).values([{"id": 4, "clinic": null(), "shared": "b"}]))
        connection.execute(insert(TABLE).values(id=5, shared="c"))
    with keyside.context(clinic=7):
        assert read(books) == [(3, None, None, "a"), (4, None, None, "b"), (5, None, None, "c")]


def chosen(engine: Engine, **options: Any) -> Table:
    """A table whose values come from Python when a statement does not name them."""
    table = Table(
        "chosen",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("clinic", Integer, **options),
        Column("shared", Encrypted(String(100), keyring="patients", partition="clinic"), default=lambda: "hello"),
    )
    table.drop(engine, checkfirst=True)
    table.create(engine)
    return table


def test_the_context_does_not_stand_in_for_what_a_query_returns(books: Engine) -> None:
    table = chosen(books)
    query = select(TABLE.c.id, TABLE.c.clinic)
    with keyside.context(clinic=7), books.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, clinic=5))
        with pytest.raises(BindingMissing, match="set clinic to a value"):
            connection.execute(insert(table).from_select(["id", "clinic"], query))
        with pytest.raises(BindingMissing, match="set clinic to a value"):
            connection.execute(insert(table).from_select([table.c.id, table.c.clinic], query))
        connection.execute(insert(table).from_select(["id"], select(TABLE.c.id)))
        assert connection.execute(select(table)).all() == [(1, None, "hello")]


@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
def test_partitions_that_defaults_choose_inside_another_statement(books: Engine) -> None:
    table = chosen(books, default=lambda: 5, onupdate=lambda: 6)
    added = insert(table).values(id=1, shared="a").returning(table.c.id).cte("added")
    changed = update(table).where(table.c.id == 2, table.c.clinic == 5).values(shared="b").returning(table.c.id)
    with keyside.context(clinic=7), books.begin() as connection:
        connection.execute(insert(table).values(id=2))
        for cte in (added, changed.cte("changed")):
            with pytest.raises(BindingMissing, match="set clinic to a value"):
                connection.execute(select(cte.c.id))
        given = insert(table).values(id=1, clinic=8, shared="c").returning(table.c.id).cte("given")
        connection.execute(select(given.c.id))
        assert connection.execute(select(table).order_by(table.c.id)).all() == [(1, 8, "c"), (2, 5, "hello")]


def test_upserts_keep_rows_and_their_bindings_together(books: Engine) -> None:
    filled(books)
    new = {"id": 9, "code": "one", "clinic": 7, "secret": "new", "shared": "new"}
    statement = upsert(books, new)
    names = excluded(statement)
    refused: list[dict[str, Any]] = [
        {"clinic": names.clinic},
        {"id": names.id},
        {"id": 100, "secret": names.secret},
        {"id": 100},
        {"clinic": TABLE.c.clinic, "shared": names.shared},
        {"clinic": 9, "shared": names.shared},
        {"secret": names.secret},
        {"secret": "value"},
        {"shared": names.shared},
        {"id": names.id, "clinic": names.clinic, "secret": names.secret},
    ]
    with books.connect() as connection:
        for set_ in refused:
            with pytest.raises(BindingMissing):
                connection.execute(on_conflict(statement, set_, "code"))
    assert read(books) == WHOLE
    allowed = {name: names[name] for name in ("id", "secret", "clinic", "shared")}
    with books.begin() as connection, assert_round_trips(max=1):
        connection.execute(on_conflict(statement, allowed, "code"))
    assert read(books) == [(5, 2, "s5", "p5"), (9, 7, "new", "new")]


def test_upserts_of_several_rows(books: Engine) -> None:
    filled(books)
    rows = [
        {"id": 1, "secret": "a", "clinic": 1},
        {"id": 6, "secret": "b", "clinic": 1},
        {"id": 5, "secret": "c", "clinic": 2},
    ]
    statement = upsert(books, rows)
    names = excluded(statement)
    own = {"id": names.id} if books.dialect.name == "mysql" else {}
    with books.begin() as connection:
        with pytest.raises(BindingMissing):
            connection.execute(on_conflict(statement, own | {"secret": "of the first row"}))
        with assert_round_trips(max=1):
            connection.execute(on_conflict(statement, own | {"secret": names.secret}))
    assert [row[2] for row in read(books)] == ["a", "c", "b"]


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_upserts_name_a_constraint_as_the_database_does(books: Engine) -> None:
    table = Table(
        "unnamed",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("code", String(40), unique=True),
        Column("a", Integer),
        Column("a_b", Integer),
        Column("b", Integer),
        Column("b_b", Integer),
        Column("by_id", Encrypted(String(100), keyring="notes", bind="id")),
        Column("by_code", Encrypted(String(100), keyring="notes", bind="code")),
        Column("by_both", Encrypted(String(100), keyring="notes", bind=("a", "b_b"))),
        UniqueConstraint("a", "b_b"),
        UniqueConstraint("a_b", "b"),
    )
    table.drop(books, checkfirst=True)
    table.create(books)
    row = {"id": 1, "code": "x", "a": 1, "a_b": 1, "b": 1, "b_b": 1}
    statement = postgresql_insert(table).values(row | {"by_id": "new", "by_code": "new", "by_both": "new"})
    with books.begin() as connection:
        connection.execute(insert(table).values(row))
        for constraint, column in (("unnamed_pkey", "by_id"), ("unnamed_code_key", "by_code")):
            set_ = {column: statement.excluded[column]}
            connection.execute(statement.on_conflict_do_update(constraint=constraint, set_=set_))
            assert connection.scalars(select(table.c[column])).all() == ["new"]
        # which of the two the database calls so is not known
        for constraint, column in (("unnamed_a_b_b_key", "by_both"), ("unnamed_pkey", "by_code"), ("other", "by_id")):
            set_ = {column: statement.excluded[column]}
            with pytest.raises(BindingMissing, match="an upsert that updates it must find the row"):
                connection.execute(statement.on_conflict_do_update(constraint=constraint, set_=set_))
    table.drop(books)


def test_keys_that_differ_from_names(books: Engine) -> None:
    with books.begin() as connection:
        connection.execute(insert(renamed).values(id=1, code="c", value="a"))
        statement: Any = type(upsert(books, {}))(renamed).values(id=2, code="c", value="b")
        for name in ("value", "value_column", renamed.c.value):
            with pytest.raises(BindingMissing):
                connection.execute(on_conflict(statement, {name: excluded(statement).value}, "code"))
        both = {"id": excluded(statement).id, "value": excluded(statement).value}
        connection.execute(on_conflict(statement, both, "code"))
        assert connection.execute(select(renamed.c.id, renamed.c.value)).all() == [(2, "b")]


@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
def test_a_partition_that_changes_inside_another_statement(books: Engine) -> None:
    filled(books)
    for values in (
        {"clinic": 2},
        {"id": 9},
        {"clinic": 2, "secret": "x"},
        {"clinic": TABLE.c.clinic + 1, "shared": "x"},
    ):
        cte = update(TABLE).where(TABLE.c.id == 1).values(values).returning(TABLE.c.id).cte("changed")
        with books.begin() as connection, pytest.raises(BindingMissing):
            connection.execute(select(cte.c.id))
    cte = update(TABLE).where(TABLE.c.id == 1).values(clinic=2, shared="x").returning(TABLE.c.id).cte("changed")
    with books.begin() as connection:
        connection.execute(select(cte.c.id))
    assert read(books) == [(1, 2, "s1", "x"), (5, 2, "s5", "p5")]


KEY = UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")


def test_keys_of_another_kind_are_those_that_the_row_gives_back(book: Engine) -> None:
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id="7", clinic="3", secret="a", shared="a"))
        connection.execute(insert(TABLE), [{"id": "8", "clinic": 3.0, "secret": "b", "shared": "b"}])
        connection.execute(insert(TABLE).values([{"id": True, "secret": "c"}, {"id": "9", "secret": "d"}]))
    assert read(book) == [(1, None, "c", None), (7, 3, "a", "a"), (8, 3, "b", "b"), (9, None, "d", None)]
    with book.begin() as connection:
        connection.execute(update(TABLE).where(TABLE.c.id == "7", TABLE.c.clinic == "3").values(secret="e", shared="e"))
    assert read(book)[1] == (7, 3, "e", "e")
    for given in ("07", "x", 7.5, [7]):
        with book.begin() as connection, pytest.raises(BindingMissing, match="another kind of value") as caught:
            connection.execute(update(TABLE).where(TABLE.c.id == given).values(secret="f"))
        assert "07" not in str(caught.value)
    assert read(book)[1] == (7, 3, "e", "e")


def test_keys_that_are_decimals_and_identifiers(book: Engine) -> None:
    with Session(book) as session:
        session.add(Priced(id=KEY, amount=5, by_id="a", by_amount="a"))
        session.commit()
        session.expunge_all()
        assert session.execute(select(Priced.by_id, Priced.by_amount)).all() == [("a", "a")]
        session.execute(update(Priced).where(Priced.amount == 5).values(by_amount="b"), execution_options=PLAIN)
        session.commit()
        assert session.scalars(select(Priced.by_amount)).all() == ["b"]
        with pytest.raises(BindingMissing, match="another kind of value"):
            session.execute(update(Priced).where(Priced.amount == "5").values(by_amount="c"), execution_options=PLAIN)


class Shouted(TypeDecorator[str]):
    """Gives back something else than it was given."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.upper()


@pytest.mark.parametrize(
    ("kind", "given", "read_back"),
    [
        (Shouted(10), "abc", "ABC"),
        (Uuid(), str(KEY), KEY),
        (Uuid(as_uuid=False), KEY.hex, str(KEY)),
        (Uuid(as_uuid=False), str(KEY).upper(), str(KEY)),
        (Enum("a", "b", native_enum=False), "a", "a"),
        (String(10), "a", "a"),
    ],
)
def test_what_reading_gives_back(book: Engine, kind: Any, given: Any, read_back: Any) -> None:
    from keyside.sqlalchemy.kinds import as_read
    from sqlalchemy import Column

    assert as_read(Column("c", kind), book.dialect)(given) == read_back


def test_lower_is_no_way_around(book: Engine) -> None:
    filled(book)
    with Session(book) as session, pytest.raises(BindingMissing):
        session.execute(
            update(Account).where(func.lower(Account.code) == "one", Account.id != 5).values(secret="x"),
            execution_options=PLAIN,
        )
    assert [row["id"] for row in stored(book)] == [1, 5]
    assert Base.metadata.tables["accounts"] is TABLE
