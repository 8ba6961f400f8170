"""The root key file: three lines of text, so that a wrong or damaged file is named as such.

keyside-root-key-v1
<32 random bytes in base64, 44 characters>
local:<16 hexadecimal digits: the name derived from the key>
"""

from __future__ import annotations

import binascii
import hmac
import os
from pathlib import Path
from typing import Final

from providers.errors import CredentialsInvalid
from providers.local.kek import ROOT_KEY_BYTES, kek_id
from providers.private_file import create_private
from providers.wiping import wipe

HEADER: Final = b"keyside-root-key-v1"
_KEY_CHARACTERS: Final = 44
_LINES: Final = 4  # what follows the last line end counts, and is empty


def create_root_key(path: Path) -> str:
    """Make a root key file of mode 0600 and return the new key's name. Raises FileExistsError, OSError."""
    root = bytearray(os.urandom(ROOT_KEY_BYTES))
    encoded = bytearray(binascii.b2a_base64(root, newline=False))
    content = HEADER + b"\n" + encoded + b"\n" + kek_id(root).encode() + b"\n"
    try:
        create_private(path, content)
        return kek_id(root)
    finally:
        for secret in (root, encoded, content):
            wipe(secret)


def parse_root_key(content: bytearray, path: Path) -> bytearray:
    """Return the 32 bytes of a root key file, which the caller wipes. Raises CredentialsInvalid naming the damage."""
    lines = content.split(b"\n")
    try:
        if lines[0] != HEADER:
            raise CredentialsInvalid(f"{path} is not a root key file: its first line is not {HEADER.decode()}")
        if len(lines) != _LINES or lines[-1] or len(lines[1]) != _KEY_CHARACTERS:
            raise CredentialsInvalid(f"the root key file {path} is cut short or damaged: restore it from your backup")
        root = _decode(lines[1], path)
        if kek_id(root).encode() != lines[2]:
            wipe(root)
            raise CredentialsInvalid(
                f"the root key file {path} is damaged: the key in it is not the one it names; restore it from a backup"
            )
        return root
    finally:
        for line in lines:
            wipe(line)


def _decode(line: bytearray, path: Path) -> bytearray:
    try:
        decoded = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise CredentialsInvalid(f"the root key file {path} is damaged (base64): restore it from a backup") from error
    root = bytearray(decoded)
    again = binascii.b2a_base64(decoded, newline=False)
    one_spelling = hmac.compare_digest(again, line)  # non-zero trailing bits decode too
    wipe(decoded)
    wipe(again)
    if len(root) != ROOT_KEY_BYTES or not one_spelling:
        wipe(root)
        raise CredentialsInvalid(f"the root key file {path} is damaged (base64): restore it from a backup")
    return root
