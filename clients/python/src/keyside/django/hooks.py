"""Everything that `keyside.django` puts in place, once a process."""

from __future__ import annotations

import warnings
from functools import cache, wraps
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.sql import Query

from keyside.django.altering import hook_schemas
from keyside.django.fetching import fetch_in_binary
from keyside.django.keeping import hook_refreshing
from keyside.django.reading import hook_reads
from keyside.django.selfcheck import READING, WRITING, what_changed
from keyside.django.statements import hook_statements
from keyside.django.uniqueness import hook_validation
from keyside.django.updating import hook_updates
from keyside.django.writing import encrypt_parameters, masked_last_query, shown_query
from keyside.fields import BatchingOff


@cache
def install() -> None:
    """Encrypt what is written on every connection, and decrypt what is read.

    Raises ImproperlyConfigured when this Django writes rows by other ways than those that are known: an index might
    not follow its column then.
    """
    changed = what_changed(WRITING)
    if changed:
        raise ImproperlyConfigured(f"keyside.django does not know this Django's {changed}; use a release it supports")
    changed = what_changed(READING)
    if changed:
        message = f"Django's internals are not as expected ({changed}); values are decrypted one by one"
        warnings.warn(message, BatchingOff, stacklevel=2)
    else:
        hook_reads()
    hook_updates()
    hook_validation()
    hook_refreshing()
    hook_statements()
    hook_schemas()
    Query.__str__ = shown_query
    BaseDatabaseWrapper.__init__ = _init(BaseDatabaseWrapper.__init__)
    # another thread may have made one before, and opens it later
    connection_created.connect(_on_connection, dispatch_uid="keyside.django")
    for connection in connections.all(initialized_only=True):
        _hook(connection)


def _init(original: Any) -> Any:
    @wraps(original)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        _hook(self)

    return init


def _on_connection(sender: Any, connection: Any, **named: Any) -> None:
    _hook(connection)


def _hook(connection: Any) -> None:
    if encrypt_parameters not in connection.execute_wrappers:
        # in front: it may be inside `with connection.execute_wrapper(…)`, which takes the last one away
        connection.execute_wrappers[:0] = [encrypt_parameters, fetch_in_binary]
        connection.ops.last_executed_query = masked_last_query(connection)
