"""One server for all tests of this folder, and a rig with a key of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.gcp.rig import GcpRig
from tests.servers.gcp import ServedGoogle, serve

_numbers = itertools.count()


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGoogle]:
    with serve(tmp_path_factory.mktemp("google")) as served:
        yield served


@pytest.fixture
def rig(google: ServedGoogle, tmp_path: Path) -> Iterator[GcpRig]:
    google.order("calm")
    yield GcpRig(google, tmp_path, f"key-{next(_numbers)}")
    google.order("calm")
