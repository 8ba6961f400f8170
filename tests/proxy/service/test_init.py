"""`keyside init`, and the commands that need no sidecar."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from proxy.exits import Exit
from tests.proxy.service.sidecar import command, environment, initialize, running

KEYSIDE = Path(sys.executable).with_name("keyside")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_writes_everything_beneath_the_configurations_folder(home: Path) -> None:
    before = os.umask(0)
    try:
        said = command("init", "--config", home / "new" / "keyside.yaml")
    finally:
        os.umask(before)
    assert said.returncode == 0
    made = {str(path.relative_to(home / "new")) for path in (home / "new").rglob("*")}
    assert made >= {"keyside.yaml", "run", "data", "data/root.key", "data/keystore.sqlite"}
    assert mode(home / "new" / "data" / "root.key") == 0o600
    assert mode(home / "new" / "data" / "keystore.sqlite") & 0o077 == 0
    assert mode(home / "new" / "data") == 0o700
    (peer,) = yaml.safe_load((home / "new" / "keyside.yaml").read_text())["policy"]["peers"]
    assert (peer["uid"], peer["operations"], peer["keyrings"]) == (os.geteuid(), "all", ["*"])


@pytest.mark.parametrize("kept", ["data/root.key", "data/keystore.sqlite"])
def test_it_overwrites_nothing(home: Path, kept: str) -> None:
    config = initialize(home)
    for name in ("keyside.yaml", "data/root.key", "data/keystore.sqlite"):
        if name != kept:
            (home / name).unlink()
    before = (home / kept).read_bytes()
    said = command("init", "--config", config)
    assert said.returncode == Exit.CANNOT_CREATE
    assert str(home / kept).encode() in said.stderr
    assert (home / kept).read_bytes() == before
    assert not {"keyside.yaml", "data/root.key", "data/keystore.sqlite"} - {kept} & {
        str(path.relative_to(home)) for path in home.rglob("*")
    }


@pytest.mark.parametrize("there", [[], ["data/root.key"]])
def test_beneath_an_existing_configuration_it_makes_what_is_missing(home: Path, there: list[str]) -> None:
    config = initialize(home, hsm="{provider: LOCAL, keyFile: deep/keys/my.key}", keystore="{path: else where/k.db}")
    (home / "deep" / "keys").mkdir(parents=True)
    (home / "data" / "root.key").rename(home / "deep" / "keys" / "my.key")
    key, keystore = home / "deep" / "keys" / "my.key", home / "else where" / "k.db"
    if not there:
        key.unlink()
        key.parent.rmdir()  # folders are made too
    before = (config.read_bytes(), key.read_bytes() if there else None)
    said = command("init", "--config", config)
    assert said.returncode == 0, said.stderr
    assert f"wrote {keystore}".encode() in said.stdout
    assert (f"kept {key}" if there else f"wrote {key} (mode 0600").encode() in said.stdout
    assert (config.read_bytes(), key.read_bytes() if there else None) == before
    assert (mode(key), mode(keystore) & 0o077) == (0o600, 0)
    again = command("init", "--config", config)
    assert again.returncode == Exit.CANNOT_CREATE
    assert all(str(path).encode() in again.stderr for path in (config, key, keystore))
    with running(config) as sidecar:
        sidecar.run("keyring", "create", "contacts")


def test_a_keystore_never_gets_another_root_key(home: Path) -> None:
    config = initialize(home)
    (home / "data" / "root.key").unlink()
    said = command("init", "--config", config)
    assert said.returncode == Exit.CANNOT_CREATE
    assert b"backup" in said.stderr
    assert not (home / "data" / "root.key").exists()


def test_a_root_key_that_is_no_file_is_not_made(home: Path) -> None:
    config = initialize(home, hsm="{provider: LOCAL, systemdCredential: root-key}")
    for name in ("root.key", "keystore.sqlite"):
        (home / "data" / name).unlink()
    said = command("init", "--config", config)
    assert said.returncode == 0, said.stderr
    assert b"made no root key" in said.stdout
    assert (home / "data" / "keystore.sqlite").exists()
    assert not (home / "data" / "root.key").exists()


def test_beneath_a_configuration_with_problems_nothing_is_made(home: Path) -> None:
    config = home / "keyside.yaml"
    config.write_text("surprise: true")
    assert command("init", "--config", config).returncode == Exit.CONFIG
    assert [path.name for path in home.iterdir()] == ["keyside.yaml"]


def test_a_keystore_that_cannot_be_made_takes_its_root_key_back(home: Path) -> None:
    config = initialize(home, keystore="{path: open/k.db}")
    (home / "data" / "root.key").unlink()
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    assert command("init", "--config", config).returncode == Exit.STORAGE
    assert not (home / "data" / "root.key").exists()
    assert not list((home / "open").iterdir())


def test_a_dangling_link_is_not_followed(home: Path) -> None:
    (home / "data").mkdir(mode=0o700)
    (home / "data" / "root.key").symlink_to(home / "elsewhere")
    assert command("init", "--config", home / "keyside.yaml").returncode == Exit.CANNOT_CREATE
    assert not (home / "elsewhere").exists()


def test_half_an_installation_is_taken_back(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data").chmod(0o777)
    said = command("init", "--config", home / "keyside.yaml")
    assert said.returncode != 0
    assert not (home / "keyside.yaml").exists()
    assert not (home / "data" / "root.key").exists()
    (home / "data").chmod(0o700)
    assert command("init", "--config", home / "keyside.yaml").returncode == 0


def test_it_needs_no_privileges(home: Path) -> None:
    home.chmod(0o777)
    code = (
        "import os, sys, concurrent.futures.thread, proxy.cli.init, proxy.config, proxy.keystore, providers.local\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(proxy.cli.run(['init', '--config', sys.argv[1]]))"
    )
    path = home / "mine" / "keyside.yaml"
    subprocess.run([sys.executable, "-c", code, path], check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert path.stat().st_uid == (os.geteuid() or 65534)


def test_config_check_lists_all_problems_or_none(home: Path) -> None:
    config = initialize(home)
    said = command("config", "check", config)
    assert (said.returncode, said.stdout) == (0, f"{config}: no problems\n".encode())
    wrong = initialize_wrong(config)
    said = command("config", "check", wrong)
    assert said.returncode == Exit.CONFIG
    assert len(said.stderr.splitlines()) == 3
    told = json.loads(command("config", "check", wrong, "--json").stdout)
    assert {problem["path"] for problem in told["problems"]} == {"cache.ttl", "limits.max_frame", "surprise"}


def initialize_wrong(config: Path) -> Path:
    text = (
        config.read_text().replace("#  ttl: 1h", "  ttl: 1 fortnight").replace("#  max_frame: 8MiB", "  max_frame: 1")
    )
    config.write_text(text + "\nsurprise: true\n")
    return config


def test_settings_that_are_not_acted_on_are_named(home: Path) -> None:
    config = initialize(
        home, hsm="{provider: LOCAL, keyFile: data/root.key, monitoring: {cloudwatch: {enabled: true}}}"
    )
    said = command("config", "check", config)
    assert said.returncode == 0
    assert b"hsm.monitoring.cloudwatch.enabled" in said.stdout
    assert json.loads(command("config", "check", config, "--json").stdout)["unbuilt"]


def test_providers_are_listed() -> None:
    listed = {one["name"]: one["built"] for one in json.loads(command("provider", "list", "--json").stdout)}
    assert listed["LOCAL"] is True
    assert {"AWS_KMS", "AZURE_KEY_VAULT", "GCP_KMS", "LUNA_HSM", "THALES_HSM", "VAULT_TRANSIT"} <= listed.keys()
    assert command("provider", "list").stdout.decode().split() == list(listed)


def test_without_a_sidecar_commands_say_how_to_start_it(home: Path) -> None:
    config = initialize(home)
    for arguments in (["status"], ["keyring", "list"], ["encrypt", "k"]):
        said = command(*arguments, "--config", config)
        assert said.returncode == Exit.UNAVAILABLE
        assert b"keyside serve" in said.stderr
        assert said.stderr.count(b"\n") == 1


@pytest.mark.parametrize("redirected", ["<&-", ">&-"])
def test_a_closed_stream_is_no_defect(home: Path, redirected: str) -> None:
    said = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "-", KEYSIDE, "encrypt", "k", "--config", initialize(home)],
        input=None if redirected == "<&-" else b"x",
        capture_output=True,
        timeout=60,
    )
    assert said.returncode == Exit.FAILED
    assert b"must be open" in said.stderr


def test_a_full_standard_output_is_no_defect() -> None:
    with Path("/dev/full").open("wb") as full:
        said = subprocess.run([KEYSIDE, "provider", "list"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert said.returncode == Exit.FAILED
    assert said.stderr == b"keyside: standard output is full: make room, or send it elsewhere\n"


def test_a_defect_of_a_command_is_one_line_without_a_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = initialize(home)

    def broken(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("proxy.cli.status.ask", broken)
    said = command("status", "--config", config)
    assert said.returncode == Exit.DEFECT
    assert b"hunter2" not in said.stderr
    assert b"Traceback" not in said.stderr
    assert b"correlation=" in said.stderr


def test_config_check_takes_one_file(home: Path) -> None:
    config = initialize(home)
    said = command("config", "check", config, "--config", config)
    assert said.returncode == Exit.USAGE
    assert b"once" in said.stderr


def test_an_empty_keyring_name_gets_a_sentence(home: Path) -> None:
    said = command("keyring", "show", "", "--config", initialize(home))
    assert said.returncode == Exit.DATA
    assert b"keyring list" in said.stderr


def test_for_another_provider_it_makes_no_root_key_and_says_what_to_fill_in(home: Path) -> None:
    config = home / "keyside.yaml"
    said = command("init", "--provider", "AWS_KMS", "--config", config)
    assert said.returncode == 0, said.stderr
    assert b"provider check" in said.stdout
    assert not (home / "data" / "root.key").exists()
    assert (home / "data" / "keystore.sqlite").exists()
    assert yaml.safe_load(config.read_text())["hsm"]["provider"] == "AWS_KMS"
    said = command("config", "check", "--config", config)
    assert said.returncode == Exit.CONFIG
    assert b"hsm.connection.region: still has the placeholder <REGION>: fill it in" in said.stderr
    config.write_text(config.read_text().replace("<REGION>", "eu-central-1"))
    assert command("config", "check", "--config", config).returncode == 0


def test_it_does_not_turn_a_configuration_into_one_of_another_provider(home: Path) -> None:
    config = initialize(home)
    before = config.read_text()
    (home / "data" / "keystore.sqlite").unlink()
    said = command("init", "--provider", "AWS_KMS", "--config", config)
    assert said.returncode == Exit.CANNOT_CREATE
    assert b"its provider is LOCAL" in said.stderr
    assert config.read_text() == before
    assert not (home / "data" / "keystore.sqlite").exists()
