"""manage.py keyside_decrypt_column app.Model.field: writes plaintext back, for good."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from keyside.django.fields import EncryptedField
from keyside.django.living import Report, decrypt_column, label_of, plain_field_of
from keyside.django.management.columns import JobCommand
from keyside.living import Options, Progress


class Command(JobCommand):
    """keyside_decrypt_column."""

    help = (
        'Writes plaintext back: into the column itself, declared migrating="plain", or into a plain field of the same '
        "model (--into) where that is NULL. Safe beside writers, and at any moment to kill and run again."
    )
    plain_option = "--into"

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--noinput", "--no-input", action="store_false", dest="interactive", help="do not ask for confirmation"
        )

    def work_on_all(self, fields: list[EncryptedField], options: dict[str, Any]) -> list[dict[str, Any]]:
        if not options["columns"]:
            raise ValueError("name the columns; nobody decrypts a whole project by leaving out a word")
        if options["interactive"] and not options["dry_run"]:
            names = ", ".join(label_of(field) for field in fields)
            self.stderr.write(f"This writes the plaintext of {names} to the database {options['database']!r}.")
            try:
                answer = input("Type 'yes' to continue, or 'no' to cancel: ")
            except EOFError:
                answer = ""
            if answer != "yes":
                raise ValueError("nothing was decrypted; --no-input goes on without asking")
        return super().work_on_all(fields, options)

    def run_job(self, field: EncryptedField, pace: Options, report: Report, options: dict[str, Any]) -> Progress:
        into = plain_field_of(field, options["plain"]) if options["plain"] else None
        return decrypt_column(field, None, pace, report, using=options["database"], into=into)
