from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.sidecar import Sidecar


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    """A running sidecar with two workers and the keyrings `users` (partitioned) and `contacts`."""
    with Sidecar(workers=2) as running:
        running.create_keyring("users", partitioned=True)
        running.create_keyring("contacts")
        yield running
