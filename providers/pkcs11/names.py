"""Names of keys in a token: CKA_LABEL, `#`, and CKA_ID in lower-case hexadecimal, `keyside#0192f3a4b5c6d7e8`.

A key has one name and no other spelling of it: names are compared, and what guards a key must not be got round by case.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from providers.errors import NotFound

_NAME: Final = re.compile(r"(?P<label>.+)#(?P<identity>([0-9a-fA-F]{2})*)", re.ASCII | re.DOTALL)


class KeyName(NamedTuple):
    """Label and CKA_ID of a key; `str` of it is what wraps carry."""

    label: str
    identity: bytes

    def __str__(self) -> str:
        return f"{self.label}#{self.identity.hex()}"

    @classmethod
    def parse(cls, name: str) -> KeyName:
        """Take a name from outside, in either case. Raises NotFound for what cannot be a name of a key here."""
        return _parsed(name)


@lru_cache(maxsize=256)
def _parsed(name: str) -> KeyName:
    """Names are few, and every unwrap brings one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise NotFound(f"{name!r} names no key of a token: names are LABEL#ID, the CKA_ID in hexadecimal")
    return KeyName(match["label"], bytes.fromhex(match["identity"]))


def canonical(name: str) -> str:
    """The one spelling of a name. Raises NotFound."""
    return str(KeyName.parse(name))


def label_of(kek: str) -> str:
    """The label of what a setting names: a label, or the whole name of a key."""
    return KeyName.parse(kek).label if "#" in kek else kek


def covers(kek: str, name: KeyName) -> bool:
    """Whether a setting names that key: by its label, or whole."""
    return kek in (name.label, str(name))
