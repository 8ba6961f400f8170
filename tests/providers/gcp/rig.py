"""What tests do to the Google Cloud KMS that they started."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from providers import WrappedKey
from providers.gcp import GcpProvider
from providers.registry import create
from tests.providers.rig import Rig
from tests.servers.gcp import RING, ServedGoogle


class GcpRig(Rig):
    """One key of the server."""

    def __init__(self, google: ServedGoogle, folder: Path, key: str) -> None:
        self.google = google
        self.folder = folder
        self.key = google.order("new_key", name=key)["name"]
        self._account = folder / "account.json"
        self._account.touch(mode=0o600)
        self._account.write_bytes(Path(google.ready["account"]).read_bytes())

    def hsm(self, **performance: object) -> dict[str, Any]:
        """The section, with this rig's key and copy of the account's key file."""
        hsm = copy.deepcopy(self.google.hsm)
        hsm["kek"] = self.key.rpartition("/")[2]
        hsm["credentials"]["data"]["serviceAccountKeyFile"] = str(self._account)
        hsm["performance"] = {"requestTimeout": 5000, **performance}
        return hsm

    def make(self, **performance: object) -> GcpProvider:
        return self.made_of(self.hsm(**performance))

    def made_of(self, hsm: dict[str, Any]) -> GcpProvider:
        provider = create(hsm, self.folder)
        assert isinstance(provider, GcpProvider)
        return provider

    def workload(self) -> dict[str, Any]:
        """The credential file of workload identity federation."""
        return dict(json.loads(Path(self.google.ready["workload"]).read_text()))

    def secrets(self) -> list[bytes]:
        return [secret.encode() for secret in self.google.ready["secrets"]]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek=f"{RING}/cryptoKeys/nobody/cryptoKeyVersions/1")

    def rotate(self) -> None:
        self.google.order("rotate", key=self.key)

    def disable(self) -> None:
        self.google.order("state", key=self.key, state="DISABLED")

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        self.google.order("unplug")
        try:
            yield
        finally:
            self.google.order("plug")

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        away = self._account.with_suffix(".away")
        self._account.rename(away)
        try:
            yield
        finally:
            away.rename(self._account)
