"""Everything that `keyside.django` puts in place, once a process."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

from keyside.django.reading import hook_reads
from keyside.django.updating import hook_updates
from keyside.django.writing import encrypt_parameters, masked_last_query


def install() -> None:
    """Encrypt what is written on every connection, and decrypt what is read."""
    hook_updates()
    hook_reads()
    connection_created.connect(_on_connection, dispatch_uid="keyside.django")
    for connection in connections.all(initialized_only=True):
        _hook(connection)


def _on_connection(sender: Any, connection: Any, **named: Any) -> None:
    _hook(connection)


def _hook(connection: Any) -> None:
    if encrypt_parameters not in connection.execute_wrappers:
        connection.execute_wrappers.append(encrypt_parameters)
        connection.ops.last_executed_query = masked_last_query(connection)
