"""A token under test, through the provider and by its administrator's hands."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from providers import Provider, WrappedKey, create
from tests.providers.rig import Rig
from tests.servers.softhsm import ServedSoftHsm
from tests.servers.token_administrator import FIRST_KEY, ServedToken

BASE = Path("/")
CHANGING = frozenset({"test_a_disabled_kek_is_refused", "test_a_rotated_kek_still_unwraps"})
"""The rows that change the key: they get one of their own."""


class TokenRig(Rig):
    """One label of a token that other tests use too; `hsm` is added to the section."""

    def __init__(self, served: ServedToken, **hsm: Any) -> None:
        self.served = served
        self.hsm = hsm
        self._newest = int(FIRST_KEY, 16)

    def make(self, **performance: object) -> Provider:
        section = copy.deepcopy(self.served.hsm) | self.hsm
        section["performance"] = section.get("performance", {}) | performance
        return create(section, BASE)

    def secrets(self) -> list[bytes]:
        return [self.served.pin.encode()]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek="keyside#ffff")

    @property
    def label(self) -> str:
        """The key-encryption key's CKA_LABEL."""
        return str(self.hsm.get("kek", "keyside"))

    def rotate(self) -> None:
        self._newest += 1
        self.served.order("generate", self.label, f"{self._newest:08x}")

    def disable(self) -> None:
        self.served.order("forbid", self.label, f"{self._newest:08x}")

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        assert isinstance(self.served, ServedSoftHsm)
        with self.served.unplugged():
            yield

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        pin = Path(self.served.hsm["credentials"]["data"]["pinFile"])
        right = pin.read_text()
        pin.write_text("wrong\n")
        try:
            yield
        finally:
            pin.write_text(right)
