"""Declarations that cannot work, found before the first query: by system checks, or where the model is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models, router

from keyside.django.comparing import ignores_case
from keyside.django.returning import returned_by
from keyside.django.schemas import compared_indexes, keyed_by, uses
from keyside.django.settings import faults_of
from keyside.django.telling import bindings, field_named
from keyside.fields.declaration import unnamed_index

APP: Final = "keyside.django"
SQLITE_DIGITS: Final = 15
MISSING: Final = f"INSTALLED_APPS lacks {APP!r}, without which nothing is encrypted and nothing opens"


def require_app() -> None:
    """Raises ImproperlyConfigured for a project that uses encrypted fields and has not installed their application."""
    if apps.apps_ready and not apps.is_installed(APP):
        raise ImproperlyConfigured(f"{MISSING}: add it")


def setting_problems(**options: Any) -> list[checks.CheckMessage]:
    """What is wrong with the setting KEYSIDE."""
    return [
        checks.Error(f"KEYSIDE: {fault}.", id="keyside.E201") for fault in faults_of(getattr(settings, "KEYSIDE", {}))
    ]


def problems(field: Any, databases: Iterable[str] | None = None) -> list[checks.CheckMessage]:
    """What is wrong with how a model uses an encrypted field."""
    if not apps.is_installed(APP):
        return [checks.Error(f"{MISSING}.", hint="add it to INSTALLED_APPS", obj=field, id="keyside.E005")]
    found: list[checks.CheckMessage] = []
    for name in bindings(field):
        local = field_named(field.model, name)
        if local is None or local is field:
            message = f"It depends on {name!r}, which is no other field of its table."
            found.append(checks.Error(message, obj=field, id="keyside.E001"))
        else:
            found += _binding_problems(field, name, local)
    for where in uses(field):
        message = f"{where} refers to {field.name!r}, whose ciphertexts have no order and never repeat."
        hint = "name its blind index in place of it" if field.indexes else "declare a BlindIndex and name that"
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E002"))
    for where in compared_indexes(field):
        message = f"{where} compares a blind index of {field.name!r} with a value, which a schema cannot hold."
        hint = "compare it with NULL, or check the value in Python"
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E006"))
    for where in keyed_by(field):
        message = f"{where} refers to {field.name!r} or an index of it, by which no row is known in Python."
        found.append(checks.Error(message, hint="refer to a plain field", obj=field, id="keyside.E016"))
    found += _index_problems(field, databases)
    for relation in field.model._meta.private_fields:
        if getattr(relation, "fk_field", None) == field.name:
            message = f"The generic relation {relation.name!r} refers by {field.name!r}, which the database compares."
            found.append(checks.Error(message, hint="leave that field plain", obj=field, id="keyside.E007"))
    return found


def _binding_problems(field: Any, name: str, local: models.Field) -> list[checks.CheckMessage]:
    """What is wrong with a field that ciphertexts of another one depend on."""
    found: list[checks.CheckMessage] = []
    if _comes_from_database(local):
        message = f"It depends on {name!r}, which the database makes when the row is inserted: too late to encrypt."
        hint = "take a field that Python knows, such as UUIDField(default=uuid4)"
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E003"))
    elif not _can_be_foreseen(local):
        message = f"It depends on {name!r}, of which cannot be foreseen what the database gives back for a value."
        hint = (
            "take a text, number, moment, address, UUID or bytes of Django's own, convert values in get_prep_value"
            " alone, and let no decimal have more than the 15 digits that SQLite keeps"
        )
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E011"))
    if local.remote_field and _is_set_on_delete(local.remote_field.on_delete):
        message = (
            f"It depends on {name!r}, which changes when what it refers to is deleted: the value would not open then."
        )
        hint = "take CASCADE, PROTECT or RESTRICT, or bind it to a copy of the key that stays"
        found.append(checks.Error(message, hint=hint, obj=field, id="keyside.E012"))
    return found


def _is_set_on_delete(on_delete: Any) -> bool:
    """Whether it is SET_NULL, SET_DEFAULT, SET(…), or what the database does of that kind since Django 6.1."""
    named = str(getattr(on_delete, "__name__", ""))
    return (
        on_delete in (models.SET_NULL, models.SET_DEFAULT)
        or hasattr(on_delete, "deconstruct")
        or named.startswith("DB_SET_")
    )


def _can_be_foreseen(field: Any) -> bool:
    try:
        returned = returned_by(field)
    except ValueError:
        return True  # a related model is missing, which Django's own checks tell
    while field.remote_field:
        field = field.target_field
    if isinstance(field, models.DecimalField) and not (field.max_digits and field.max_digits <= SQLITE_DIGITS):
        return all(one.vendor != "sqlite" for one in connections.all())
    return returned is not None


def _index_problems(field: Any, databases: Iterable[str] | None) -> Iterator[checks.CheckMessage]:
    """What makes searches by its indexes miss rows."""
    chooser = field_named(field.model, field.partition) if isinstance(field.partition, str) else None
    for index, declared in field.indexes:
        name = f"{declared.table}.{declared.column}"
        if field.context and not index.context:
            yield checks.Error(f"{index.name}: {unnamed_index(name)}.", obj=field, id="keyside.E015")
        if field.stage.reads_plaintext and not _is_compared_as_it_is(index):
            if index.normalize.whole:
                found = "those that are spelled as this field writes the value; they miss others"
            else:
                found = "those that an index was written for; they miss others, and find some by what they held before,"
            message = f"{index.name}: while rows hold plaintext, searches find {found} until a backfill."
            hint = "docs/orm/encrypt-a-column.md, step 2, says what is compared"
            yield checks.Warning(message, hint=hint, obj=field, id="keyside.W002")
        loose = [alias for alias in databases or () if _compares_loosely(chooser, alias)] if index.partitioned else []
        for alias in loose:
            message = (
                f"{index.name} is computed under the key of {field.partition!r}, whose collation in {alias!r} takes"
                " different texts for equal: a search that spells it otherwise than a row does misses that row."
            )
            hint = "give the partition a binary collation, such as db_collation='utf8mb4_bin', or spell it as rows do"
            yield checks.Warning(message, hint=hint, obj=field, id="keyside.W001")


def _is_compared_as_it_is(index: Any) -> bool:
    """Whether equal values have one spelling in plaintext alone."""
    inner = index.source_field.inner
    return index.normalize.name == "exact" and isinstance(
        inner, models.CharField | models.TextField | models.BinaryField
    )


def _compares_loosely(field: models.Field | None, alias: str) -> bool:
    if field is None or not router.allow_migrate_model(alias, field.model):
        return False
    return ignores_case(field, connections[alias])


def _comes_from_database(field: models.Field) -> bool:
    return (
        isinstance(field, models.AutoField) or field.generated or (field.has_db_default() and not field.has_default())
    )
