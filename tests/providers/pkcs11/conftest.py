"""One SoftHSM token a session; tests that change keys take a label of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.softhsm import ServedSoftHsm, serve


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSoftHsm]:
    with serve(tmp_path_factory.mktemp("softhsm")) as served:
        yield served


@pytest.fixture
def token(softhsm: ServedSoftHsm, monkeypatch: pytest.MonkeyPatch) -> ServedSoftHsm:
    """The token, visible to this process."""
    for name, value in softhsm.environment.items():
        monkeypatch.setenv(name, value)
    return softhsm
