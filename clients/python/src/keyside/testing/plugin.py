"""The pytest plugin of the distribution (entry point `pytest11`): fixtures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keyside.testing.server import Twin


@pytest.fixture(scope="session")
def keyside_sidecar() -> Iterator[Twin]:
    """A sidecar in this process, at $KEYSIDE_SOCKET while the session lasts.

    It serves keyrings of any name, partitioned and not, with fixed keys; `vault.rotate(scope)` starts a new data key,
    `faults` makes it fail (keyside.testing.faults), `requests` holds what it was asked.
    """
    from keyside.testing.server import running  # needs `cryptography`: for tests that use the fixture

    before = os.environ.get("KEYSIDE_SOCKET")
    with (
        tempfile.TemporaryDirectory(prefix="keyside-") as folder,
        running(Path(folder, "keyside.sock"), keyrings=None) as twin,
    ):
        os.environ["KEYSIDE_SOCKET"] = twin.path
        try:
            yield twin
        finally:
            if before is None:
                del os.environ["KEYSIDE_SOCKET"]
            else:
                os.environ["KEYSIDE_SOCKET"] = before
