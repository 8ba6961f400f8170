"""Settings of the LOCAL provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from providers.errors import Problem
from providers.options import SECTION, HsmOptions, Text
from providers.secrets import SecretSource

DEFAULT_KEY_FILE: Final = "data/root.key"

_PASSPHRASES: Final = ("passphraseFile", "passphraseEnv", "passphraseCredential")
_SOURCES: Final = ("keyFile", "systemdCredential", *_PASSPHRASES)


def _plain_name(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("is the name of a credential, as in LoadCredential=NAME:..., not a path")
    return name


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("is the name of an environment variable, not its value")
    return name


CredentialName = Annotated[Text, AfterValidator(_plain_name)]
VariableName = Annotated[Text, AfterValidator(_variable)]


class LocalOptions(HsmOptions):
    """Where the root key comes from, and how it wraps.

    One source: `keyFile` (the default, `data/root.key`), `systemdCredential`, or a passphrase from one of
    `passphraseFile`, `passphraseEnv`, `passphraseCredential` together with `passphraseKeyFile`, which holds its salt.
    """

    provider: Literal["LOCAL"]
    key_file: Text | None = None
    systemd_credential: CredentialName | None = None
    passphrase_file: Text | None = None
    passphrase_env: VariableName | None = None
    passphrase_credential: CredentialName | None = None
    passphrase_key_file: Text | None = None
    retired_key_files: tuple[Text, ...] = Field(default=(), strict=False)
    mechanism: Literal["AES-256-GCM", "AES-KWP"] = "AES-256-GCM"

    @property
    def passphrase_source(self) -> SecretSource | None:
        """Where the passphrase is; None when the root key is read rather than derived."""
        if self.passphrase_env is not None:
            return SecretSource("passphrase", "environment", self.passphrase_env)
        if self.passphrase_credential is not None:
            return SecretSource("passphrase", "credential", self.passphrase_credential)
        if self.passphrase_file is not None:
            return SecretSource("passphrase", "file", self.passphrase_file)
        return None

    def root_key_path(self, base: Path) -> Path:
        """The root key file, when it is neither a credential nor derived."""
        return base / (self.key_file or DEFAULT_KEY_FILE)


def source_problems(hsm: Mapping[str, object]) -> list[Problem]:
    """Say where the choice of a source contradicts itself."""
    given = [name for name in _SOURCES if name in hsm]
    passphrase = next((name for name in given if name in _PASSPHRASES), None)
    problems = []
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other: a root key has one source")
    if passphrase and "passphraseKeyFile" not in hsm:
        problems.append(f"{passphrase} needs passphraseKeyFile: the file with its salt and cost")
    if "passphraseKeyFile" in hsm and not passphrase:
        problems.append(f"passphraseKeyFile needs one of {', '.join(_PASSPHRASES)}")
    return [Problem(SECTION, message) for message in problems]


def root_key_file(hsm: Mapping[str, object], base: Path) -> Path | None:
    """The root key file that a valid `hsm` section names; None with another provider or another source of the key."""
    given = {name for name in _SOURCES if hsm.get(name) is not None}
    if hsm.get("provider") != "LOCAL" or given - {"keyFile"}:
        return None
    return base / str(hsm.get("keyFile") or DEFAULT_KEY_FILE)
