"""A vault and a Managed HSM for all tests of this folder; each test starts with new keys and no faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.azure.rig import AzureRig
from tests.servers.azure import AzureServed, serve


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServed]:
    with serve(tmp_path_factory.mktemp("vault")) as served:
        yield served


@pytest.fixture(scope="session")
def managed_hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServed]:
    with serve(tmp_path_factory.mktemp("hsm"), kind="hsm") as served:
        yield served


@pytest.fixture
def on_vault(vault: AzureServed, tmp_path: Path) -> AzureRig:
    return AzureRig(vault, tmp_path)


@pytest.fixture
def on_hsm(managed_hsm: AzureServed, tmp_path: Path) -> AzureRig:
    return AzureRig(managed_hsm, tmp_path)
