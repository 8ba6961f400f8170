"""SoftHSM 2: a token in files, made for whoever asks and gone with the folder. Needs no privileges and no daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.servers import Served

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib/libsofthsm2.so")
TOKEN: Final = "keyside-test"
PIN: Final = "correct horse 4711"
FIRST_KEY: Final = "00000001"
"""CKA_ID of the key-encryption key that is there from the start."""


@dataclass(frozen=True)
class ServedSoftHsm(Served):
    """The token, and what its administrator can do to it."""

    library: str = ""
    tokens: Path = field(default_factory=Path)

    def order(self, order: str, label: str = "keyside", identity: str = FIRST_KEY, *flags: str, pin: str = PIN) -> str:
        """Have tests/servers/token_admin.py do something to the objects of that label and CKA_ID."""
        command = [sys.executable, "-m", "tests.servers.token_admin", self.library, TOKEN, pin, order, label, identity]
        done = subprocess.run(
            [*command, *flags], cwd=ROOT, env=os.environ | self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """While it lasts the token is not there."""
        away = self.tokens.with_name("tokens-pulled-out")
        self.tokens.rename(away)
        self.tokens.mkdir()
        try:
            yield
        finally:
            self.tokens.rmdir()
            away.rename(self.tokens)


def library() -> str:
    """Where the distribution puts it."""
    return next(place for place in PLACES if Path(place).exists())


@contextmanager
def serve(folder: Path, *, provider: str = "LUNA_HSM", **hsm: Any) -> Iterator[ServedSoftHsm]:
    """Make a token with the key `keyside`; `hsm` is added to its section."""
    tokens, configuration = folder / "tokens", folder / "softhsm2.conf"
    tokens.mkdir()
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(configuration)}
    pin_file = folder / "pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN + "\n")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--so-pin", "so " + PIN, "--pin", PIN],
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    section = {
        "provider": provider,
        "connection": {"libraryPath": library(), "partition": TOKEN},
        "credentials": {"type": "TOKEN", "data": {"pinFile": str(pin_file)}},
        **hsm,
    }
    served = ServedSoftHsm(section, environment, library(), tokens)
    served.order("generate")
    yield served
