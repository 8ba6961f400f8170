"""Names of keys: `https://VAULT/keys/NAME/VERSION`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

VERSION_BYTES: Final = 16

_NAME: Final = re.compile(r"[0-9a-zA-Z-]{1,127}")
_VERSION: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key, or one version of it, in one vault. The version is 16 bytes in lower-case hexadecimal."""

    vault: str  # `https://acme.vault.azure.net`, without a slash at the end
    name: str
    version: str | None = None

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str, vault: str) -> KeyName:
        """Read a URL, `name` or `name/version`; `vault` is where the latter two are. Raises ValueError."""
        if "://" in text:
            vault, _, text = text.partition("/keys/")
        name, slash, version = text.partition("/")
        if not _NAME.fullmatch(name) or (slash and not _VERSION.fullmatch(version)):
            raise ValueError("a key's name has 1 to 127 letters, digits and dashes, its version 32 hexadecimal digits")
        return cls(vault_url(vault), name, version or None)

    def at(self, version: str | None) -> KeyName:
        """Another version of the same key."""
        return replace(self, version=version)

    @property
    def path(self) -> str:
        """Of its URL."""
        return f"/keys/{self.name}" + (f"/{self.version}" if self.version else "")

    def __str__(self) -> str:
        return self.vault + self.path


def vault_url(text: str) -> str:
    """The canonical URL of a vault. Raises ValueError for what is no `https://HOST` or `https://HOST:PORT`."""
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("is a URL like https://NAME.vault.azure.net or https://NAME.managedhsm.azure.net")
    if parts.username is not None or parts.password is not None:
        raise ValueError("is a URL without a user: credentials have a section of their own")
    port = f":{parts.port}" if parts.port not in (None, 443) else ""
    return f"https://{parts.hostname.lower()}{port}"


def is_managed_hsm(url: str) -> bool:
    """Whether a vault's URL, or a token's audience, is that of Managed HSM, in any of Azure's clouds."""
    return "managedhsm" in (urlsplit(url).hostname or "").split(".")
