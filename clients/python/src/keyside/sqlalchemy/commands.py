"""What `keyside-orm` does, once its words are understood: which columns, at what pace, how it is told, how it ends."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any, Final

import sqlalchemy as sa

from keyside.client import Client
from keyside.errors import KeysideError
from keyside.fields import context
from keyside.living import Bar, Options
from keyside.sqlalchemy.living import (
    backfill,
    check_backfill,
    check_decrypt,
    decrypt_column,
    encrypted_columns_of,
    label_of,
    reencrypt,
    stage_of_column,
    status,
)

Outcome = dict[str, Any]
SQLITE_ERROR: Final = 1
"""SQLite's code for a statement that cannot work."""


class UsageError(Exception):
    """The command line names something that is not there, or that nobody confirmed."""


class RowsLeft(Exception):
    """Others kept changing rows that a job wanted to write."""


TROUBLE: Final = (
    UsageError,
    RowsLeft,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    sa.exc.SQLAlchemyError,
    KeysideError,
)
"""What ends the command with a sentence; anything else is a fault of the command, and a traceback."""


def run(options: argparse.Namespace) -> None:
    """Do what the command line says. Raises one of TROUBLE."""
    columns = encrypted_columns_of(_metadata(options.models), options.column)
    engine = _engine(options)
    try:
        if options.command == "status":
            outcomes = [_status(engine, column, options) for column in columns]
        else:
            outcomes = _work_on_all(options, engine, columns)
    finally:
        engine.dispose()
    if options.json:
        print(json.dumps(outcomes, indent=2))  # noqa: T201  a command's output


def is_retryable(error: BaseException) -> bool:
    """Whether the same command may succeed later: the sidecar or the database is away, or others were writing."""
    if isinstance(error, KeysideError):
        return error.retryable
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if isinstance(error, sa.exc.DBAPIError):
        # SQLite says so of a table that is not there, too
        wrong = getattr(error.orig, "sqlite_errorcode", None) == SQLITE_ERROR
        return error.connection_invalidated or (
            isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not wrong
        )
    return isinstance(error, ConnectionError | RowsLeft)


def sentence(error: BaseException) -> str:
    """What is wrong, on one line."""
    told = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return " ".join(str(told).split())


def _work_on_all(options: argparse.Namespace, engine: sa.Engine, columns: list[sa.Column[Any]]) -> list[Outcome]:
    if (options.plain is not None or options.state is not None) and len(columns) != 1:
        raise UsageError("--from, --into and --state are for one column; name it as table.column")
    plain = None if options.plain is None else columns[0].table.c.get(options.plain)
    if options.plain is not None and plain is None:
        raise UsageError(f"{columns[0].table.name} has no column {options.plain}; declare it in the models")
    for column in columns:
        if options.command == "backfill":
            check_backfill(column, plain)
        elif options.command == "decrypt-column":
            check_decrypt(column, plain)
    if options.command == "decrypt-column" and options.interactive and not options.dry_run:
        _ask(engine, columns)
    with Client(options.socket, timeout=60) as client, context(**dict(options.context or ())):
        return [_work(options, engine, column, client, plain) for column in columns]


def _ask(engine: sa.Engine, columns: list[sa.Column[Any]]) -> None:
    names = ", ".join(map(label_of, columns))
    print(f"This writes the plaintext of {names} to the database {engine.url}.", file=sys.stderr)  # noqa: T201
    try:
        answer = input("Type 'yes' to continue, or 'no' to cancel: ")
    except EOFError:
        answer = ""
    if answer != "yes":
        raise UsageError("nothing was decrypted; --no-input goes on without asking")


def _work(
    options: argparse.Namespace,
    engine: sa.Engine,
    column: sa.Column[Any],
    client: Client,
    plain: sa.Column[Any] | None,
) -> Outcome:
    bar = Bar(sys.stderr, f"{options.command} {label_of(column)}")
    pace = Options(options.batch, options.rate, options.dry_run, options.state)
    if options.command == "backfill":
        progress = backfill(engine, column, client, pace, bar, plain)
    elif options.command == "reencrypt":
        progress = reencrypt(engine, column, client, pace, bar)
    else:
        progress = decrypt_column(engine, column, client, pace, bar, plain)
    bar.finish(progress)
    if progress.missed and not options.dry_run:
        raise RowsLeft(f"{label_of(column)}: others kept changing {progress.missed:,} rows; run the same command again")
    return {
        "column": label_of(column),
        "database": str(engine.url),
        "dry_run": options.dry_run,
        "rows_seen": progress.seen,
        "rows_changed": progress.changed,
        "rows_per_second": round(progress.rate),
    }


def _status(engine: sa.Engine, column: sa.Column[Any], options: argparse.Namespace) -> Outcome:
    found = status(engine, column)
    stage = stage_of_column(column).value
    by_key = dict(sorted(found.by_key.items(), key=lambda pair: -pair[1]))
    if not options.json:
        counts = f"{found.encrypted} encrypted, {found.plaintext} plaintext, {found.nulls} NULL"
        print(f"{label_of(column)} ({stage}): {counts}")  # noqa: T201  a command's output
        for key, count in by_key.items():
            print(f"    data key {key}: {count}")  # noqa: T201  a command's output
        for index, count in found.unindexed.items():
            if count:
                print(f"    without {index}: {count} (keyside-orm backfill computes what is missing)")  # noqa: T201
    return {
        "column": label_of(column),
        "database": str(engine.url),
        "table": found.table,
        "db_column": found.column,
        "keyring": column.type.keyring,  # type: ignore[attr-defined]  # an Encrypted type
        "stage": stage,
        "encrypted": found.encrypted,
        "plaintext": found.plaintext,
        "nulls": found.nulls,
        "by_data_key": by_key,
        "unindexed": found.unindexed,
    }


def _metadata(name: str) -> sa.MetaData:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import {name}: {error}") from None
    found = getattr(found, "metadata", found)
    if not isinstance(found, sa.MetaData):
        raise UsageError(f"{name} is neither a declarative base, a mapped class, a Table nor a MetaData")
    return found


def _engine(options: argparse.Namespace) -> sa.Engine:
    url = options.url or os.environ.get("DATABASE_URL")
    if not url:
        raise UsageError("which database? Give --url, or set DATABASE_URL")
    try:
        engine = sa.create_engine(str(url), hide_parameters=True)
    except ModuleNotFoundError as error:
        raise UsageError(f"the database's driver {error.name} is not installed; install it beside SQLAlchemy") from None
    if engine.dialect.is_async:
        raise UsageError(f"{engine.dialect.driver} is for asyncio; name another driver in --url, such as psycopg")
    return engine
