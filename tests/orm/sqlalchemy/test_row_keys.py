"""Row keys that a database gives back otherwise than they were given: refused, or taken as they come back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from keyside.fields import BindingMissing
from keyside.sqlalchemy import Encrypted
from sqlalchemy import (
    CHAR,
    REAL,
    Column,
    DateTime,
    Double,
    Engine,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    Uuid,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Session

KEY = uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")
MOMENT = datetime(2024, 5, 17, 10, 20, 30)
EAST = timezone(timedelta(hours=3))
MYSQL, OTHERS = ("mysql", "mariadb"), ("sqlite", "postgresql", "mysql", "mariadb")

FORMS: list[tuple[Any, Any, tuple[str, ...]]] = [
    (Uuid(as_uuid=False), KEY.hex, ()),
    (Uuid(as_uuid=False), str(KEY).upper(), ()),
    (Numeric(10, 2), Decimal("1.2"), ()),
    (Numeric(10, 2), Decimal("1.239"), OTHERS),
    (Numeric(10, 2, asdecimal=False), 1.239, OTHERS),
    (Numeric(10, 2, asdecimal=False), 1.2, ()),
    (Numeric(10, 0), Decimal(3), ()),
    (DateTime(), MOMENT, ()),
    (DateTime(), MOMENT.replace(tzinfo=EAST), OTHERS),
    (DateTime(), MOMENT.replace(microsecond=5), MYSQL),
    (DateTime().with_variant(mysql.DATETIME(fsp=6), *MYSQL), MOMENT.replace(microsecond=5), ()),
    (DateTime().with_variant(mysql.DATETIME(fsp=3), *MYSQL), MOMENT.replace(microsecond=5), MYSQL),
    (DateTime(timezone=True), MOMENT, ("postgresql",)),
    (DateTime(timezone=True), MOMENT.replace(tzinfo=EAST), ("sqlite", *MYSQL)),
    (Time(), time(1, 2, 3), ()),
    (Time(), time(1, 2, 3, 4), MYSQL),
    (String(10), "abc", ()),
    (String(10), "abc ", MYSQL),
    (CHAR(10), "abc", ("postgresql",)),
    (CHAR(3), "abc", ()),
    (CHAR(10), "abc ", ("postgresql", "sqlite", *MYSQL)),
    (Integer(), "7", ()),
]


@pytest.fixture
def keyed(engine: Engine, form: Any) -> Iterator[Table]:
    table = Table(
        "keyed",
        MetaData(),
        Column("id", form[0], primary_key=True, autoincrement=False),
        Column("secret", Encrypted(String, keyring="people", bind="id")),
    )
    table.metadata.create_all(engine)
    yield table
    table.metadata.drop_all(engine)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]!r}-{form[1]!s:.30}")
def test_a_row_opens_or_is_not_written(engine: Engine, keyed: Table, form: Any) -> None:
    _, given, refused = form
    row = insert(keyed).values(id=given, secret="secret")
    if engine.dialect.name in refused:
        with engine.begin() as connection, pytest.raises(BindingMissing, match="with its zone, length and decimals"):
            connection.execute(row)
        return
    with engine.begin() as connection:
        connection.execute(row)
    with engine.connect() as connection:
        assert connection.scalars(select(keyed.c.secret)).all() == ["secret"]


@pytest.mark.parametrize("engine", ["pymysql"], indirect=True)
@pytest.mark.parametrize("form", [(mysql.BINARY(10), b"abc", MYSQL), (mysql.BINARY(3), b"abc", ())])
def test_bytes_of_a_fixed_length(engine: Engine, keyed: Table, form: Any) -> None:
    test_a_row_opens_or_is_not_written(engine, keyed, form)


@pytest.mark.parametrize("kind", [Float(), REAL(), Double()])
def test_floats_are_no_row_keys(sqlite: Engine, kind: Any) -> None:
    secret: Column[str] = Column("secret", Encrypted(String, keyring="people", bind="ratio"))
    table = Table("rated", MetaData(), Column("id", Integer, primary_key=True), Column("ratio", kind), secret)
    with sqlite.connect() as connection, pytest.raises(StatementError, match="databases round them"):
        connection.execute(insert(table).values(ratio=0.5, secret="x"))


NOCASE = String(20).with_variant(String(20, collation="NOCASE"), "sqlite")
BINARY = String(20).with_variant(String(20, collation="utf8mb4_bin"), *MYSQL)


@pytest.mark.parametrize(("form", "loose"), [(String(20), MYSQL), (BINARY, ()), (NOCASE, ("sqlite", *MYSQL))])
def test_an_update_does_not_take_another_spelling_for_the_row_s(engine: Engine, form: Any, loose: Any) -> None:
    keyed = Table(
        "spelled",
        MetaData(),
        Column("code", form, primary_key=True),
        Column("secret", Encrypted(String, keyring="people", bind="code")),
    )
    keyed.metadata.drop_all(engine)
    keyed.metadata.create_all(engine)

    class Base(DeclarativeBase):
        pass

    class Keyed(Base):
        __table__ = keyed

    with Session(engine) as session:
        session.add(Keyed(code="abc", secret="first"))
        session.commit()
        for code in ("ABC", "abc ", "abc"):
            changed = update(keyed).where(keyed.c.code == code).values(secret="second")
            if engine.dialect.name in loose:
                with pytest.raises(BindingMissing, match="binary collation"):
                    session.execute(changed)
            elif code == "abc " and engine.dialect.name in MYSQL:
                with pytest.raises(BindingMissing, match="length"):
                    session.execute(changed)
            else:
                session.execute(changed)
        session.commit()
        found: Any = session.scalars(select(Keyed)).one()
        assert found.secret == ("first" if engine.dialect.name in loose else "second")
        found.secret = "third"
        session.commit()
        assert session.scalars(select(keyed.c.secret)).all() == ["third"]
    keyed.metadata.drop_all(engine)
