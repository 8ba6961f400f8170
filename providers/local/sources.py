"""Reading the root key from wherever the options say it is."""

from __future__ import annotations

from pathlib import Path

from providers.local.kek import Kek, kek_id
from providers.local.options import LocalOptions
from providers.local.passphrase import derive_root_key, parse_parameters
from providers.local.root_key import parse_root_key
from providers.private_file import read_private
from providers.secrets import credential
from providers.wiping import wipe

_RESTORE = (
    "restore it from your backup; only for a new installation, make one with `python -m providers.local root-key FILE`"
)


def load_kek(options: LocalOptions, base: Path) -> Kek:
    """Read or derive the configured root key. Blocks: disk, and about a second of scrypt for a passphrase."""
    root = _derived(options, base) if options.passphrase_source else _stored(options, base)
    return _kek(root)


def load_retired(options: LocalOptions, base: Path) -> list[Kek]:
    """Read the root keys that still unwrap what they wrapped."""
    return [_kek(_root_key(base / name)) for name in options.retired_key_files]


def current_id(options: LocalOptions, base: Path) -> str:
    """Name the key that the source holds now, without scrypt: what a restart would find."""
    if options.passphrase_source is None:
        root = _stored(options, base)
        try:
            return kek_id(root)
        finally:
            wipe(root)
    wipe(_passphrase(options, base))
    path = _parameters_path(options, base)
    return parse_parameters(_parameters(path), path)[1]


def _kek(root: bytearray) -> Kek:
    try:
        return Kek(root)
    finally:
        wipe(root)


def _stored(options: LocalOptions, base: Path) -> bytearray:
    if options.systemd_credential is not None:
        return _root_key(credential(options.systemd_credential), handed_over=True)
    return _root_key(options.root_key_path(base))


def _root_key(path: Path, *, handed_over: bool = False) -> bytearray:
    content = read_private(path, "root key file", _RESTORE, handed_over=handed_over)
    try:
        return parse_root_key(content, path)
    finally:
        wipe(content)


def _derived(options: LocalOptions, base: Path) -> bytearray:
    path = _parameters_path(options, base)
    content = _parameters(path)
    passphrase = _passphrase(options, base)
    try:
        return derive_root_key(content, passphrase, path)
    finally:
        wipe(passphrase)


def _parameters_path(options: LocalOptions, base: Path) -> Path:
    assert options.passphrase_key_file is not None
    return base / options.passphrase_key_file


def _parameters(path: Path) -> bytearray:
    return read_private(path, "passphrase key file", "restore it from your backup: the passphrase alone is not enough")


def _passphrase(options: LocalOptions, base: Path) -> bytearray:
    source = options.passphrase_source
    assert source is not None
    return source.read(base)
