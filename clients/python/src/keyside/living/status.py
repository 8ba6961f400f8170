"""What a column holds: plaintext, and ciphertext by data key. Nothing is decrypted, so no key is needed to count."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyside.fields.declaration import MAGIC
from keyside.text import PREFIX

HEAD_BYTES = 10
"""Magic, suite and data key id."""
HEAD_CHARACTERS = len(PREFIX) + 14
"""As many characters of the text form hold them, and half a byte of the nonce."""


@dataclass
class ColumnStatus:
    """Counts of a column's values."""

    table: str
    column: str
    nulls: int = 0
    plaintext: int = 0
    by_key: dict[str, int] = field(default_factory=dict)
    """Data key id, 16 hexadecimal digits, to the number of values under it."""
    unindexed: dict[str, int] = field(default_factory=dict)
    """Blind index, by its column, to the number of encrypted values that have none: they wait for a backfill, or their
    normalisation gives none."""

    @property
    def encrypted(self) -> int:
        return sum(self.by_key.values())


def status_of(table: str, column: str, heads: Iterable[tuple[Any, ...]], indexes: Sequence[str] = ()) -> ColumnStatus:
    """The status from the beginnings of values, how often each occurs, and how often without each of the `indexes`.

    A beginning is the first 10 bytes of a binary column, or the first 18 characters of a text column; None for NULL.
    """
    status = ColumnStatus(table, column, unindexed=dict.fromkeys(indexes, 0))
    for head, count, *without in heads:
        if head is None:
            status.nulls += count
            continue
        key = _key_id(head)
        if key is None:
            status.plaintext += count
        else:
            status.by_key[key] = status.by_key.get(key, 0) + count
            for index, lacking in zip(indexes, without, strict=True):
                status.unindexed[index] += lacking
    return status


def _key_id(head: Any) -> str | None:
    if isinstance(head, str):
        if len(head) < HEAD_CHARACTERS or not head.startswith(PREFIX):
            return None
        try:
            head = binascii.a2b_base64(head[len(PREFIX) :].replace("-", "+").replace("_", "/") + "==")
        except ValueError:
            return None
    head = bytes(head)
    return head[2:HEAD_BYTES].hex() if len(head) >= HEAD_BYTES and head[:2] == MAGIC else None
