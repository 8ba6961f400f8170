"""The transit engine's names and formats.

A key-encryption key is named `MOUNT/KEY:vN`: the version N is part of the name, as it is of the ciphertext's prefix
`vault:vN:`. What is stored as a wrap is the base64-decoded rest: nonce (12 bytes), ciphertext, tag (16 bytes).
https://openbao.org/api-docs/secret/transit/ and https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from providers.errors import ForeignWrap
from providers.vault.answers import not_vault
from providers.vault.options import is_key_name
from providers.vault.server import Answer
from providers.wiping import wipe

AES_256_GCM: Final = "AES-256-GCM"
KEY_TYPE: Final = "aes256-gcm96"
OVERHEAD_BYTES: Final = 28  # nonce and tag

_PREFIXED: Final = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})")
_VERSIONED: Final = re.compile(r"(.+):v([1-9][0-9]{0,9})")
_PLAINTEXT: Final = re.compile(rb'"plaintext": ?"([A-Za-z0-9+/]*={0,2})"')


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of one key of a transit mount."""

    mount: str
    key: str
    version: int

    def __str__(self) -> str:
        return f"{self.mount}/{self.key}:v{self.version}"

    @classmethod
    def parse(cls, name: str, mount: str) -> KeyVersion | None:
        """The version that a stored name means; None for one of another mount, or that is no such name at all."""
        versioned = _VERSIONED.fullmatch(name)
        if versioned is None:
            return None
        path, _, key = versioned[1].rpartition("/")
        return cls(mount, key, int(versioned[2])) if path == mount and is_key_name(key) else None


@dataclass(frozen=True, slots=True)
class TransitKey:
    """What the server says of a key (GET transit/keys/NAME)."""

    name: str
    type: str
    latest: int
    oldest_usable: int  # min_decryption_version
    created_at: datetime | None  # of the latest version
    exportable: bool
    plaintext_backup: bool
    derived: bool
    imported: bool
    deletable: bool
    soft_deleted: bool
    rotates_every: str  # empty: by hand

    @classmethod
    def parse(cls, name: str, found: Mapping[str, Any], about: str) -> TransitKey:
        """Read an answer. Raises Unavailable when it describes no key."""
        latest, versions = found.get("latest_version"), found.get("keys")
        if not isinstance(latest, int) or latest < 1 or not isinstance(found.get("type"), str):
            raise not_vault(about)
        newest = versions.get(str(latest)) if isinstance(versions, dict) else None
        oldest = found.get("min_decryption_version")
        return cls(
            name=name,
            type=found["type"],
            latest=latest,
            oldest_usable=oldest if isinstance(oldest, int) else 1,
            created_at=_time(newest),
            exportable=found.get("exportable") is True,
            plaintext_backup=found.get("allow_plaintext_backup") is True,
            derived=found.get("derived") is True,
            imported=found.get("imported_key") is True,
            deletable=found.get("deletion_allowed") is True,
            soft_deleted=found.get("soft_deleted") is True,
            rotates_every=_period(found.get("auto_rotate_period")),
        )

    @property
    def warnings(self) -> list[str]:
        """What lets somebody with the right permission copy the key."""
        found = []
        if self.exportable:
            found.append(
                "the key is exportable: whoever may read transit/export can copy it, and this cannot be undone"
            )
        if self.plaintext_backup:
            found.append("the key allows plaintext backup: whoever may read transit/backup can copy it")
        return found


def encrypt_body(plaintext: bytes | bytearray, associated_data: bytes) -> bytearray:
    """The request, in a buffer that the caller wipes."""
    body = bytearray(b'{"plaintext":"')
    coded = b2a_base64(plaintext, newline=False)
    body += coded
    wipe(coded)
    body += _associated(associated_data)
    return body


def decrypt_body(version: int, blob: bytes, associated_data: bytes) -> bytes:
    """The request to decrypt what one version of the key made."""
    return b'{"ciphertext":"vault:v%d:%s%s' % (version, b64encode(blob), _associated(associated_data))


def _associated(data: bytes) -> bytes:
    return b'","associated_data":"%s"}' % b64encode(data)


def versioned(found: Mapping[str, Any], member: str, about: str) -> tuple[int, bytes]:
    """Version and bytes of a `vault:vN:` value in an answer. Raises Unavailable when there is none."""
    value = found.get(member)
    match = _PREFIXED.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise not_vault(about)
    try:
        return int(match[1]), b64decode(match[2], validate=True)
    except NotBase64:
        raise not_vault(about) from None


def plaintext_of(answer: Answer, about: str) -> bytearray:
    """The plaintext in a good answer, which is wiped: taken from the bytes, so that no `str` of it is ever made."""
    try:
        match = _PLAINTEXT.search(answer.body)
        if match is None:
            raise not_vault(about)
        with memoryview(answer.body) as body:
            return _decoded(body[match.start(1) : match.end(1)], about)
    finally:
        wipe(answer.body)


def _decoded(coded: memoryview, about: str) -> bytearray:
    try:
        decoded = a2b_base64(coded, strict_mode=True)
    except NotBase64:
        raise not_vault(about) from None
    plaintext = bytearray(decoded)
    wipe(decoded)
    return plaintext


def require_mechanism(mechanism: str) -> None:
    """Raise ForeignWrap for what the transit engine's AES keys cannot have made."""
    if mechanism != AES_256_GCM:
        raise ForeignWrap(f"VAULT_TRANSIT knows no mechanism {mechanism!r}: was this made by a later release?")


def _period(value: object) -> str:
    """The time between rotations, as people read it: seconds (OpenBao) or a text such as 720h (Vault)."""
    if value in (None, 0, "", "0", "0s"):
        return ""
    return f"{value} s" if isinstance(value, int) else str(value)


def _time(version: object) -> datetime | None:
    """When a key version was made: seconds for symmetric keys, an object with a text for the others."""
    if isinstance(version, int):
        return datetime.fromtimestamp(version, UTC)
    if isinstance(version, dict) and isinstance(text := version.get("creation_time"), str):
        try:
            return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))
        except ValueError:
            return None
    return None
