"""One server of each kind for all tests of this folder, and a rig with a key of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.aws.rig import AwsRig, port_of
from tests.servers.aws import ServedAws, serve
from tests.servers.mishap import Mishap, mishap


@pytest.fixture(autouse=True)
def no_aws_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's profile nor the machine's role takes part."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAws]:
    with serve(tmp_path_factory.mktemp("moto")) as served:
        yield served


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAws]:
    with serve(tmp_path_factory.mktemp("ministack"), engine="ministack") as served:
        yield served


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAws]:
    with serve(tmp_path_factory.mktemp("fake"), engine="fake") as served:
        yield served


@pytest.fixture(scope="session")
def fake_proxy(fake: ServedAws) -> Iterator[Mishap]:
    with mishap(port_of(fake.endpoint)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def moto_proxy(moto: ServedAws) -> Iterator[Mishap]:
    with mishap(port_of(moto.endpoint)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def ministack_proxy(ministack: ServedAws) -> Iterator[Mishap]:
    with mishap(port_of(ministack.endpoint)) as proxy:
        yield proxy


@pytest.fixture
def moto_rig(moto: ServedAws, moto_proxy: Mishap, tmp_path: Path) -> AwsRig:
    return AwsRig(moto, moto_proxy, tmp_path)


@pytest.fixture
def ministack_rig(ministack: ServedAws, ministack_proxy: Mishap, tmp_path: Path) -> AwsRig:
    return AwsRig(ministack, ministack_proxy, tmp_path)


@pytest.fixture
def fake_rig(fake: ServedAws, fake_proxy: Mishap, tmp_path: Path) -> AwsRig:
    return AwsRig(fake, fake_proxy, tmp_path)
