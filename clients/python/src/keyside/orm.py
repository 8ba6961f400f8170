"""The command `keyside-orm`, for SQLAlchemy applications (Django has management commands): python -m keyside.orm.

keyside-orm status app.models:Base
keyside-orm backfill app.models:Base patients.email
keyside-orm reencrypt app.models:Base patients
keyside-orm decrypt-column app.models:Base patients.email

The work is in `keyside.sqlalchemy.commands`; what is here runs without SQLAlchemy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

EXIT_TROUBLE: Final = 1
EXIT_RETRY: Final = 75
"""EX_TEMPFAIL of sysexits.h: the same command may succeed later."""
EXIT_INTERRUPTED: Final = 130
EXIT_CODES: Final = """\
exit codes: 0 done; 1 trouble, the message says which; 2 a wrong command line; 75 when the sidecar or the database is
away and the same command may succeed later; 130 interrupted: what is done stays done, and the same command goes on
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = _parser().parse_args(words)
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: the models are the application's own
    try:
        from keyside.sqlalchemy import commands
    except ModuleNotFoundError as error:
        return _say(f"{error.name} is not installed; install this package with its extra: keyside[sqlalchemy]")
    try:
        commands.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `keyside-orm status … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _say("interrupted; what is done stays done, and the same command goes on", EXIT_INTERRUPTED)
    except commands.TROUBLE as error:
        return _say(commands.sentence(error), EXIT_RETRY if commands.is_retryable(error) else EXIT_TROUBLE)
    return 0


def _say(message: str, code: int = EXIT_TROUBLE) -> int:
    print(f"keyside-orm: {message}", file=sys.stderr)  # noqa: T201  a command's output
    return code


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    description = "Encrypted columns of SQLAlchemy applications."
    parser = argparse.ArgumentParser("keyside-orm", description=description, epilog=EXIT_CODES, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "status": "count plaintext, and ciphertext by data key",
        "backfill": "encrypt what is still plaintext, and compute missing blind indexes",
        "reencrypt": "put every value under the active data keys",
        "decrypt-column": 'write plaintext back, into a column declared migrating="plain" or one beside it (--into)',
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES, formatter_class=form)
        command.add_argument("models", metavar="MODULE:NAME", help="declarative base, Table or MetaData to import")
        if name == "decrypt-column":
            command.add_argument(
                "column", metavar="TABLE.COLUMN", help="encrypted column, or a table for all of its own"
            )
        else:
            command.add_argument("column", nargs="?", metavar="TABLE[.COLUMN]", help="default: every encrypted column")
        command.add_argument("--url", help="SQLAlchemy URL of the database (default: $DATABASE_URL)")
        command.add_argument("--json", action="store_true", help="print the outcome as JSON")
        command.set_defaults(plain=None, state=None, context=[], dry_run=False)
        if name != "status":
            _add_pace(command)
        if name in ("backfill", "decrypt-column"):
            flag = "--from" if name == "backfill" else "--into"
            command.add_argument(flag, dest="plain", metavar="COLUMN", help="a plain column of the same table")
        if name == "decrypt-column":
            question = "do not ask for confirmation"
            command.add_argument("--no-input", "--noinput", action="store_false", dest="interactive", help=question)
    return parser


def _add_pace(command: argparse.ArgumentParser) -> None:
    command.add_argument("--socket", help="the sidecar's socket (default: $KEYSIDE_SOCKET)")
    command.add_argument("--batch", type=int, default=1000, help="rows a transaction (default: %(default)s)")
    command.add_argument("--rate", type=float, help="most rows a second (default: as fast as it goes)")
    command.add_argument("--dry-run", action="store_true", help="do everything but write")
    command.add_argument("--state", type=Path, help="a file that remembers how far it is, for a quicker restart")
    command.add_argument(
        "--context",
        type=_setting,
        action="append",
        metavar="NAME=VALUE",
        help="what keyside.context gives, where it chooses the partition",
    )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
