"""The rows that every back end passes, with each mechanism, on the test servers of Azure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.providers.azure.rig import AzureRig
from tests.providers.conformance import Conformance
from tests.servers.azure import AzureServed


class TestSignedWrapsOnAVault(Conformance):
    """RSA-OAEP-256+ES256, a vault's default."""

    @pytest.fixture
    def rig(self, on_vault: AzureRig) -> AzureRig:
        return on_vault


class TestUnsignedWrapsOnAVault(Conformance):
    """RSA-OAEP-256."""

    @pytest.fixture
    def rig(self, vault: AzureServed, tmp_path: Path) -> AzureRig:
        return AzureRig(vault, tmp_path, mechanism="RSA-OAEP-256")


class TestGcmOnAManagedHsm(Conformance):
    """A256GCM, a Managed HSM's default."""

    @pytest.fixture
    def rig(self, on_hsm: AzureRig) -> AzureRig:
        return on_hsm


class TestKeyWrapOnAManagedHsm(Conformance):
    """A256KW."""

    @pytest.fixture
    def rig(self, managed_hsm: AzureServed, tmp_path: Path) -> AzureRig:
        return AzureRig(managed_hsm, tmp_path, mechanism="A256KW")
