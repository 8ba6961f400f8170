"""`keyside init`: everything a first `keyside serve` needs, made without privileges, overwriting nothing."""

import asyncio
import os
import pwd
from pathlib import Path

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option
from proxy.exits import Exit


@click.command()
@config_option
def init(config_path: Path) -> None:
    """Write a configuration, a root key and an empty keystore.

    Beneath the configuration's folder: run/ for the sockets, data/root.key (mode 0600) and data/keystore.sqlite. The
    uid that runs this may do everything; others are added under policy.peers. Nothing that exists is overwritten.
    """
    folder = config_path.absolute().parent
    made = _Installation(config_path, folder)
    made.refuse_to_overwrite()
    try:
        made.write()
    except OSError as error:
        made.undo()
        raise Failure(f"cannot create {error.filename or folder}: {error.strerror}", Exit.CANNOT_CREATE) from error
    except BaseException:
        made.undo()
        raise
    click.echo(f"wrote {made.config}")
    click.echo(f"wrote {made.root_key} (mode 0600: back it up, it cannot be made again)")
    click.echo(f"wrote {made.keystore}")
    click.echo(f"start the sidecar with: keyside serve --config {config_path}")


class _Installation:
    def __init__(self, config: Path, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.root_key = folder / "data" / "root.key"
        self.keystore = folder / "data" / "keystore.sqlite"
        self._made: list[Path] = []

    def refuse_to_overwrite(self) -> None:
        there = [path for path in (self.config, self.root_key, self.keystore) if os.path.lexists(path)]
        if there:
            names = ", ".join(str(path) for path in there)
            raise Failure(
                f"{names} exist{'s' if len(there) == 1 else ''} already; nothing was changed: start `keyside serve` "
                "with what is there, or name a configuration in an empty folder with --config",
                Exit.CANNOT_CREATE,
            )

    def write(self) -> None:
        from providers.local import create_root_key
        from proxy.config import default_yaml, load

        self.folder.mkdir(parents=True, exist_ok=True)
        for name, mode in (("run", 0o755), ("data", 0o700)):
            (self.folder / name).mkdir(mode=mode, exist_ok=True)
        create_root_key(self.root_key)
        self._made.append(self.root_key)
        uid = os.geteuid()
        self._create(self.config, default_yaml(uid, name=_user_name(uid)), 0o644)
        self._made += [self.keystore.with_name(self.keystore.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]
        _create_keystore(load(self.config).keystore.location)

    def undo(self) -> None:
        """Leave no half of an installation behind: a second run must be able to succeed."""
        for path in self._made:
            path.unlink(missing_ok=True)

    def _create(self, path: Path, text: str, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        self._made.append(path)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


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
