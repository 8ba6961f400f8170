"""What operators read and install agrees with the code."""

import configparser
import re
from pathlib import Path

import pytest

from proxy.cli import COMMANDS, EPILOG
from proxy.exits import Exit
from proxy.service import DRAIN_SECONDS
from tests.proxy.service.sidecar import command

ROOT = Path(__file__).parents[3]
CLI = (ROOT / "docs" / "cli.md").read_text()


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's settings are case-sensitive
    parser.read_string((ROOT / "deploy" / name).read_text())
    return parser


def test_every_exit_code_is_documented() -> None:
    listed = {int(code): name for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", CLI, re.MULTILINE)}
    assert listed == {int(code): code.name for code in Exit}
    assert {
        int(code) for code in re.findall(r"^  (\d+) |  (\d+)  ", EPILOG, re.MULTILINE) for code in code if code
    } == {int(code) for code in Exit}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_help(name: str) -> None:
    assert f"`keyside {name}" in CLI
    said = command(name, "--help")
    assert (said.returncode, said.stderr) == (0, b"")
    assert f"Usage: keyside {name}".encode() in said.stdout


def test_help_names_the_commands_without_importing_them() -> None:
    said = command("--help")
    assert said.returncode == 0
    assert all(f"  {name} ".encode() in said.stdout for name in COMMANDS)


def test_the_units_fit_the_sidecar() -> None:
    service = unit("keyside.service")["Service"]
    assert float(service["TimeoutStopSec"]) > DRAIN_SECONDS
    assert int(service["RestartPreventExitStatus"]) == Exit.CONFIG
    assert service["Type"] == "notify"
    for name, role in (("keyside.socket", "data"), ("keyside-admin.socket", "admin")):
        socket = unit(name)["Socket"]
        assert socket["FileDescriptorName"] == role
        assert socket["Service"] == "keyside.service"
        assert socket["ListenStream"].startswith("/run/keyside/")
