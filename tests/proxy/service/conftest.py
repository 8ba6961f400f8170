"""Folders with short names, and one sidecar for all tests that only ask it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.service.sidecar import Sidecar, folder, initialize, running


@pytest.fixture
def home() -> Iterator[Path]:
    with folder() as path:
        yield path


@pytest.fixture(scope="session")
def sidecar() -> Iterator[Sidecar]:
    """A sidecar with the keyrings `users` (partitioned) and `contacts`; tests leave it as it is, but for data keys."""
    with folder() as path, running(initialize(path, log="{level: debug}"), execute=True) as started:
        started.run("keyring", "create", "users", "--partitioned")
        started.run("keyring", "create", "contacts", "--index-bits", "64")
        yield started
