"""Names, and what choosing one imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from providers import create, options_problems
from providers.interface import Provider
from providers.registry import BUILT

ROOT = Path(__file__).parents[2]
BASE = Path("/etc/keyside")
SDKS = {"boto3", "botocore", "azure", "google", "pkcs11", "hvac", "cryptography"}
_PIN: Mapping[str, object] = {"credentials": {"type": "TOKEN", "data": {"pinFile": "pin"}}}
_VAULT: Mapping[str, object] = {"connection": {"endpoint": "https://acme.vault.azure.net"}}
NEEDED: Mapping[str, Mapping[str, object]] = {
    "AZURE_KEY_VAULT": _VAULT,
    "LUNA_HSM": _PIN,
    "THALES_HSM": _PIN,
}  # what cannot be left out


@pytest.mark.parametrize("name", [None, "", "local", ["LOCAL"], 3])
def test_no_such_provider(name: object) -> None:
    problems = options_problems({"provider": name, "keyFile": "cannot be judged"}, BASE)
    assert [problem.path for problem in problems] == ["hsm.provider"]
    assert "LOCAL" in problems[0].message


def test_the_name_is_required() -> None:
    assert [problem.path for problem in options_problems({}, BASE)] == ["hsm.provider"]


def test_the_vocabulary_is_the_operators() -> None:
    assert set(BUILT) == {
        "LOCAL", "AWS_KMS", "AZURE_KEY_VAULT", "GCP_KMS", "LUNA_HSM", "THALES_HSM", "VAULT_TRANSIT",
    }  # fmt: skip


def _imported_by(code: str) -> set[str]:
    listing = f"import sys, json\nfrom pathlib import Path\n{code}\njson.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, cwd=ROOT, check=True, text=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_no_back_end() -> None:
    imported = _imported_by("import providers; providers.options_problems({'provider': 'NONE'}, Path('/'))")
    assert not imported & SDKS
    assert not any(name.startswith(entry.module) for name in imported for entry in BUILT.values())


@pytest.mark.parametrize("name", BUILT)
def test_creating_one_imports_that_one(name: str) -> None:
    imported = _imported_by(f"import providers; providers.options_problems({{'provider': '{name}'}}, Path('/'))")
    others = {entry.module for entry in BUILT.values()} - {BUILT[name].module}
    assert BUILT[name].module in imported
    assert not imported & others


def test_a_class_is_named_as_its_entry() -> None:
    for name in BUILT:
        provider = create({"provider": name, **NEEDED.get(name, {})}, BASE)
        assert isinstance(provider, Provider)
        assert provider.name == name
