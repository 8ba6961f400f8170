"""Every row, by each mechanism that SoftHSM has."""

from __future__ import annotations

from itertools import count

import pytest

from tests.providers.conformance import Conformance
from tests.providers.pkcs11.rig import CHANGING, TokenRig
from tests.servers.softhsm import ServedSoftHsm

_labels = count()


@pytest.fixture
def label(token: ServedSoftHsm, request: pytest.FixtureRequest) -> str:
    """A key of its own for a test that changes it."""
    if request.node.originalname not in CHANGING:
        return "keyside"
    label = f"changing {next(_labels)}"
    token.order("generate", label)
    return label


class TestLunaByGcm(Conformance):
    @pytest.fixture
    def rig(self, token: ServedSoftHsm, label: str) -> TokenRig:
        return TokenRig(token, kek=label)


class TestThalesByKeyWrapWithPadding(Conformance):
    @pytest.fixture
    def rig(self, token: ServedSoftHsm, label: str) -> TokenRig:
        return TokenRig(token, kek=label, provider="THALES_HSM", mechanism="AES-KEY-WRAP-PAD")


class TestLunaByKeyWrap(Conformance):
    @pytest.fixture
    def rig(self, token: ServedSoftHsm, label: str) -> TokenRig:
        return TokenRig(token, kek=label, mechanism="AES-KW")
