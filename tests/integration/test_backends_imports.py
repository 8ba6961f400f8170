"""A sidecar loads the SDK of the back end that is configured, and no other: its modules, and the memory they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.local import create_root_key
from tests.house.tree import ROOT
from tests.servers import LAUNCHERS, launch

SDKS = {
    "boto3": "AWS_KMS",
    "botocore": "AWS_KMS",
    "aiobotocore": "AWS_KMS",
    "google.cloud.kms_v1": "GCP_KMS",
    "google.api_core": "GCP_KMS",
    "grpc": "GCP_KMS",
    "azure.core": "AZURE_KEY_VAULT",
    "azure.identity": "AZURE_KEY_VAULT",
    "azure.keyvault.keys": "AZURE_KEY_VAULT",
    "msal": "AZURE_KEY_VAULT",
    "pkcs11": "LUNA_HSM",
    "hvac": "VAULT_TRANSIT",
    "providers.aws": "AWS_KMS",
    "providers.azure": "AZURE_KEY_VAULT",
    "providers.gcp": "GCP_KMS",
    "providers.pkcs11": "LUNA_HSM",
    "providers.vault": "VAULT_TRANSIT",
}
"""Packages, and whose they are; THALES_HSM shares those of LUNA_HSM."""

MOST_MEBIBYTES = {
    "LOCAL": 85,
    "AWS_KMS": 115,
    "AZURE_KEY_VAULT": 105,
    "GCP_KMS": 125,
    "LUNA_HSM": 92,
    "THALES_HSM": 92,
    "VAULT_TRANSIT": 88,
}
"""Resident, with everything that start-up touched: a sidecar gives much of it back before it serves.

A tenth above what was found on x86-64 with Python 3.11: LOCAL 76, AWS 102, Azure 92, Google 111, PKCS #11 82, Vault 76.
"""


def assembled(hsm: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.assemble"],
        input=json.dumps(hsm),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("provider", ["LOCAL", *LAUNCHERS])
def test_one_sdk_is_loaded_and_no_other(
    provider: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory(prefix="ks") as name:
        if provider == "LOCAL":
            create_root_key(Path(name) / "root.key")
            found = assembled({"provider": "LOCAL", "keyFile": f"{name}/root.key"}, {})
        else:
            with launch(provider, Path(name)) as served:
                found = assembled(served.hsm, dict(served.environment))
    own = "LUNA_HSM" if provider == "THALES_HSM" else provider
    loaded = {package for package in SDKS if package in set(found["modules"])}
    assert {SDKS[package] for package in loaded} == ({own} if own != "LOCAL" else set()), loaded
    mebibytes = found["resident"] / (1 << 20)
    record_property("resident_mebibytes", round(mebibytes, 1))
    assert mebibytes < MOST_MEBIBYTES[provider], f"{mebibytes:.1f} MiB"
