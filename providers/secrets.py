"""Secrets that a back end is given: in the file of the configuration, or better in a place of their own.

A setting `pin` may be given in one of four ways, `pin`, `pinFile`, `pinEnv` or `pinCredential` (the name of a systemd
credential). What is read is read anew each time a back end opens, so that a changed file needs no new configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, Secret, model_validator
from pydantic.alias_generators import to_camel

from providers.errors import CredentialsInvalid, NotFound
from providers.options import Section
from providers.private_file import read_private
from providers.wiping import wipe

MAX_SECRET_BYTES: Final = 65_536  # a certificate chain with its private key is the longest

Place = Literal["value", "file", "environment", "credential"]
PLACES: Final[Mapping[str, Place]] = {"": "value", "File": "file", "Env": "environment", "Credential": "credential"}

_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is. Shows nothing of it: not even a file's name, which a text given by mistake would be."""

    setting: str  # as in the configuration, its suffix left out: `pin`
    place: Place
    name: str = field(repr=False)  # of the file, variable or credential; the secret itself for `value`

    def read(self, base: Path) -> bytearray:
        """The secret without the line end that editors add; the caller wipes it. Relative files are relative to `base`.

        Raises NotFound, Denied, CredentialsInvalid, Unavailable.
        """
        match self.place:
            case "value":
                content, source = bytearray(self.name.encode()), f"the setting {self.setting}"
            case "environment":
                content, source = self._variable(), f"the environment variable {self.name}"
            case _:
                path = credential(self.name) if self.place == "credential" else base / self.name
                content, source = self._file(path), str(path)
        return without_line_end(content, source, self.setting)

    def text(self, base: Path) -> str:
        """The same for SDKs that take nothing but `str`, which cannot be wiped. Raises CredentialsInvalid too."""
        content = self.read(base)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise CredentialsInvalid(f"the {self.setting} is not UTF-8: it is some other file or value") from None
        finally:
            wipe(content)

    def trace(self, base: Path) -> object:
        """What changes when the secret does, but for one in the configuration itself."""
        match self.place:
            case "value":
                return None
            case "environment":
                return sha256(os.environb.get(self.name.encode(), b"")).digest()
            case "file":
                return _trace_of_file(base / self.name)
            case "credential":
                folder = os.environ.get(_CREDENTIALS)
                return _trace_of_file(Path(folder) / self.name) if folder else None

    def _variable(self) -> bytearray:
        if (value := os.environb.get(self.name.encode())) is None:
            raise NotFound(f"the environment variable {self.name} is not set: set it to the {self.setting}")
        return bytearray(value)

    def _file(self, path: Path) -> bytearray:
        return read_private(
            path,
            f"{self.setting} file",
            "restore it, or write it anew",
            handed_over=self.place == "credential",
            limit=MAX_SECRET_BYTES,
        )


class CredentialData(Section):
    """Base of a back end's `credentials.data`: fields of type SecretSource may be given in four ways."""

    @model_validator(mode="before")
    @classmethod
    def _fold(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        folded = dict(data)
        for setting in (to_camel(name) for name, info in cls.model_fields.items() if _is_secret(info.annotation)):
            given = [suffix for suffix in PLACES if setting + suffix in folded]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(setting + suffix for suffix in given)} exclude each other")
            for suffix in given:
                name = folded.pop(setting + suffix)
                if not isinstance(name, str) or not name:
                    raise ValueError(f"{setting + suffix} is a text: put it in quotes")
                folded[setting] = SecretSource(setting, PLACES[suffix], name)
        return folded


def fingerprint(options: Section, base: Path) -> str:
    """Tells whether a secret, certificate or key that the settings name has changed, keeping none of it.

    Of files their place and time, of variables a digest; what the SDKs find by themselves is not seen.
    """
    return sha256(repr(list(_traces(options, base))).encode()).hexdigest()


def _traces(section: object, base: Path) -> Iterator[object]:
    if isinstance(section, Secret):
        section = section.get_secret_value()
    if isinstance(section, BaseModel):
        for name, value in section:
            if isinstance(value, str) and name.endswith("_file"):
                yield _trace_of_file(base / value)
            else:
                yield from _traces(value, base)
    elif isinstance(section, SecretSource):
        yield section.trace(base)


def _trace_of_file(path: Path) -> tuple[int, int, int] | None:
    """Its change time is that of its mode and owner as well, which may be what was wrong."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns


def without_line_end(content: bytearray, source: str, setting: str) -> bytearray:
    """Cut the line end that editors and `echo` add, in place. Raises CredentialsInvalid when nothing is left."""
    while content.endswith((b"\n", b"\r")):
        del content[-1]
    if not content:
        raise CredentialsInvalid(f"{source} is empty: put the {setting} in it")
    return content


def credential(name: str) -> Path:
    """The file of a systemd credential. Raises CredentialsInvalid when systemd passed none."""
    folder = os.environ.get(_CREDENTIALS)
    if "/" in name or name in ("", ".", ".."):
        raise CredentialsInvalid("a systemd credential is a name, as in LoadCredential=NAME:..., not a path")
    if not folder:
        raise CredentialsInvalid(
            f"no systemd credential {name}: ${_CREDENTIALS} is not set; start the service by systemd with "
            f"LoadCredential={name}:/path/to/file"
        )
    return Path(folder) / name


def _is_secret(annotation: object) -> bool:
    return annotation is SecretSource or SecretSource in get_args(annotation)
