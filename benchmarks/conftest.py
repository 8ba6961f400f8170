"""One sidecar for all suites; values as in the table's rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from keyside import Client

from benchmarks.sidecar import Sidecar
from benchmarks.traffic import fields

SIZE = 64


@pytest.fixture(scope="session")
def sidecar() -> Iterator[Sidecar]:
    with Sidecar() as running:
        running.create_keyring("contacts")
        running.create_keyring("users", partitioned=True)
        yield running


@pytest.fixture(scope="session")
def client(sidecar: Sidecar) -> Iterator[Client]:
    with Client(sidecar.path) as connected:
        yield connected


@pytest.fixture(scope="session")
def value() -> bytes:
    return fields(1, SIZE)[0]


@pytest.fixture(scope="session")
def thousand() -> list[bytes]:
    return fields(1_000, SIZE)
