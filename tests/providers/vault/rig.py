"""VAULT_TRANSIT under the suite: an OpenBao, reached through the proxy that misbehaves."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from providers import WrappedKey, create
from providers.vault.provider import VaultProvider
from tests.providers.rig import Rig
from tests.servers.mishap import Mishap
from tests.servers.openbao import ServedBao

NUMBERS = count(1)
POLICY = """
path "transit/keys/%(key)s" { capabilities = ["read"] }
path "transit/encrypt/%(key)s" { capabilities = ["update"] }
path "transit/decrypt/%(key)s" { capabilities = ["update"] }
path "transit/keys/%(key)s-*" { capabilities = ["create", "read", "update", "delete"] }
path "transit/encrypt/%(key)s-*" { capabilities = ["update"] }
path "transit/decrypt/%(key)s-*" { capabilities = ["update"] }
path "transit/sign/%(key)s-*" { capabilities = ["update"] }
path "transit/verify/%(key)s-*" { capabilities = ["update"] }
path "transit/wrapping_key" { capabilities = ["read"] }
path "transit/keys/no such key" { capabilities = ["read"] }
"""


class VaultRig(Rig):
    """A key and a token of its own on a server that tests share."""

    def __init__(self, bao: ServedBao, proxy: Mishap, folder: Path) -> None:
        self.bao = bao
        self.proxy = proxy
        self.folder = folder
        self.key = f"test-{next(NUMBERS)}"
        bao.new_key(self.key)
        bao.allow(self.key, POLICY % {"key": self.key})
        self.token_file = folder / "token"
        self.token_file.touch(mode=0o600)
        self.token = self.new_token()
        self.hsm: dict[str, Any] = copy.deepcopy(bao.hsm) | {"kek": self.key}
        self.hsm["connection"]["endpoint"] = f"{bao.scheme}://127.0.0.1:{proxy.port}"
        self.hsm["credentials"]["data"] = {"tokenFile": str(self.token_file)}

    def new_token(self, **settings: Any) -> str:
        """Another token with the key's policy, put where the provider finds it."""
        self.token = self.bao.new_token(self.key, **settings)
        self.token_file.write_text(f"{self.token}\n")
        return self.token

    def make(self, **performance: object) -> VaultProvider:
        return self.make_with({}, **performance)

    def make_with(self, settings: dict[str, Any], **performance: object) -> VaultProvider:
        """The same with other settings of the `hsm` section."""
        provider = create(self.hsm | settings | {"performance": performance}, self.folder)
        assert isinstance(provider, VaultProvider)
        return provider

    def secrets(self) -> list[bytes]:
        return [self.token.encode()]

    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        return dataclasses.replace(wrapped, kek=f"transit/{self.key}:v99")

    def rotate(self) -> None:
        self.bao.operate("POST", f"transit/keys/{self.key}/rotate")

    def disable(self) -> None:
        self.bao.operate("DELETE", f"transit/keys/{self.key}/soft-delete")

    def configure(self, **settings: Any) -> None:
        """Change the key's own settings: min_decryption_version, deletion_allowed ..."""
        self.bao.operate("POST", f"transit/keys/{self.key}/config", settings)

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        self.proxy.unplug()
        try:
            yield
        finally:
            self.proxy.normal()

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        away = self.token_file.rename(self.folder / "away")
        try:
            yield
        finally:
            away.rename(self.token_file)
