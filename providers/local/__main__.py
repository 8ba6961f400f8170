"""Make key files by hand: `python -m providers.local root-key PATH`, or `passphrase-key PATH < passphrase`.

`keyside init` makes the root key of a new installation; this is for replacing one, and for passphrases. Exits with 1
when nothing was made, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from providers.errors import ProviderError
from providers.local.passphrase import create_passphrase_key
from providers.local.root_key import create_root_key
from providers.secrets import without_line_end
from providers.wiping import wipe


def main(arguments: list[str] | None = None) -> int:
    """Run one command; prints the name of the key that was made."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.local", description="Make key files of the LOCAL provider."
    )
    parser.add_argument(
        "kind", choices=("root-key", "passphrase-key"), help="the passphrase is read from standard input"
    )
    parser.add_argument("path", type=Path, help="file to make; never overwritten")
    chosen = parser.parse_args(arguments)
    try:
        name = create_root_key(chosen.path) if chosen.kind == "root-key" else _passphrase_key(chosen.path)
    except FileExistsError:
        return _failed(
            f"{chosen.path} exists and was left alone: choose another name, or move it to a safe place first"
        )
    except OSError as error:
        return _failed(f"{chosen.path} was not made: {error.strerror}")
    except ProviderError as error:
        return _failed(str(error))
    sys.stdout.write(f"{name}\nKeep a copy of {chosen.path} in a safe place: without it every data key is lost.\n")
    return 0


def _passphrase_key(path: Path) -> str:
    passphrase = without_line_end(bytearray(sys.stdin.buffer.read()), "standard input", "passphrase")
    try:
        return create_passphrase_key(path, passphrase)
    finally:
        wipe(passphrase)


def _failed(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
