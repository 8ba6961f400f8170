"""manage.py keyside_reencrypt app.Model: puts every value under the active data key of its keyring and partition."""

from __future__ import annotations

from typing import Any

from keyside.django.fields import EncryptedField
from keyside.django.living import Report, reencrypt
from keyside.django.management.columns import JobCommand
from keyside.living import Options, Progress


class Command(JobCommand):
    """keyside_reencrypt."""

    help = (
        "Puts every value of encrypted columns under the active data keys. Safe beside writers, and at any moment to "
        "kill and run again; keyside_status tells what is left under older keys."
    )

    def run_job(self, field: EncryptedField, pace: Options, report: Report, options: dict[str, Any]) -> Progress:
        return reencrypt(field, None, pace, report, using=options["database"])
