"""A root key from a passphrase, by scrypt (RFC 7914), with the parameters in a file of their own.

    keyside-passphrase-key-v1
    scrypt n=65536 r=8 p=2
    <32 random bytes of salt in base64>
    local:<16 hexadecimal digits: the name derived from the key>

The last line tells a mistyped passphrase from a damaged data key at start-up. Losing this file is losing the key:
the salt cannot be guessed.
"""

from __future__ import annotations

import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from providers.errors import CredentialsInvalid, InputRefused
from providers.local.kek import ROOT_KEY_BYTES, kek_id
from providers.private_file import create_private
from providers.wiping import wipe

HEADER: Final = "keyside-passphrase-key-v1"
MIN_PASSPHRASE_BYTES: Final = 12
SALT_BYTES: Final = 32

_FORMAT: Final = re.compile(
    HEADER
    + r"\nscrypt n=(?P<n>\d{1,7}) r=(?P<r>\d{1,2}) p=(?P<p>\d{1,2})"
    + r"\n(?P<salt>[A-Za-z0-9+/]{43}=)\n(?P<kek>local:[0-9a-f]{16})\n"
)
_MIN_N, _MAX_N = 1 << 14, 1 << 20
_MIN_R, _MAX_R = 8, 16
_MAX_P = 16
_MAX_MEMORY_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Parameters:
    """Cost and salt. The default cost takes 64 MiB (128 x n x r bytes) while deriving."""

    salt: bytes
    n: int = 1 << 16
    r: int = 8
    p: int = 2

    def derive(self, passphrase: bytes | bytearray) -> bytearray:
        """Return the 32 bytes of the root key. Slow on purpose: about a second."""
        root = bytearray(ROOT_KEY_BYTES)
        Scrypt(salt=self.salt, length=ROOT_KEY_BYTES, n=self.n, r=self.r, p=self.p).derive_into(passphrase, root)
        return root


def create_passphrase_key(path: Path, passphrase: bytes | bytearray) -> str:
    """Make the parameters' file (0600) for a passphrase of at least 12 bytes and return the key's name.

    Raises InputRefused, FileExistsError, OSError.
    """
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise InputRefused(f"a passphrase has at least {MIN_PASSPHRASE_BYTES} bytes: use several random words")
    parameters = Parameters(os.urandom(SALT_BYTES))
    root = parameters.derive(passphrase)
    name = kek_id(root)
    wipe(root)
    salt = binascii.b2a_base64(parameters.salt, newline=False).decode()
    cost = f"scrypt n={parameters.n} r={parameters.r} p={parameters.p}"
    create_private(path, f"{HEADER}\n{cost}\n{salt}\n{name}\n".encode())
    return name


def parse_parameters(content: bytearray, path: Path) -> tuple[Parameters, str]:
    """Return the parameters and the name of the key they lead to. Raises CredentialsInvalid."""
    match = _FORMAT.fullmatch(content.decode("ascii", errors="replace"))
    if match is None:
        raise CredentialsInvalid(f"{path} is not a {HEADER} file, or it is damaged: restore it from your backup")
    n, r, p = (int(match[name]) for name in ("n", "r", "p"))
    in_bounds = _MIN_N <= n <= _MAX_N and n & (n - 1) == 0 and _MIN_R <= r <= _MAX_R and 1 <= p <= _MAX_P
    if not in_bounds or 128 * n * r > _MAX_MEMORY_BYTES:
        raise CredentialsInvalid(f"the scrypt cost in {path} is outside what Keyside uses: restore it from your backup")
    return Parameters(binascii.a2b_base64(match["salt"]), n, r, p), match["kek"]


def derive_root_key(content: bytearray, passphrase: bytearray, path: Path) -> bytearray:
    """Return the root key, which the caller wipes. Raises CredentialsInvalid for a wrong passphrase."""
    parameters, name = parse_parameters(content, path)
    root = parameters.derive(passphrase)
    if kek_id(root) != name:
        wipe(root)
        raise CredentialsInvalid(f"the passphrase is not the one that {path} was made with ({name}): correct it")
    return root
