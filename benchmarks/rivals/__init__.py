"""Libraries that encrypt fields from Python, one module each, all given the same values and the same associated data.

A rival is closed after use. Those that are not installed (`pip install --group bench`) are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

NAMES = ("asherah", "tink", "cryptography")


class Rival(Protocol):
    """One library under its own best settings. What a ciphertext is, only the rival knows."""

    name: str
    version: str

    def encrypt_many(self, values: Sequence[bytes], context: bytes) -> list[Any]: ...
    def decrypt_many(self, sealed: Sequence[Any], context: bytes) -> list[bytes]: ...
    def close(self) -> None: ...


def installed() -> list[str]:
    """Names of the rivals whose libraries are here. Looked up without importing any of them."""
    return [name for name in NAMES if find_spec(name) is not None]


def open_rival(name: str) -> Rival:
    """The rival, ready and warm. Raises ImportError when its library is not installed."""
    rival: Rival = importlib.import_module(f"benchmarks.rivals.{name}").open_rival()
    return rival
