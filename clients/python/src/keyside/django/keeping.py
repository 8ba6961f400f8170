"""A value that does not open reads as None under `on_error="none"`, and stays in its column until one is assigned.

Whoever saves an object knows nothing of what it could not show him. What is None since the row was read is therefore
left as it is. That is right for NULL as well, so that reading need not tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any, Final

from django.db import models
from django.db.models.query_utils import DeferredAttribute

ASSIGNED: Final = "keyside_assigned"


class KeptAttribute(DeferredAttribute):
    """Notes on an object which of its values were assigned since it was read or saved first."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        name = self.field.attname
        instance.__dict__[name] = value
        state = instance._state
        if not state.adding:
            # of its own: a copy of the object shares what it was copied with
            setattr(state, ASSIGNED, getattr(state, ASSIGNED, frozenset()) | {name})

    def fetch_many(self, instances: Sequence[models.Model]) -> None:
        """As `FETCH_PEERS` of Django 6.1 asks, which assigns what it fetches."""
        name = self.field.attname
        fetched = [one for one in instances if name not in one.__dict__]
        super().fetch_many(instances)
        for one in fetched:
            _note_read(one, {name})


def is_kept(field: Any, instance: models.Model) -> bool:
    """Whether the object's None says nothing of what the column holds."""
    if field.on_error != "none" or instance._state.adding:
        return False
    name = field.attname
    return instance.__dict__.get(name, name) is None and name not in getattr(instance._state, ASSIGNED, ())


def hook_refreshing() -> None:
    """Put the hook in place; once a process."""
    models.Model.refresh_from_db = _refresh_from_db(models.Model.refresh_from_db)


def _refresh_from_db(original: Any) -> Any:
    @wraps(original)
    def refresh_from_db(self: Any, using: Any = None, fields: Any = None, from_queryset: Any = None) -> Any:
        names = None if fields is None else set(fields)
        outcome = original(self, using, names, from_queryset)
        _note_read(self, names)
        return outcome

    return refresh_from_db


def _note_read(instance: models.Model, names: set[str] | None) -> None:
    """What was assigned meanwhile came from the database; None: all of it."""
    assigned = getattr(instance._state, ASSIGNED, None)
    if assigned:
        setattr(instance._state, ASSIGNED, frozenset() if names is None else assigned - names)
