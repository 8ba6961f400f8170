"""Key files on bad days: wrong owner, mode or kind, damaged, missing, in the way, on a failing disk."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from providers import CredentialsInvalid, Denied, InputRefused, NotFound, ProviderError, Unavailable, create
from providers.local import create_passphrase_key, create_root_key
from providers.local.__main__ import main
from providers.private_file import create_private, read_private

ROOT = Path(__file__).parents[2]


def read(path: Path) -> bytearray:
    return read_private(path, "root key file", "restore it")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    create_root_key(tmp_path / "root.key")
    return tmp_path / "root.key"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_new_key_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_root_key(tmp_path / "root.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "root.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["root.key"]


def test_a_key_is_never_overwritten(key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(FileExistsError):
        create_root_key(key_file)
    assert key_file.read_bytes() == before
    assert [path.name for path in key_file.parent.iterdir()] == ["root.key"]


def test_a_dangling_link_is_never_followed_when_creating(tmp_path: Path) -> None:
    (tmp_path / "root.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_root_key(tmp_path / "root.key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        create_root_key(tmp_path / "root.key")
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    create_private(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_file_and_folder_are_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(stat.filemode(os.fstat(descriptor).st_mode)[0])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    create_root_key(tmp_path / "root.key")
    assert synced == ["-", "d"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_any_permission_for_others_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(CredentialsInvalid, match=f"chmod 600 {key_file}") as refusal:
        read(key_file)
    assert f"{mode:04o}" in str(refusal.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_private_modes_are_taken(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    assert read(key_file).startswith(b"keyside-root-key-v1\n")


def test_a_credential_that_the_world_can_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0o444)
    with pytest.raises(CredentialsInvalid, match="LoadCredential"):
        read_private(key_file, "root key file", "restore it", handed_over=True)


def test_somebody_elses_file_is_refused(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(key_file, 12345, -1)
    else:
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(CredentialsInvalid, match="who could replace it"):
        read(key_file)


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _endless(path: Path) -> None:
    path.write_bytes(bytes(5000))


def _below_a_file(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (_missing, NotFound, "is missing: restore it"),
        (_below_a_file, NotFound, "is missing: restore it"),
        (_folder, CredentialsInvalid, "not a regular file"),
        (_fifo, CredentialsInvalid, "not a regular file"),
        (_endless, CredentialsInvalid, "longer than 4096 bytes"),
    ],
)
def test_what_is_no_file_of_ours_is_named(
    key_file: Path, damage: Callable[[Path], None], error: type[ProviderError], says: str
) -> None:
    damage(key_file)
    with pytest.raises(error, match=says) as refusal:
        read(key_file)
    assert str(key_file) in str(refusal.value)


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), Denied, "run as its owner"),
        (OSError(errno.EIO, "Input/output error"), Unavailable, "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), Unavailable, "disk or mount"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError, error: type[ProviderError], says: str
) -> None:
    def fail(*arguments: object) -> int:
        raise failure

    monkeypatch.setattr("providers.private_file.os.open", fail)
    with pytest.raises(error, match=says):
        read(key_file)


def _damaged(path: Path) -> Iterator[int]:
    """Flip a bit of each byte in turn."""
    good = path.read_bytes()
    for offset in range(len(good)):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        yield offset


async def test_every_damaged_byte_of_a_key_file_is_named_as_damage(key_file: Path) -> None:
    for _ in _damaged(key_file):
        provider = create({"provider": "LOCAL", "keyFile": "root.key"}, key_file.parent)
        with pytest.raises(CredentialsInvalid, match=r"root\.key"):
            await provider.initialize()
        await provider.close()


async def test_a_wrong_passphrase_is_named_and_a_short_one_refused(tmp_path: Path) -> None:
    create_passphrase_key(tmp_path / "key", b"a long enough passphrase")
    (tmp_path / "passphrase").write_bytes(b"a long enough passphrasf")
    (tmp_path / "passphrase").chmod(0o600)
    hsm = {"provider": "LOCAL", "passphraseFile": "passphrase", "passphraseKeyFile": "key"}
    provider = create({**hsm, "performance": {"requestTimeout": 30_000}}, tmp_path)
    with pytest.raises(CredentialsInvalid, match="the passphrase is not the one"):
        await provider.initialize()
    await provider.close()
    with pytest.raises(InputRefused, match="at least 12 bytes"):
        create_passphrase_key(tmp_path / "other", b"eleven byte")


@pytest.mark.parametrize(
    ("hsm", "error", "says"),
    [
        ({"systemdCredential": "root"}, CredentialsInvalid, "LoadCredential=root"),
        ({"passphraseEnv": "KEYSIDE_UNSET", "passphraseKeyFile": "key"}, NotFound, "KEYSIDE_UNSET is not set"),
        ({"passphraseEnv": "KEYSIDE_EMPTY", "passphraseKeyFile": "key"}, CredentialsInvalid, "KEYSIDE_EMPTY is empty"),
        ({"passphraseFile": "gone", "passphraseKeyFile": "key"}, NotFound, "passphrase file .*gone is missing"),
        ({"passphraseFile": "gone", "passphraseKeyFile": "lost"}, NotFound, "the passphrase alone is not enough"),
    ],
    ids=str,
)
async def test_a_source_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hsm: dict[str, object], error: type[ProviderError], says: str
) -> None:
    create_private(tmp_path / "key", b"never read so far")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("KEYSIDE_UNSET", raising=False)
    monkeypatch.setenv("KEYSIDE_EMPTY", "\n")
    provider = create({"provider": "LOCAL", **hsm}, tmp_path)
    with pytest.raises(error, match=says):
        await provider.initialize()
    await provider.close()


def test_the_command_makes_a_root_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "root.key"
    assert main(["root-key", str(path)]) == 0
    said = capsys.readouterr().out
    assert path.read_text().splitlines()[2] == said.splitlines()[0]
    assert path.read_text().splitlines()[1] not in said
    assert main(["root-key", str(path)]) == 1
    assert "exists and was left alone" in capsys.readouterr().err
    assert main(["root-key", str(tmp_path / "no" / "folder")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_the_command_makes_a_passphrase_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "providers.local", "passphrase-key", str(tmp_path / "key")]
    short = subprocess.run(command, input=b"short\n", capture_output=True, cwd=ROOT, check=False)
    assert (short.returncode, short.stdout) == (1, b"")
    assert b"at least 12 bytes" in short.stderr
    made = subprocess.run(command, input=b"five random words go here\n", capture_output=True, cwd=ROOT, check=True)
    assert made.stdout.startswith(b"local:")
    assert b"five random" not in made.stdout + made.stderr
