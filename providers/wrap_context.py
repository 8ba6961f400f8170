"""What a wrapped data key is bound to: docs/spec/wrap.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from providers.errors import InputRefused

Purpose = Literal["field", "index"]

_MAGIC: Final = b"KSW\x01"
_PURPOSES: Final[dict[str, int]] = {"field": 0, "index": 1}
_MAX_KEYRING_BYTES: Final = 64
_MAX_PARTITION_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class WrapContext:
    """The data key's identity and scope, authenticated by every wrap of it.

    A wrap presented with any other context does not unwrap, so a keystore row moved to another keyring, partition,
    purpose or key id is refused. Raises InputRefused when a field is outside the sizes of docs/spec/wrap.md.
    """

    data_key_id: int  # 64 bits, unsigned
    keyring: str  # 1 to 64 bytes of UTF-8
    partition: str | None  # 1 to 128 bytes of UTF-8
    purpose: Purpose

    def __post_init__(self) -> None:
        if not 0 <= self.data_key_id < 1 << 64:
            raise InputRefused("a data key id is an unsigned integer of 64 bits")
        if not 1 <= len(_utf8(self.keyring)) <= _MAX_KEYRING_BYTES:
            raise InputRefused(f"a keyring name has 1 to {_MAX_KEYRING_BYTES} bytes")
        if self.partition is not None and not 1 <= len(_utf8(self.partition)) <= _MAX_PARTITION_BYTES:
            raise InputRefused(f"a partition has 1 to {_MAX_PARTITION_BYTES} bytes")
        if self.purpose not in _PURPOSES:
            raise InputRefused("the purpose of a data key is `field` or `index`")

    def authenticated(self) -> bytes:
        """The canonical encoding, version 1: 15 to 207 bytes, equal for equal contexts alone."""
        keyring = self.keyring.encode()
        encoded = (
            _MAGIC
            + bytes([_PURPOSES[self.purpose]])
            + self.data_key_id.to_bytes(8, "big")
            + bytes([len(keyring)])
            + keyring
        )
        if self.partition is None:
            return encoded + b"\x00"
        partition = self.partition.encode()
        return encoded + b"\x01" + bytes([len(partition)]) + partition

    def as_strings(self) -> dict[str, str]:
        """The same, for services that authenticate a map of strings. Without a partition its entry is absent."""
        strings = {
            "keyside:version": "1",
            "keyside:purpose": self.purpose,
            "keyside:data-key": f"{self.data_key_id:016x}",
            "keyside:keyring": self.keyring,
        }
        if self.partition is not None:
            strings["keyside:partition"] = self.partition
        return strings


def _utf8(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise InputRefused("a keyring or partition must be encodable as UTF-8 (it holds a lone surrogate)") from error
