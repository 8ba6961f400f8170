"""SoftHSM 2: a token in files, made for whoever asks and gone with the folder. Needs no privileges and no daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.servers.token_administrator import TOKEN, ServedToken

PLACES: Final = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib/libsofthsm2.so")
PIN: Final = "correct horse 4711"


@dataclass(frozen=True)
class ServedSoftHsm(ServedToken):
    """The token, which can be pulled out."""

    tokens: Path = field(default_factory=Path)

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
    served = ServedSoftHsm(section, environment, library(), PIN, tokens=tokens)
    served.order("generate")
    yield served
