"""A Django project for the tests, on SQLite, PostgreSQL and MariaDB, with the plain-Python sidecar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connections, models
from django.test.utils import override_settings, setup_test_environment, teardown_test_environment
from keyside.django import client
from keyside.testing.server import Twin

from tests.orm.servers import mariadb, postgresql

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.orm.django.project")
django.setup()

from tests.orm.django.citizens.models import created  # noqa: E402  models need the set-up above
from tests.orm.django.clinics.models import Badge, Card, Clinic, Everything, GoldCard, Letter, Memo, Patient, Peculiar  # noqa: E402

collect_ignore = [] if hasattr(models, "FETCH_PEERS") else ["test_fetch_modes.py"]
"""Fetch modes came with Django 6.1."""

CLINICS = (Clinic, Patient, Badge, Card, GoldCard, Memo, Letter, Peculiar, Everything)


@pytest.fixture(scope="session", autouse=True)
def test_environment() -> Iterator[None]:
    setup_test_environment(debug=False)
    yield
    teardown_test_environment()


@pytest.fixture(scope="session")
def postgresql_socket() -> Iterator[Path]:
    with postgresql() as folder:
        yield folder


@pytest.fixture(scope="session")
def mariadb_socket() -> Iterator[Path]:
    with mariadb() as socket:
        yield socket


@pytest.fixture
def sidecar(twin: Twin) -> Iterator[Twin]:
    with override_settings(KEYSIDE=settings.KEYSIDE | {"SOCKET": twin.path}):
        yield twin
        client().close()


@pytest.fixture
def databases(sidecar: Twin, postgresql_socket: Path, mariadb_socket: Path, tmp_path: Path) -> Iterator[None]:
    connections["default"].settings_dict["NAME"] = str(tmp_path / "test.sqlite")
    connections["postgresql"].settings_dict["HOST"] = str(postgresql_socket)
    connections["mariadb"].settings_dict["OPTIONS"]["unix_socket"] = str(mariadb_socket)
    yield
    for connection in connections.all():
        connection.close()


@pytest.fixture
def settings_debug() -> Iterator[None]:
    with override_settings(DEBUG=True):
        yield


@pytest.fixture
def strict(sidecar: Twin) -> Iterator[None]:
    """A value that takes a round trip of its own is an error."""
    with override_settings(KEYSIDE=settings.KEYSIDE | {"UNBATCHED": "error"}):
        yield


@pytest.fixture(params=["default", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, databases: None, strict: None) -> Iterator[str]:
    """The alias of a database with empty tables of clinics, routed to by everything that a test does."""
    alias: str = request.param
    with override_settings(DATABASE_ROUTERS=[OneDatabase(alias)]), created(alias, *CLINICS):
        yield alias


class OneDatabase:
    """Every model lives in one database."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self._alias

    db_for_write = db_for_read
