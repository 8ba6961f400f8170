"""What tests do to the vault or Managed HSM that they started."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from providers import WrappedKey
from providers.azure import AzureKeyVaultProvider
from providers.registry import create
from tests.providers.rig import Rig
from tests.servers.azure import CLIENT_SECRET, KEYS, AzureServed


class AzureRig(Rig):
    """The keys `keyside` and, on a vault, `keyside-signing`. The client secret is in a file of this test."""

    def __init__(self, served: AzureServed, folder: Path, **settings: object) -> None:
        self.served = served
        self.folder = folder
        self.settings = settings
        self.secret_file = folder / "client-secret"
        self.secret_file.touch(mode=0o600)
        self.secret_file.write_text(CLIENT_SECRET + "\n")
        served.reset()

    def hsm(self, **performance: object) -> dict[str, Any]:
        """The section."""
        hsm = copy.deepcopy(self.served.hsm) | self.settings
        del hsm["credentials"]["data"]["clientSecret"]
        hsm["credentials"]["data"]["clientSecretFile"] = str(self.secret_file)
        hsm["performance"] = {"requestTimeout": 5000, **performance}
        return hsm

    def make(self, **performance: object) -> AzureKeyVaultProvider:
        return self.made_of(self.hsm(**performance))

    def made_of(self, hsm: dict[str, Any]) -> AzureKeyVaultProvider:
        provider = create(hsm, self.folder)
        assert isinstance(provider, AzureKeyVaultProvider)
        return provider

    def secrets(self) -> list[bytes]:
        return [CLIENT_SECRET.encode()]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek=wrapped.kek.replace("/keyside/", "/nobody/"))

    def rotate(self) -> None:
        self.served.do("rotate", name="keyside")

    def disable(self) -> None:
        for name in KEYS[self.served.kind]:
            self.served.do("update", name=name, body={"attributes": {"enabled": False}})

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        self.served.do("unplug")
        try:
            yield
        finally:
            self.served.do("plug")

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        away = self.secret_file.with_suffix(".away")
        self.secret_file.rename(away)
        try:
            yield
        finally:
            away.rename(self.secret_file)
