"""A sidecar in plain Python for every test, and a client of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from keyside import Client
from keyside.testing.server import Twin, running


@pytest.fixture
def twin() -> Iterator[Twin]:
    with tempfile.TemporaryDirectory(prefix="ks-") as folder, running(Path(folder, "s"), keyrings=None) as twin:
        yield twin


@pytest.fixture
def client(twin: Twin) -> Iterator[Client]:
    with Client(twin.path, timeout=5, retries=1) as client:
        yield client
