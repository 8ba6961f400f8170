"""One OpenBao for all tests of this folder, one behind TLS, and a proxy before each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.vault.rig import VaultRig
from tests.servers.mishap import Mishap, mishap
from tests.servers.openbao import ServedBao, serve


@pytest.fixture(scope="package")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBao]:
    with serve(tmp_path_factory.mktemp("bao")) as served:
        yield served


@pytest.fixture(scope="package")
def tls_bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBao]:
    with serve(tmp_path_factory.mktemp("bao-tls"), tls=True) as served:
        yield served


@pytest.fixture(scope="package")
def running_proxy(bao: ServedBao) -> Iterator[Mishap]:
    with mishap(bao.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy: Mishap) -> Mishap:
    running_proxy.normal()
    return running_proxy


@pytest.fixture
def rig(bao: ServedBao, proxy: Mishap, tmp_path: Path) -> VaultRig:
    return VaultRig(bao, proxy, tmp_path)
