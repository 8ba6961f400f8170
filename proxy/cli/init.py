"""`keyside init`: everything a first `keyside serve` needs, made without privileges, overwriting nothing."""

import asyncio
import os
import pwd
from pathlib import Path
from typing import Final

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, read_config
from proxy.exits import Exit

EMBEDDED: Final = "LOCAL"
PROVIDERS: Final = (
    EMBEDDED,
    "AWS_KMS",
    "AZURE_KEY_VAULT",
    "GCP_KMS",
    "LUNA_HSM",
    "THALES_HSM",
    "VAULT_TRANSIT",
)
"""As in providers.registry, which is not imported for --help."""


@click.command()
@config_option
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    help="Whose section `hsm` the new configuration has; to be filled in.  [default: LOCAL]",
)
def init(config_path: Path, provider: str | None) -> None:
    """Write what a first `keyside serve` lacks: a configuration, a root key, an empty keystore.

    Without a configuration all three, beneath its folder: data/root.key (mode 0600) and data/keystore.sqlite, and run/
    for the sockets; the uid that runs this may do everything, others are added under policy.peers. With a --provider
    other than LOCAL no root key, and a section `hsm` to fill in. With a configuration, the keystore that it names, and
    with LOCAL and keyFile the root key. Nothing that exists is overwritten.
    """
    made: _Extension | _Installation
    if os.path.lexists(config_path):
        made = _Extension(config_path, provider)
    else:
        made = _Installation(config_path, provider or EMBEDDED)
    made.refuse_to_overwrite()
    try:
        made.write()
    except OSError as error:
        made.undo()
        raise Failure(
            f"cannot create {error.filename or config_path.absolute().parent}: {error.strerror}", Exit.CANNOT_CREATE
        ) from error
    except BaseException:
        made.undo()
        raise
    for line in made.report():
        click.echo(line)
    for line in made.next_steps():
        click.echo(line)


class _Made:
    """Files that were made, so that they can be taken back."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self._made: list[Path] = []
        self._report: list[str] = []

    def undo(self) -> None:
        """Leave no half of an installation behind: a second run must be able to succeed."""
        for path in self._made:
            path.unlink(missing_ok=True)

    def report(self) -> list[str]:
        return self._report

    def next_steps(self) -> list[str]:
        """What to do now, a line each."""
        return [f"start the sidecar with: keyside serve --config {self.config}"]

    def _create_config(self, path: Path, text: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._made.append(path)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        self._report.append(f"wrote {path}")

    def _create_root_key(self, path: Path) -> None:
        from providers.local import create_root_key

        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_root_key(path)
        self._made.append(path)
        self._report.append(f"wrote {path} (mode 0600: back it up, it cannot be made again)")

    def _create_keystore(self, path: Path, url: str) -> None:
        files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]
        self._made += [file for file in files if not os.path.lexists(file)]
        _create_keystore(url)
        self._report.append(f"wrote {path}")


class _Installation(_Made):
    """All of it, beneath the folder of a configuration that does not exist yet."""

    def __init__(self, config: Path, provider: str) -> None:
        super().__init__(config)
        self.provider = provider
        self.folder = config.absolute().parent
        self.root_key = self.folder / "data" / "root.key"
        self.keystore = self.folder / "data" / "keystore.sqlite"

    def refuse_to_overwrite(self) -> None:
        wanted = (self.config, *([self.root_key] if self.provider == EMBEDDED else []), self.keystore)
        there = [path for path in wanted if os.path.lexists(path)]
        if there:
            raise _exist(there, "or name a configuration in an empty folder with --config")

    def write(self) -> None:
        from proxy.config import ConfigError, default_yaml, load

        self.folder.mkdir(parents=True, exist_ok=True)
        for name, mode in (("run", 0o755), ("data", 0o700)):
            (self.folder / name).mkdir(mode=mode, exist_ok=True)
        if self.provider == EMBEDDED:
            self._create_root_key(self.root_key)
        uid = os.geteuid()
        self._create_config(self.config, default_yaml(uid, name=_user_name(uid), provider=self.provider))
        try:
            load(self.config)
        except ConfigError as error:
            if not all(problem.path.startswith("hsm.") for problem in error.problems):  # those are to be filled in
                raise
        self._create_keystore(self.keystore, f"sqlite:///{self.keystore}")

    def next_steps(self) -> list[str]:
        if self.provider == EMBEDDED:
            return super().next_steps()
        return [
            f"fill in the section hsm of {self.config}, then try it out with: keyside provider check --config "
            f"{self.config}",
            *super().next_steps(),
        ]


class _Extension(_Made):
    """The root key and the keystore that an existing configuration names, where they are missing."""

    def __init__(self, config: Path, provider: str | None) -> None:
        super().__init__(config)
        from providers.local import root_key_file
        from proxy.keystore import file_of

        read = read_config(config)
        if provider not in (None, read.hsm["provider"]):
            raise Failure(
                f"{config} exists and its provider is {read.hsm['provider']}; nothing was changed: edit its section "
                f"hsm, or name another file with --config to see one for {provider}",
                Exit.CANNOT_CREATE,
            )
        self.url = read.keystore.location
        self.keystore = file_of(self.url)
        self.root_key = root_key_file(read.hsm, read.base)
        self._has_keystore = os.path.lexists(self.keystore)
        self._has_root_key = self.root_key is None or os.path.lexists(self.root_key)

    def refuse_to_overwrite(self) -> None:
        if self._has_keystore and not self._has_root_key:
            raise Failure(
                f"{self.keystore} exists and its root key {self.root_key} does not; nothing was changed: restore the "
                "root key from your backup, a new one could not decrypt what the keystore holds",
                Exit.CANNOT_CREATE,
            )
        if self._has_keystore:
            there = [self.config, *([self.root_key] if self.root_key else []), self.keystore]
            raise _exist(there, "or name another configuration with --config")

    def write(self) -> None:
        if self.root_key and not self._has_root_key:
            self._create_root_key(self.root_key)
        elif self.root_key:
            self._report.append(f"kept {self.root_key}")
        else:
            self._report.append("made no root key: hsm names one that is no file of this command")
        self._create_keystore(self.keystore, self.url)


def _exist(there: list[Path], otherwise: str) -> Failure:
    names = ", ".join(str(path) for path in there)
    return Failure(
        f"{names} exist{'s' if len(there) == 1 else ''} already; nothing was changed: start `keyside serve` with what "
        f"is there, {otherwise}",
        Exit.CANNOT_CREATE,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # containers run under numbers that no passwd file knows
        return f"uid-{uid}"


def _create_keystore(url: str) -> None:
    from proxy.keystore import Keystore, KeystoreError

    try:
        store = Keystore.open(url, create=True)
        asyncio.run(store.close())
    except KeystoreError as error:
        raise Failure(str(error), Exit.STORAGE) from error
