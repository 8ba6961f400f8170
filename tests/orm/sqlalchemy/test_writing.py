"""Whatever an application writes to an encrypted column, and however: plaintext is never stored."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from keyside.fields import BindingMissing, NotSearchable
from keyside.sqlalchemy import BlindIndex, Encrypted
from keyside.testing import assert_round_trips
from sqlalchemy import (
    ARRAY,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    alias,
    bindparam,
    column,
    func,
    insert,
    lambda_stmt,
    literal,
    literal_column,
    null,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from tests.orm.sqlalchemy.accounts import SECRET, Account, Invoice, shows_nothing, stored

TABLE: Any = Account.__table__
ALIAS: Any = alias(TABLE, "aliased")
INVOICES: Any = Invoice.__table__
UPPER = func.upper(SECRET)


def upsert(engine: Engine, values: Any) -> Any:
    kinds = {"postgresql": postgresql_insert, "sqlite": sqlite_insert}
    return kinds.get(engine.dialect.name, mysql_insert)(TABLE).values(values)


def on_conflict(statement: Any, set_: Any, target: str = "id") -> Any:
    if hasattr(statement, "on_duplicate_key_update"):
        return statement.on_duplicate_key_update(set_)
    return statement.on_conflict_do_update(index_elements=[target], set_=set_)


def excluded(statement: Any) -> Any:
    return statement.inserted if hasattr(statement, "inserted") else statement.excluded


LITERALS: list[Callable[[Any], Any]] = [
    lambda value: update(Account).values(note=value, mail=value),
    lambda value: update(Account).values({Account.note: value, "mail": value}),
    lambda value: update(TABLE).values(note=value, email=value),
    lambda value: update(TABLE).ordered_values((TABLE.c.note, value), (TABLE.c.email, value)),
    lambda value: update(TABLE).ordered_values(("email", value), ("note", value)),
    lambda value: update(TABLE).values(note=value, email=value, email_index=b"of another row"),
    lambda value: update(ALIAS).values(note=value, email=value),
]


@pytest.mark.parametrize("statement", LITERALS)
@pytest.mark.parametrize("value", [SECRET, literal(SECRET), literal(SECRET, String), bindparam("e", SECRET)])
def test_values_of_any_type_are_encrypted_by_an_update(books: Engine, statement: Any, value: Any) -> None:
    with Session(books) as session:
        session.add(Account(id=1))
        session.commit()
        with assert_round_trips(max=1):
            session.execute(statement(value), execution_options={"synchronize_session": False})
        session.commit()
        found = session.execute(select(Account.note, Account.mail).where(Account.mail == SECRET)).all()
    assert found == [(SECRET, SECRET)]
    assert shows_nothing(books)


@pytest.mark.parametrize("value", [SECRET, literal(SECRET), literal(SECRET, String), bindparam("e", SECRET)])
def test_values_of_any_type_are_encrypted_by_an_insert(books: Engine, value: Any) -> None:
    named = [bindparam("f", SECRET)] if isinstance(value, type(bindparam("e"))) and not value.unique else [value]
    with Session(books) as session, assert_round_trips(max=4):
        session.execute(insert(Account).values(id=1, note=value, mail=value, secret=value))
        session.execute(insert(TABLE).values(id=2, note=value, email=value, secret=value))
        rows = [{"id": 3, "note": SECRET, "email": SECRET, "secret": SECRET}]
        rows += [{"id": 4 + n, "note": one, "email": one, "secret": one} for n, one in enumerate(named)]
        session.execute(insert(TABLE).values(rows))
        session.add(Account(id=5, note=value, mail=value, secret=value))
        session.flush()
        session.commit()
    with Session(books) as session:
        found = session.execute(select(Account.note, Account.mail, Account.secret).where(Account.mail == SECRET)).all()
    assert found == [(SECRET, SECRET, SECRET)] * 5
    assert shows_nothing(books)


def test_parameters_with_names_of_their_own_are_encrypted(books: Engine) -> None:
    statement = insert(TABLE).values(
        id=bindparam("i"), note=bindparam("n", type_=String), email=bindparam("e"), secret=bindparam("n", type_=String)
    )
    change = update(TABLE).where(TABLE.c.id == bindparam("i")).values(email=bindparam("e", type_=String))
    with books.begin() as connection:
        with assert_round_trips(max=1):
            connection.execute(statement, {"i": 1, "n": SECRET, "e": "a"})
        with assert_round_trips(max=1):
            connection.execute(statement, [{"i": 2, "n": SECRET, "e": "b"}, {"i": 3, "n": SECRET, "e": None}])
        with assert_round_trips(max=1):
            connection.execute(change, [{"i": 1, "e": SECRET}, {"i": 2, "e": "c"}])
    with Session(books) as session:
        assert session.execute(select(Account.id, Account.mail).order_by(Account.id)).all() == [
            (1, SECRET),
            (2, "c"),
            (3, None),
        ]
        for value, key in ((SECRET, [1]), ("c", [2]), ("a", []), ("b", [])):
            assert session.scalars(select(Account.id).where(Account.mail == value)).all() == key
        assert set(session.scalars(select(Account.secret)).all()) == {SECRET}
    assert stored(books)[2]["email_index"] is None
    assert shows_nothing(books)


WAYS: dict[str, Callable[[str], Any]] = {
    "plain": lambda value: update(TABLE).values(email=value),
    "literal": lambda value: update(TABLE).values(email=literal(value)),
    "unique": lambda value: update(TABLE).values(email=bindparam("given", value, unique=True)),
    "without a name": lambda value: update(TABLE).values(email=bindparam(None, value)),
    "without a name, of a callable": lambda value: update(TABLE).values(email=bindparam(None, callable_=lambda: value)),
    "named": lambda value: update(TABLE).values(email=bindparam("given", value)),
}


@pytest.mark.parametrize(("first", "second"), list(permutations(WAYS, 2)))
def test_cached_statements_are_told_apart(book: Engine, first: str, second: str) -> None:
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id=1))
        for way, value in ((first, "a"), (second, "b"), (first, "c"), (second, "d")):
            connection.execute(WAYS[way](value))
            assert connection.scalars(select(TABLE.c.email).where(TABLE.c.email == value)).all() == [value]


def test_a_parameter_without_a_name_in_several_places(books: Engine) -> None:
    nameless: Any = bindparam(None, SECRET)
    row = {"note": nameless, "email": nameless, "secret": nameless}
    with books.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, code=nameless, **row))
        connection.execute(insert(TABLE).values([{"id": 2, **row}, {"id": 3, **row}]))
        found = select(TABLE.c.id).where(TABLE.c.email == nameless, TABLE.c.email.in_([nameless])).order_by(TABLE.c.id)
        assert connection.scalars(found).all() == [1, 2, 3]
        connection.execute(update(TABLE).values(code=None))
    assert shows_nothing(books)


def test_a_parameter_without_name_and_value_is_not_null(book: Engine) -> None:
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, email="a"))
        with pytest.raises(StatementError, match="A value is required"):
            connection.execute(update(TABLE).values(email=bindparam(None)))


def test_parameters_given_beside_values_go_first(book: Engine) -> None:
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, email="a"), {"email": "b"})
        assert connection.execute(select(TABLE.c.id).where(TABLE.c.email == "b")).all() == [(1,)]
        assert connection.execute(select(TABLE.c.id).where(TABLE.c.email == "a")).all() == []


def test_parameters_of_values_are_not_replaced_by_others(book: Engine) -> None:
    one = update(TABLE).where(TABLE.c.id == 1)
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, code="a", email="a", secret="a"))
        for named, given in (
            ({"code": "c", "email": "e", "secret": "s"}, {"c": "b", "e": "b", "s": "b"}),
            ({"code": "code", "email": "email", "secret": "secret"}, {}),
        ):
            values: dict[str, Any] = {name: bindparam(parameter) for name, parameter in named.items()}
            beside = {"code": "c", "email": "c", "secret": "c"}
            connection.execute(one.values(values), given | beside)
            expected = "b" if given else "c"
            found = select(TABLE.c.code, TABLE.c.email, TABLE.c.secret).where(TABLE.c.email == expected)
            assert connection.execute(found).all() == [(expected,) * 3]


def test_parameters_named_after_columns_tell_the_row(books: Engine) -> None:
    columns = TABLE.c.id, TABLE.c.code, TABLE.c.secret, TABLE.c.shared, TABLE.c.email
    named: dict[str, Any] = {name: bindparam(name) for name in ("secret", "shared", "email")}
    row = {"id": 1, "clinic": 7, "secret": "a", "shared": "a", "email": "a"}
    with books.begin() as connection:
        connection.execute(insert(TABLE).values(code=literal("x"), **named), row)
        everything = {"id": bindparam("id"), "clinic": bindparam("clinic"), **named}
        with assert_round_trips(max=1):
            connection.execute(insert(TABLE).values(everything), [row | {"id": 2}, row | {"id": 3}])
        change = update(TABLE).where(TABLE.c.id == bindparam("which"), TABLE.c.clinic == 7).values(named)
        connection.execute(change, {"which": 3, "secret": "b", "shared": "b", "email": "b"})
        for value, rows in (("a", [(1, "x"), (2, None)]), ("b", [(3, None)])):
            found = connection.execute(select(*columns).where(TABLE.c.email == value).order_by(TABLE.c.id)).all()
            assert found == [(*row, value, value, value) for row in rows]


def test_null_is_null(books: Engine) -> None:
    with Session(books) as session:
        session.execute(insert(Account).values(id=1, mail=null(), note=None, secret=literal(None)))
        session.execute(insert(TABLE).values([{"id": 2, "email": null()}, {"id": 3, "email": None}]))
        session.add(Account(id=4, mail=null(), mail_index=None))
        session.commit()
        session.execute(update(Account).values(mail="x"), execution_options={"synchronize_session": False})
        session.execute(update(Account).values(mail=null()), execution_options={"synchronize_session": False})
        session.commit()
    assert [row["email"] for row in stored(books)] == [None] * 4
    assert [row["email_index"] for row in stored(books)] == [None] * 4


EXPRESSIONS: list[Callable[[], Any]] = [
    lambda: update(TABLE).ordered_values((TABLE.c.note, UPPER)),
    lambda: update(Account).values(note=Account.code),
    lambda: update(Account).values(note=UPPER),
    lambda: update(ALIAS).values(note=UPPER),
    lambda: insert(Account).values(id=2, note=UPPER),
    lambda: insert(TABLE).values([{"id": 2, "note": UPPER}, {"id": 3, "note": "x"}]),
    lambda: insert(TABLE).values([{"id": 2, "note": "x"}, {"id": 3, "note": UPPER}]),
    lambda: insert(TABLE).values([{TABLE.c.id: 2, TABLE.c.note: text("'x'")}]),
    lambda: insert(TABLE).values(id=2, email_index=func.upper("x")),
    lambda: insert(TABLE).values(id=2, note=select(TABLE.c.code).scalar_subquery()),
    lambda: insert(TABLE).from_select(["id", "note"], select(TABLE.c.id, TABLE.c.code)),
    lambda: insert(TABLE).from_select(["id", "email_index"], select(TABLE.c.id, TABLE.c.code)),
]


@pytest.mark.parametrize("statement", EXPRESSIONS)
def test_expressions_are_refused(book: Engine, statement: Any) -> None:
    with Session(book) as session, pytest.raises(NotSearchable) as caught:
        session.execute(statement())
    assert SECRET not in str(caught.value)
    assert stored(book) == []


def test_expressions_are_refused_without_parameters_too(book: Engine) -> None:
    with book.begin() as connection, pytest.raises(NotSearchable, match=r"accounts\.note: an SQL expression"):
        connection.execution_options(no_parameters=True).execute(insert(TABLE).values(id=text("2"), note=text("'x'")))
    assert stored(book) == []


def test_an_object_with_an_expression_is_refused(book: Engine) -> None:
    with Session(book) as session:
        session.add(Account(id=1, note=UPPER))
        with pytest.raises(NotSearchable):
            session.flush()


def test_what_upserts_set(books: Engine) -> None:
    start = {"id": 1, "code": SECRET, "note": "a", "email": "a"}
    statement = upsert(books, start)
    refused: list[Any] = [
        {"note": UPPER},
        {"note": excluded(statement).code},
        {"note": TABLE.c.code},
        {"email": excluded(statement).note},
        {"email_index": excluded(statement).email_index},
    ]
    with books.begin() as connection:
        connection.execute(statement)
        for set_ in refused:
            with pytest.raises(NotSearchable):
                connection.execute(on_conflict(statement, set_))
        for value in (literal("b"), literal("c", String), "d", bindparam("given", "e")):
            set_ = {"note": value, "email": value}
            with assert_round_trips(max=1):
                connection.execute(on_conflict(statement, set_))
        row = connection.execute(select(TABLE.c.note, TABLE.c.email).where(TABLE.c.email == "e")).one()
        assert row == ("e", "e")
        again = upsert(books, start | {"note": "f", "email": "f"})
        connection.execute(on_conflict(again, {"note": excluded(again).note, TABLE.c.email: excluded(again).email}))
        assert connection.scalars(select(TABLE.c.note).where(TABLE.c.email == "f")).all() == ["f"]
    assert all(SECRET not in str(row["note"]) for row in stored(books))


def test_a_name_that_is_no_key_does_not_pass_by(books: Engine) -> None:
    table = Table(
        "keyed",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("hidden", Encrypted(String(90), keyring="notes", storage="text"), key="shown"),
        Column("hidden_index", BlindIndex("shown"), key="shown_index"),
    )
    table.drop(books, checkfirst=True)
    table.create(books)
    statement = {"postgresql": postgresql_insert, "sqlite": sqlite_insert}.get(books.dialect.name, mysql_insert)(table)
    statement = statement.values(id=1, shown="a")
    with books.begin() as connection:
        connection.execute(statement)
        for name in ("hidden", "shown"):
            connection.execute(on_conflict(statement, {name: SECRET}))
            assert connection.execute(select(table.c.id).where(table.c.shown == SECRET)).all() == [(1,)]
    assert shows_nothing(books, "keyed")
    table.drop(books)


BY_ANOTHER_NAME: list[Any] = [
    literal_column('"note"'),
    literal_column("note "),
    "NOTE",
    "Note ",
    column("NOTE"),
    column("unknown"),
    "email_INDEX",
    "CLINIC",
    ALIAS.c.note,
    INVOICES.c.state,
    func.lower(TABLE.c.note),
]


@pytest.mark.parametrize("name", BY_ANOTHER_NAME)
def test_upserts_set_no_column_by_another_name(books: Engine, name: Any) -> None:
    statement = upsert(books, {"id": 1, "note": "a", "email": "a", "clinic": 1, "shared": "a"})
    with books.begin() as connection:
        connection.execute(statement)
        with pytest.raises(NotSearchable, match="no column of the table"):
            connection.execute(on_conflict(statement, {name: SECRET}))
    assert shows_nothing(books)


@pytest.mark.parametrize("named", [column, literal_column])
def test_columns_that_are_named_without_their_table(books: Engine, named: Callable[[str], Any]) -> None:
    one = TABLE.c.id == 1
    with books.begin() as connection:
        statement = upsert(books, {"id": 1})
        connection.execute(statement.values({named("note"): SECRET, named("email"): "a", named("clinic"): 1}))
        for write in (
            on_conflict(upsert(books, {"id": 1}), {named("note"): SECRET, named("email"): "b", named("code"): "x"}),
            update(TABLE).where(one).values({named("note"): SECRET, named("email"): "b", named("code"): "x"}),
        ):
            connection.execute(update(TABLE).values(code=None, email="a", note=None))
            with assert_round_trips(max=1):
                connection.execute(write)
            for email, found in (("a", []), ("b", [(SECRET, "x")])):
                rows = connection.execute(select(TABLE.c.note, TABLE.c.code).where(TABLE.c.email == email))
                assert rows.all() == found
        with pytest.raises(BindingMissing):
            connection.execute(update(TABLE).where(one).values({named("clinic"): 2}))
        with pytest.raises(BindingMissing):
            connection.execute(on_conflict(upsert(books, {"id": 1}), {named("clinic"): 2}))
    assert shows_nothing(books)


@pytest.mark.parametrize("target", [INVOICES.c.id, ALIAS.c.note, ALIAS.c.clinic, func.lower(TABLE.c.code)])
def test_columns_of_tables_that_are_not_written(book: Engine, target: Any) -> None:
    with book.begin() as connection:
        connection.execute(insert(TABLE).values(id=1, note="a"))
        for statement in (update(TABLE).where(TABLE.c.id == 1), insert(TABLE).values(id=2)):
            with pytest.raises(NotSearchable, match="no column of the table"):
                connection.execute(statement.values({target: SECRET}))
    assert shows_nothing(book)


def test_a_column_is_set_once(book: Engine) -> None:
    with book.begin() as connection:
        for values in ({"note": "a", TABLE.c.note: "b"}, {TABLE.c.email: "a", column("email"): "b"}):
            for statement in (insert(TABLE).values(id=1), update(TABLE).where(TABLE.c.id == 1)):
                with pytest.raises(NotSearchable, match="sets it twice"):
                    connection.execute(statement.values(values))


def test_names_that_two_columns_have(books: Engine) -> None:
    """One by its key, and the other in the database."""
    table = Table(
        "crossed",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("one", Encrypted(String(90), keyring="notes", storage="text"), key="two"),
        Column("two", String(90), key="one"),
    )
    table.drop(books, checkfirst=True)
    table.create(books)
    statement = {"postgresql": postgresql_insert, "sqlite": sqlite_insert}.get(books.dialect.name, mysql_insert)(table)
    statement = statement.values(id=1, two=SECRET, one="plain")
    with books.begin() as connection:
        connection.execute(statement)
        connection.execute(on_conflict(statement, {"one": "again", "two": SECRET}))
        assert connection.execute(select(table.c.one, table.c.two)).all() == [("again", SECRET)]
        with pytest.raises(NotSearchable, match="no column of the table"):
            connection.execute(on_conflict(statement, {column("one"): SECRET}))
    assert shows_nothing(books, "crossed")
    table.drop(books)


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_parts_of_columns(engine: Engine) -> None:
    table = Table(
        "with_array",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("numbers", ARRAY(Integer)),
        Column("key", ARRAY(Integer)),
        Column("value", Encrypted(String(90), keyring="notes")),
        Column("bound", Encrypted(String(90), keyring="patients", partition="key")),
    )
    table.drop(engine, checkfirst=True)
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(table).values(id=1, numbers=[1, 2], value="a"))
        connection.execute(update(table).values({table.c.numbers[2]: 7}))
        assert connection.execute(select(table.c.numbers, table.c.value)).all() == [([1, 7], "a")]
        for column_ in (
            table.c.key,
            literal_column("numbers_", ARRAY(Integer)),
            type_coerce(table.c.value, ARRAY(Integer)),
        ):
            with pytest.raises(NotSearchable):
                connection.execute(update(table).values({column_[2]: 7}))
    table.drop(engine)


@pytest.mark.parametrize("engine", ["pymysql"], indirect=True)
def test_several_tables_of_one_update(books: Engine) -> None:
    joined = update(INVOICES).where(Invoice.account_id == TABLE.c.id, TABLE.c.id == 1)
    with Session(books) as session:
        session.add(Account(id=1, mail="old", note="old", secret="old"))
        session.flush()
        session.add(Invoice(id=9, account_id=1))
        session.commit()
    with books.begin() as connection:
        for column in (TABLE.c.note, TABLE.c.email):
            with pytest.raises(NotSearchable):
                connection.execute(joined.values({Invoice.state: "x", column: UPPER}))
        values = {Invoice.state: "x", TABLE.c.note: literal(SECRET), TABLE.c.email: "new", TABLE.c.secret: "new"}
        with assert_round_trips(max=1):
            connection.execute(joined.values(values))
        found = connection.execute(select(TABLE.c.note, TABLE.c.email, TABLE.c.secret).where(TABLE.c.email == "new"))
        assert found.all() == [(SECRET, "new", "new")]
    assert shows_nothing(books)


@pytest.mark.parametrize("engine", ["pymysql"], indirect=True)
def test_an_update_of_a_join(books: Engine) -> None:
    joined = update(INVOICES.join(TABLE, INVOICES.c.account_id == TABLE.c.id)).where(TABLE.c.id == 1)
    with Session(books) as session:
        session.add(Account(id=1, mail="old", note="old", secret="old"))
        session.flush()
        session.add(Invoice(id=9, account_id=1))
        session.commit()
    with books.begin() as connection:
        refused: list[dict[Any, Any]] = [{TABLE.c.note: UPPER}, {TABLE.c.email_index: b"alone"}]
        for values in refused:
            with pytest.raises(NotSearchable):
                connection.execute(joined.values(values))
        for row in ({"note": SECRET}, {"email": SECRET}, {"email_index": SECRET}):
            with pytest.raises(NotSearchable, match="which table of the join"):
                connection.execute(joined, row)
        values = {INVOICES.c.state: "x", TABLE.c.note: literal(SECRET), TABLE.c.email: "new", TABLE.c.secret: "new"}
        with assert_round_trips(max=1):
            connection.execute(joined.values(values))
        found = connection.execute(select(TABLE.c.note, TABLE.c.email, TABLE.c.secret).where(TABLE.c.email == "new"))
        assert found.all() == [(SECRET, "new", "new")]
    assert shows_nothing(books)


@pytest.mark.filterwarnings("ignore:Additional column names")
@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
def test_ctes_that_write(books: Engine) -> None:

    def run(statement: Any) -> Any:
        with books.begin() as connection:
            cte = statement.returning(TABLE.c.id).cte("written")
            return connection.scalars(select(cte.c.id)).all()

    for values in ({"id": 1, "note": UPPER}, {"id": 1, "note": TABLE.c.code}, {"id": 1, "email": "a"}):
        with pytest.raises(NotSearchable):
            run(insert(TABLE).values(values))
    with pytest.raises(NotSearchable):
        run(insert(TABLE).values(id=1, email_index=b"alone"))
    for target, value in ((literal_column('"note"'), SECRET), (column("NOTE"), SECRET), (column("CLINIC"), 2)):
        conflicting = postgresql_insert(TABLE).values(id=1)
        with pytest.raises(NotSearchable, match="no column of the table"):
            run(conflicting.on_conflict_do_update(index_elements=["id"], set_={target: value}))
    with pytest.raises(BindingMissing):
        run(update(TABLE).where(TABLE.c.id == 1).values({column("clinic"): 2}))
    assert run(insert(TABLE).values(id=1, note="a", email="a", email_index="a", secret="a")) == [1]
    assert run(insert(TABLE).values(id=2, email="b", email_index="something else")) == [2]
    with pytest.raises(NotSearchable, match="literal"):
        run(insert(TABLE).values(id=3, note=literal(SECRET)))
    with pytest.raises(NotSearchable, match="another value"):
        run(insert(TABLE).values(id=4, email="b", email_index=None))
    assert run(update(TABLE).where(TABLE.c.id == 1).values(secret="c", email="c", email_index="c")) == [1]
    with books.begin() as connection:
        columns = TABLE.c.id, TABLE.c.secret
        assert connection.execute(select(*columns).where(TABLE.c.email == "c")).all() == [(1, "c")]
        assert connection.execute(select(*columns).where(TABLE.c.email == "b")).all() == [(2, None)]
        assert connection.execute(select(*columns).where(TABLE.c.email == "a")).all() == []
    assert shows_nothing(books)


COMPUTED: list[dict[str, Any]] = [
    {"default": func.lower(SECRET)},
    {"server_default": SECRET},
    {"onupdate": func.lower(SECRET)},
]


@pytest.mark.parametrize("options", COMPUTED)
def test_what_the_database_would_compute(book: Engine, options: dict[str, Any]) -> None:
    key: Any = Column("id", Integer, primary_key=True, autoincrement=False)
    # refused where it is declared, or at the latest where it would be used
    with pytest.raises((NotSearchable, ValueError, TypeError)), book.begin() as connection:  # noqa: PT012
        column: Any = Column("value", Encrypted(String(), keyring="notes", storage="text"), **options)
        table = Table("computed", MetaData(), key, Column("name", String()), column)
        table.create(connection)
        if "onupdate" in options:
            connection.execute(insert(table).values(id=1, value="x"))
            connection.execute(update(table).values(name="x"))
        else:
            connection.execute(insert(table).values(id=1))


def test_text_with_a_column_type(book: Engine) -> None:
    spoken = text("INSERT INTO accounts (id, email, email_index, secret) VALUES (:id, :e, :i, :s)")
    types = {"e": TABLE.c.email.type, "i": TABLE.c.email_index.type, "s": TABLE.c.secret.type}
    whole = spoken.bindparams(*[bindparam(name, type_=type_) for name, type_ in types.items()])
    with book.begin() as connection:
        connection.execute(whole, {"id": 1, "e": "a", "i": "anything", "s": "b"})
        assert connection.execute(select(TABLE.c.email, TABLE.c.secret).where(TABLE.c.email == "a")).all() == [
            ("a", "b")
        ]
        half = text("UPDATE accounts SET email = :e").bindparams(bindparam("e", type_=types["e"]))
        with pytest.raises(NotSearchable, match="without its index"):
            connection.execute(half, {"e": "b"})
        returning = text("UPDATE accounts SET email = :e RETURNING id").bindparams(bindparam("e", type_=types["e"]))
        with pytest.raises(NotSearchable, match="without its index"):
            connection.execute(returning.columns(TABLE.c.id), {"e": "b"})


def test_a_parameter_in_several_places(books: Engine) -> None:
    with Session(books) as session:
        session.add_all([Account(id=1, code=SECRET), Account(id=2, code="other")])
        session.commit()
    statement = update(TABLE).where(TABLE.c.code == bindparam("q")).values(note=bindparam("q"), email=bindparam("q"))
    once = literal(SECRET, Account.__table__.c.secret.type)
    with books.begin() as connection:
        connection.execute(statement, {"q": SECRET})
        connection.execute(insert(TABLE).values([{"id": 3, "secret": once}, {"id": 4, "secret": once}]))
        named: Any = bindparam("twice", SECRET)
        connection.execute(insert(TABLE).values([{"id": 5, "secret": named}, {"id": 6, "secret": named}]))
        columns = TABLE.c.note, TABLE.c.email
        assert connection.execute(select(*columns).where(TABLE.c.email == SECRET)).all() == [(SECRET, SECRET)]
        assert connection.scalars(select(TABLE.c.secret).where(TABLE.c.id > 2)).all() == [SECRET] * 4
        connection.execute(update(TABLE).values(code=None))
    assert shows_nothing(books)


def test_statements_that_lambdas_make(book: Engine) -> None:
    def change(key: int, value: str) -> Any:
        return lambda_stmt(lambda: update(TABLE).where(TABLE.c.id == key).values(email=value, note=value, secret=value))

    with Session(book) as session:
        session.add_all([Account(id=1), Account(id=2)])
        session.commit()
    with book.begin() as connection:
        for key, value in ((1, "a"), (2, "b"), (1, "c")):
            connection.execute(change(key, value))
        for value, want in (("a", []), ("b", [(2, "b", "b")]), ("c", [(1, "c", "c")])):
            columns = TABLE.c.id, TABLE.c.note, TABLE.c.secret
            assert connection.execute(select(*columns).where(TABLE.c.email == value)).all() == want
        connection.execute(lambda_stmt(lambda: update(TABLE).values(note=literal("tell-nobody"))))
    assert shows_nothing(book)
