# mypy: disable-error-code="arg-type, assignment, attr-defined, misc, override"
# their classes say of their columns that these have the plain types
"""SQLAlchemy's own tests of types, whose columns are encrypted here. Run by tests/orm/sqlalchemy/test_own_suite.py.

They need SQLAlchemy's own plugin for pytest, which changes how tests are collected: hence a process of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keyside import Client
from keyside.sqlalchemy import BlindIndex, Encrypted, install, uninstall
from keyside.testing.server import running
from sqlalchemy import (
    JSON,
    Column,
    Date,
    DateTime,
    Enum,
    Integer,
    Interval,
    MetaData,
    Table,
    Time,
    TypeDecorator,
    Unicode,
    UnicodeText,
    Uuid,
)
from sqlalchemy.testing import config
from sqlalchemy.testing.suite import test_types as theirs
from sqlalchemy.types import TypeEngine


@pytest.fixture(scope="session", autouse=True)
def sidecar() -> Iterator[None]:
    with (
        tempfile.TemporaryDirectory(prefix="ks-") as folder,
        running(Path(folder, "s"), keyrings=None) as twin,
        Client(twin.path, timeout=5, retries=1) as client,
    ):
        install(config.db, client)
        yield
        uninstall(config.db)


class Secret:
    """A type for each column: a declaration belongs to one."""

    def __init__(self, inner: TypeEngine[Any]) -> None:
        self.inner = inner

    def __get__(self, instance: object, owner: type) -> Encrypted:
        return Encrypted(self.inner, keyring="suite")


class SecretUuid(Encrypted):
    """As theirs make it."""

    cache_ok = False  # its arguments are not those of an Encrypted

    def __init__(self, **options: Any) -> None:
        super().__init__(Uuid(**options), keyring="suite")


class Dates:
    """Of a table of theirs: a column of the type, and one whose type decorates it."""

    datatype: Any

    @classmethod
    def define_tables(cls, metadata: MetaData) -> None:
        class Decorated(TypeDecorator[Any]):
            impl = cls.datatype.inner
            cache_ok = True

        Table(
            "date_table",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("date_data", cls.datatype),
            Column("decorated_date_data", Encrypted(Decorated(), keyring="suite")),
        )


class DateTimeTest(Dates, theirs.DateTimeTest):
    datatype = Secret(DateTime())


class DateTimeTZTest(Dates, theirs.DateTimeTZTest):
    datatype = Secret(DateTime(timezone=True))


class DateTimeMicrosecondsTest(Dates, theirs.DateTimeMicrosecondsTest):
    datatype = Secret(DateTime())


class DateTimeHistoricTest(Dates, theirs.DateTimeHistoricTest):
    datatype = Secret(DateTime())


class TimeTest(Dates, theirs.TimeTest):
    datatype = Secret(Time())


class TimeMicrosecondsTest(Dates, theirs.TimeMicrosecondsTest):
    datatype = Secret(Time())


class DateTest(Dates, theirs.DateTest):
    datatype = Secret(Date())


class DateHistoricTest(Dates, theirs.DateHistoricTest):
    datatype = Secret(Date())


class IntervalTest(theirs.IntervalTest):
    datatype = Secret(Interval())


class UnicodeVarcharTest(theirs.UnicodeVarcharTest):
    datatype = Secret(Unicode(255))


class UnicodeTextTest(theirs.UnicodeTextTest):
    datatype = Secret(UnicodeText())


class EnumTest(theirs.EnumTest):
    datatype = Secret(Enum(*theirs.EnumTest.enum_values, name="myenum"))


class UuidTest(theirs.UuidTest):
    datatype = SecretUuid

    @classmethod
    def define_tables(cls, metadata: MetaData) -> None:
        """With blind indexes: they look for the values, too."""
        theirs.UuidTest.define_tables.__func__(cls, metadata)
        table = metadata.tables["uuid_table"]
        for name in [column.name for column in table.columns if isinstance(column.type, Encrypted)]:
            table.append_column(Column(f"{name}_index", BlindIndex(name)))


class JSONTest(theirs.JSONTest):
    datatype = Secret(JSON())
