"""manage.py keyside_backfill app.Model.field: encrypts what is still plaintext, and computes missing blind indexes."""

from __future__ import annotations

from typing import Any

from keyside.django.fields import EncryptedField
from keyside.django.living import Report, backfill, plain_field_of
from keyside.django.management.columns import JobCommand
from keyside.living import Options, Progress


class Command(JobCommand):
    """keyside_backfill."""

    help = (
        "Encrypts what is still plaintext in columns, or in a plain field beside one (--from), and computes missing "
        "blind indexes. Safe beside writers, and at any moment to kill and run again."
    )
    plain_option = "--from"

    def run_job(self, field: EncryptedField, pace: Options, report: Report, options: dict[str, Any]) -> Progress:
        source = plain_field_of(field, options["plain"]) if options["plain"] else None
        return backfill(field, None, pace, report, using=options["database"], source=source)
