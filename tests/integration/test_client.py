"""What the Python client promises, with the real sidecar at the other end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.sidecar import Sidecar
from tests.clients.suite import ClientSuite


@pytest.fixture(scope="module")
def data_socket() -> Iterator[str]:
    with Sidecar(workers=2) as sidecar:
        sidecar.create_keyring("users", partitioned=True)
        sidecar.create_keyring("contacts")
        yield sidecar.path


class TestRealSidecar(ClientSuite):
    """Every test of the suite."""
