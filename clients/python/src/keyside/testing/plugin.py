"""The pytest plugin of the distribution (entry point `pytest11`): fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keyside.testing.server import Twin


@pytest.fixture(scope="session")
def keyside_sidecar() -> Iterator[Twin]:
    """A sidecar in this process, at $KEYSIDE_SOCKET while the session lasts; Django asks it whatever its setting says.

    It serves keyrings of any name, partitioned and not, with fixed keys; `vault.rotate(scope)` starts a new data key,
    `absent()`, `failing(fault)` and `faults` make it fail (keyside.testing.faults), `requests` holds what it was asked.
    """
    from keyside.testing.standing_in import standing_in  # needs `cryptography`: for tests that use the fixture

    with standing_in() as twin:
        yield twin
