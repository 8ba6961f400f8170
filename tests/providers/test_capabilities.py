"""Asking for a capability: what comes back, and what the type checker makes of it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from providers import Capability, Encrypts, Provider, Signs, capabilities, create
from providers.capabilities import INTERFACES

ROOT = Path(__file__).parents[2]

OPERATIONS = {
    *("initialize", "health_check", "wrap_key", "unwrap_key", "export_key"),
    *("generate_key", "import_key", "delete_key", "encrypt", "decrypt", "sign", "verify"),
    *("create_session", "close_session", "get_audit_logs", "get_compliance_info"),
}

ASKING = """
from typing import assert_type
from providers import Ciphertext, Encrypts, Provider, Signature, Signs

async def ask(provider: Provider) -> None:
    signing = provider.capability(Signs)
    assert_type(signing, Signs | None)
    if signing is not None:
        assert_type(await signing.sign(b"data", key="k"), Signature)
    encrypting = provider.capability(Encrypts)
    if encrypting is not None:
        assert_type(await encrypting.encrypt(b"data"), Ciphertext)
    encrypting.decrypt  # may be None: the checker must object
"""


@pytest.fixture
def provider() -> Provider:
    return create({"provider": "LOCAL"}, Path("/etc/keyside"))


def test_what_is_offered_comes_back_as_itself_and_what_is_not_as_none(provider: Provider) -> None:
    encrypting: object = provider.capability(Encrypts)
    assert encrypting is provider
    assert provider.capability(Signs) is None


def test_what_is_implemented_and_not_declared_is_not_offered(provider: Provider) -> None:
    provider.capabilities = Capability.COMPLIANCE_INFO
    assert provider.capability(Encrypts) is None


def test_a_class_that_is_no_capability_is_not_offered(provider: Provider) -> None:
    assert provider.capability(Provider) is None
    assert provider.capability(object) is None


def test_the_sixteen_operations_are_all_there() -> None:
    classes = (Provider, *INTERFACES.values())
    found = {name for each in classes for name, _ in inspect.getmembers(each, inspect.iscoroutinefunction)}
    assert found - {"close"} == OPERATIONS


def test_every_interface_has_its_flag() -> None:
    found = (interface for _, interface in inspect.getmembers(capabilities, inspect.isabstract))
    interfaces = {interface for interface in found if interface.__module__ == capabilities.__name__}
    assert set(INTERFACES.values()) == interfaces
    assert set(INTERFACES) == set(Capability)


def test_the_type_checker_understands(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    command = [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "asking.py")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert "[union-attr]" in errors[0]
