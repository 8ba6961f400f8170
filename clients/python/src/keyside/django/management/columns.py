"""What the commands on encrypted columns have in common: which columns, at what pace, how they tell it, how they end.

Exit codes: 0 done; 1 trouble, the message says which; 2 a wrong command line (argparse); 75 (EX_TEMPFAIL of
sysexits.h) when the same command may succeed later; 130 when interrupted.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import DEFAULT_DB_ALIAS, Error, OperationalError, connections

from keyside.django.fields import EncryptedField
from keyside.django.living import Report, encrypted_fields_of, label_of
from keyside.errors import KeysideError
from keyside.fields import context
from keyside.living import Bar, Options, Progress

EXIT_RETRY = 75
EXIT_INTERRUPTED = 130


class ColumnsCommand(BaseCommand, ABC):
    """A command on one or several encrypted columns."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "columns",
            nargs="*",
            metavar="app[.Model[.field]]",
            help="encrypted columns of an app or a model, or a single one (default: every one of the project)",
        )
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            choices=tuple(connections),
            help="alias of the database (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, **options: Any) -> None:
        try:
            fields = [field for name in options["columns"] or [None] for field in encrypted_fields_of(name)]
            outcomes = self.work_on_all(list(dict.fromkeys(fields)), options)
        except KeyboardInterrupt:
            message = "interrupted; what is done stays done, and the same command goes on"
            raise CommandError(message, returncode=EXIT_INTERRUPTED) from None
        except (LookupError, ValueError, TypeError, OSError, Error, KeysideError) as error:
            again = getattr(error, "retryable", False) or isinstance(error, OperationalError)
            raise CommandError(str(error), returncode=EXIT_RETRY if again else 1) from error
        if options["json"]:
            self.stdout.write(json.dumps(outcomes, indent=2))

    def work_on_all(self, fields: list[EncryptedField], options: dict[str, Any]) -> list[dict[str, Any]]:
        """The outcome of each column, for `--json`."""
        return [{"column": label_of(field), **self.work_on(field, options)} for field in fields]

    @abstractmethod
    def work_on(self, field: EncryptedField, options: dict[str, Any]) -> dict[str, Any]:
        """Do the command's work on one column; its outcome."""


class JobCommand(ColumnsCommand):
    """A command that walks over a table and changes a column."""

    plain_option: str | None = None
    """The option that names a plain column, if the command has one."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--batch", type=int, default=1000, help="rows a transaction (default: %(default)s)")
        parser.add_argument("--rate", type=float, help="most rows a second (default: as fast as it goes)")
        parser.add_argument("--dry-run", action="store_true", help="do everything but write")
        parser.add_argument(
            "--state", type=Path, metavar="FILE", help="remembers how far one column is, for a quicker restart"
        )
        parser.add_argument(
            "--context",
            type=_setting,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="what keyside.context gives, where it chooses the partition",
        )
        if self.plain_option is not None:
            parser.add_argument(
                self.plain_option, dest="plain", metavar="FIELD", help="a plain field of the same model, for one column"
            )

    def work_on_all(self, fields: list[EncryptedField], options: dict[str, Any]) -> list[dict[str, Any]]:
        if len(fields) > 1 and (options.get("plain") or options["state"]):
            which = "--state" if options["state"] else self.plain_option
            raise ValueError(f"{which} is for one column; name it as app.Model.field")
        with context(**dict(options["context"])):
            return super().work_on_all(fields, options)

    def work_on(self, field: EncryptedField, options: dict[str, Any]) -> dict[str, Any]:
        pace = Options(options["batch"], options["rate"], options["dry_run"], options["state"])
        stream = OutputWrapper(options.get("stderr") or sys.stderr, ending="")
        bar = Bar(stream, f"{self.title} {label_of(field)}")
        shown = options["verbosity"] > 0
        progress = self.run_job(field, pace, bar if shown else (lambda progress: None), options)
        if shown:
            bar.finish(progress)
        if progress.missed and not progress.dry_run:
            message = f"{label_of(field)}: others kept changing {progress.missed:,} rows; run the same command again"
            raise CommandError(message, returncode=EXIT_RETRY)
        return {
            "database": options["database"],
            "dry_run": options["dry_run"],
            "rows_seen": progress.seen,
            "rows_changed": progress.changed,
            "rows_per_second": round(progress.rate),
        }

    @property
    def title(self) -> str:
        """What the progress bar calls the work."""
        return type(self).__module__.rpartition(".keyside_")[2].replace("_", "-")

    @abstractmethod
    def run_job(self, field: EncryptedField, pace: Options, report: Report, options: dict[str, Any]) -> Progress:
        """Run the command's job on one column."""


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ArgumentTypeError("expected NAME=VALUE")
    return name, value
