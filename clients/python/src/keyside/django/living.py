"""Encrypt, re-encrypt, count and decrypt columns of a running application, with Django.

backfill(Patient._meta.get_field("ssn"))       the functions behind the management commands, also for RunPython

They go past models, managers, signals and query logs: one column and its indexes are written, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import models, router

from keyside.client import Client
from keyside.django.fields import EncryptedField
from keyside.django.rows import TableRows
from keyside.django.settings import client as default_client
from keyside.fields import Sender, Stage
from keyside.living import Backfill, ColumnStatus, Decrypt, Options, Progress, Reencrypt, run, status_of

Report = Callable[[Progress], object]


def _silent(progress: Progress) -> None:
    """Reports to nobody."""


def backfill(
    field: EncryptedField,
    client: Client | None = None,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
    *,
    using: str | None = None,
    source: models.Field | None = None,
) -> Progress:
    """Encrypt what is still plaintext in a column, or in the plain column `source`, and compute missing indexes.

    `client`: None for the one of the settings. `using`: the alias of a database, None for the one that the model is
    written to. Raises FieldError, django.db.Error, and ValueError in a stage in which it would do harm.
    """
    if source is None and field.declaration.stage is Stage.PLAIN:
        raise ValueError(f'{label_of(field)} still writes plaintext; declare migrating="plaintext" and deploy first')
    rows = TableRows(field, _alias(field, using), source)
    job = Backfill(field.declaration, [index for _, index in field.indexes])
    if source is not None:
        job.source, job.read_plain = source.column, rows.reader(source)
    return run(job, rows, Sender(client or default_client()), options, report)


def reencrypt(
    field: EncryptedField,
    client: Client | None = None,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
    *,
    using: str | None = None,
) -> Progress:
    """Put every value of a column under the active data key of its keyring and partition."""
    rows = TableRows(field, _alias(field, using))
    return run(Reencrypt(field.declaration), rows, Sender(client or default_client()), options, report)


def decrypt_column(
    field: EncryptedField,
    client: Client | None = None,
    options: Options = Options(),  # noqa: B008  frozen
    report: Report = _silent,
    *,
    using: str | None = None,
    into: models.Field | None = None,
) -> Progress:
    """Write a column's plaintext back: into itself, declared `migrating="plain"`, or into the plain column `into`."""
    if into is None and field.declaration.stage is not Stage.PLAIN:
        raise ValueError(f'{label_of(field)} still writes ciphertext; declare migrating="plain" and deploy first')
    rows = TableRows(field, _alias(field, using), into)
    write = field.to_plain if into is None else rows.writer(into)
    job = Decrypt(field.declaration, write, into.column if into is not None else None)
    return run(job, rows, Sender(client or default_client()), options, report)


def status(field: EncryptedField, *, using: str | None = None) -> ColumnStatus:
    """How many values of a column are NULL, plaintext, or encrypted under each data key, and lack a blind index. Asks
    the database alone."""
    rows = TableRows(field, using or router.db_for_read(field.model))
    indexes = [index.column for index, _ in field.indexes]
    return status_of(field.model._meta.db_table, field.column, rows.heads(indexes), indexes)


def encrypted_fields_of(name: str | None = None) -> list[EncryptedField]:
    """The encrypted columns of the project: all, or those of `app`, `app.Model` or `app.Model.field`.

    Raises LookupError when there are none.
    """
    wanted = (name or "").lower().split(".")
    configs = [apps.get_app_config(wanted[0])] if name else apps.get_app_configs()
    found = [
        field
        for config in configs
        for model in config.get_models(include_auto_created=True)
        if not model._meta.proxy and wanted[1:2] in ([], [model._meta.model_name])
        for field in model._meta.local_concrete_fields
        if isinstance(field, EncryptedField) and wanted[2:] in ([], [field.name.lower()])
    ]
    if not found:
        raise LookupError(f"no encrypted field {name or 'at all'}; name an app, app.Model or app.Model.field")
    return found


def label_of(field: EncryptedField) -> str:
    """`app.Model.field`."""
    return f"{field.model._meta.label}.{field.name}"


def plain_field_of(field: EncryptedField, name: str) -> models.Field:
    """A plain field of the same table, by its name. Raises LookupError."""
    try:
        found = field.model._meta.get_field(name)
    except FieldDoesNotExist:
        found = None
    if found is None or isinstance(found, EncryptedField) or found not in field.model._meta.local_concrete_fields:
        raise LookupError(
            f"{field.model._meta.label} has no plain field {name!r} in its table; declare it in the model"
        )
    return found


def _alias(field: EncryptedField, using: str | None) -> str:
    return using or router.db_for_write(field.model)
