"""The conformance rows for openCryptoki, run by test_opencryptoki.py in the namespaces where its token is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.providers.conformance import Conformance
from tests.providers.pkcs11.rig import CHANGING, TokenRig
from tests.servers.opencryptoki import serve
from tests.servers.token_administrator import ServedToken

_labels = count()


@pytest.fixture(scope="session")
def opencryptoki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedToken]:
    with serve(tmp_path_factory.mktemp("opencryptoki")) as served:
        yield served


class TestThalesByCbcAndHmac(Conformance):
    not_applicable = {  # noqa: RUF012  # a ClassVar of the base class
        "test_back_end_away_and_back_without_restart": "its software token cannot be pulled out, and processes that "
        "have it open do not notice that the daemon ended",
    }

    @pytest.fixture
    def rig(self, opencryptoki: ServedToken, request: pytest.FixtureRequest) -> TokenRig:
        label = "keyside"
        if request.node.originalname in CHANGING:
            label = f"changing {next(_labels)}"
            opencryptoki.order("generate", label)
        return TokenRig(opencryptoki, kek=label)
