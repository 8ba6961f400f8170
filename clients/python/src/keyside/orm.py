"""The command `keyside-orm`, for SQLAlchemy applications (Django has management commands): python -m keyside.orm.

keyside-orm status app.models:Base
keyside-orm backfill app.models:Base patients.email
keyside-orm reencrypt app.models:Base patients
keyside-orm decrypt-column app.models:Base patients.email
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keyside.client import Client
from keyside.errors import KeysideError
from keyside.living import Bar, Options
from keyside.sqlalchemy.living import backfill, decrypt_column, encrypted_columns_of, reencrypt, status

EXIT_TROUBLE = 1
EXIT_RETRY = 75
"""EX_TEMPFAIL of sysexits.h: the same command may succeed later."""


class UsageError(Exception):
    """The command line names something that is not there."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 0 done, 1 trouble, 75 when trying again may help."""
    options = _parser().parse_args(words)
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: the models are the application's own
    try:
        columns = encrypted_columns_of(_metadata(options.models), options.column)
        engine = sa.create_engine(_url(options), hide_parameters=True)
        try:
            return _run(options, engine, columns)
        finally:
            engine.dispose()
    except (UsageError, LookupError, TypeError, ValueError, sa.exc.SQLAlchemyError, KeysideError) as error:
        print(f"keyside-orm: {error}", file=sys.stderr)  # noqa: T201  a command's output
        return EXIT_RETRY if isinstance(error, KeysideError) and error.retryable else EXIT_TROUBLE


def _run(options: argparse.Namespace, engine: sa.Engine, columns: list[sa.Column[Any]]) -> int:
    if options.command == "status":
        _show_status(engine, columns)
        return 0
    other = options.plain
    if (other is not None or options.state is not None) and len(columns) != 1:
        raise UsageError("--from, --into and --state are for one column; name it as table.column")
    with Client(options.socket, timeout=60) as client:
        for column in columns:
            _work(options, engine, column, client)
    return 0


def _work(options: argparse.Namespace, engine: sa.Engine, column: sa.Column[Any], client: Client) -> None:
    bar = Bar(sys.stderr, f"{options.command} {column.table.name}.{column.name}")
    pace = Options(options.batch, options.rate, options.dry_run, options.state)
    plain = None if options.plain is None else column.table.c.get(options.plain)
    if options.plain is not None and plain is None:
        raise UsageError(f"{column.table.name} has no column {options.plain}; declare it in the models")
    if options.command == "backfill":
        progress = backfill(engine, column, client, pace, bar, plain)
    elif options.command == "reencrypt":
        progress = reencrypt(engine, column, client, pace, bar)
    else:
        progress = decrypt_column(engine, column, client, pace, bar, plain)
    bar.finish(progress)


def _show_status(engine: sa.Engine, columns: list[sa.Column[Any]]) -> None:
    for column in columns:
        found = status(engine, column)
        counts = f"{found.encrypted} encrypted, {found.plaintext} plaintext, {found.nulls} NULL"
        print(f"{found.table}.{found.column}: {counts}")  # noqa: T201  a command's output
        for key, count in sorted(found.by_key.items(), key=lambda pair: -pair[1]):
            print(f"    data key {key}: {count}")  # noqa: T201  a command's output


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


def _url(options: argparse.Namespace) -> str:
    url = options.url or os.environ.get("DATABASE_URL")
    if not url:
        raise UsageError("which database? Give --url, or set DATABASE_URL")
    return str(url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("keyside-orm", description="Encrypted columns of SQLAlchemy applications.")
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "status": "count plaintext, and ciphertext by data key",
        "backfill": "encrypt what is still plaintext, and compute missing blind indexes",
        "reencrypt": "put every value under the active data keys",
        "decrypt-column": "write plaintext back",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("models", metavar="MODULE:NAME", help="declarative base, Table or MetaData to import")
        command.add_argument("column", nargs="?", metavar="TABLE[.COLUMN]", help="default: every encrypted column")
        command.add_argument("--url", help="SQLAlchemy URL of the database (default: $DATABASE_URL)")
        if name != "status":
            _add_pace(command)
        if name in ("backfill", "decrypt-column"):
            flag = "--from" if name == "backfill" else "--into"
            command.add_argument(flag, dest="plain", metavar="COLUMN", help="a plain column of the same table")
        else:
            command.set_defaults(plain=None)
    return parser


def _add_pace(command: argparse.ArgumentParser) -> None:
    command.add_argument("--socket", help="the sidecar's socket (default: $KEYSIDE_SOCKET)")
    command.add_argument("--batch", type=int, default=1000, help="rows a transaction (default: %(default)s)")
    command.add_argument("--rate", type=float, help="most rows a second (default: as fast as it goes)")
    command.add_argument("--dry-run", action="store_true", help="do everything but write")
    command.add_argument("--state", type=Path, help="a file that remembers how far it is, for a quicker restart")


if __name__ == "__main__":
    sys.exit(main())
