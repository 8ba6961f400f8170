"""A Django project for the tests, on SQLite and PostgreSQL, with the plain-Python sidecar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.db import connections
from django.test.utils import override_settings, setup_test_environment, teardown_test_environment
from keyside.testing.server import Twin

from tests.orm.sqlalchemy.servers import postgresql

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.orm.django.project")
django.setup()


@pytest.fixture(scope="session", autouse=True)
def test_environment() -> Iterator[None]:
    setup_test_environment(debug=False)
    yield
    teardown_test_environment()


@pytest.fixture(scope="session")
def postgresql_socket() -> Iterator[Path]:
    with postgresql() as folder:
        yield folder


@pytest.fixture
def sidecar(twin: Twin) -> Iterator[Twin]:
    with override_settings(KEYSIDE=settings.KEYSIDE | {"SOCKET": twin.path}):
        yield twin


@pytest.fixture
def databases(sidecar: Twin, postgresql_socket: Path, tmp_path: Path) -> Iterator[None]:
    connections["default"].settings_dict["NAME"] = str(tmp_path / "test.sqlite")
    connections["postgresql"].settings_dict["HOST"] = str(postgresql_socket)
    yield
    for connection in connections.all():
        connection.close()


@pytest.fixture
def settings_debug() -> Iterator[None]:
    with override_settings(DEBUG=True):
        yield
