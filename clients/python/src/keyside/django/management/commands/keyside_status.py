"""manage.py keyside_status: how many values of each column are NULL, plaintext, encrypted (by data key), unindexed."""

from __future__ import annotations

from typing import Any

from keyside.django.fields import EncryptedField
from keyside.django.living import label_of, status
from keyside.django.management.columns import ColumnsCommand


class Command(ColumnsCommand):
    """keyside_status."""

    help = (
        "Counts plaintext, ciphertext by data key, and ciphertext without a blind index. A key that counts zero in "
        "every column of its keyring encrypts nothing any more. Asks the database alone."
    )

    def work_on(self, field: EncryptedField, options: dict[str, Any]) -> dict[str, Any]:
        found = status(field, using=options["database"])
        by_key = dict(sorted(found.by_key.items(), key=lambda pair: -pair[1]))
        if not options["json"]:
            counts = f"{found.encrypted} encrypted, {found.plaintext} plaintext, {found.nulls} NULL"
            self.stdout.write(f"{label_of(field)} ({field.declaration.stage.value}): {counts}")
            for key, count in by_key.items():
                self.stdout.write(f"    data key {key}: {count}")
            for index, count in found.unindexed.items():
                if count:
                    self.stdout.write(f"    without {index}: {count} (keyside_backfill computes what is missing)")
        return {
            "database": options["database"],
            "table": found.table,
            "db_column": found.column,
            "keyring": field.declaration.keyring,
            "stage": field.declaration.stage.value,
            "encrypted": found.encrypted,
            "plaintext": found.plaintext,
            "nulls": found.nulls,
            "by_data_key": by_key,
            "unindexed": found.unindexed,
        }
