"""Secrets from four places: one place each, read anew, shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from providers.errors import CredentialsInvalid, NotFound, ProviderError
from providers.secrets import MAX_SECRET_BYTES, CredentialData, SecretSource

PIN = "hush-1234"


class TokenData(CredentialData):
    pin: SecretSource
    so_pin: SecretSource | None = None


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """The same secret in each of the four places."""
    private(folder / "pin", PIN.encode() + b"\n")
    monkeypatch.setenv("THE_PIN", PIN)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return {
        "value": {"pin": PIN},
        "file": {"pinFile": "pin"},
        "env": {"pinEnv": "THE_PIN"},
        "systemd": {"pinCredential": "pin"},
    }


@pytest.mark.parametrize("place", ["value", "file", "env", "systemd"])
def test_each_place_gives_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    data = TokenData.model_validate(given(tmp_path, monkeypatch)[place])
    secret = data.pin.read(tmp_path)
    assert isinstance(secret, bytearray), "so that the caller can wipe it"
    assert secret.decode() == data.pin.text(tmp_path) == PIN
    assert data.so_pin is None


@pytest.mark.parametrize("place", ["value", "file", "env", "systemd"])
def test_nothing_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    data = TokenData.model_validate(given(tmp_path, monkeypatch)[place])
    for said in (repr(data), str(data), repr(data.pin), f"{data.pin}"):
        assert PIN not in said


def test_two_places_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="pin and pinFile exclude each other") as refusal:
        TokenData.model_validate({"pin": PIN, "pinFile": "pin"})
    assert PIN not in str(refusal.value)


def test_none_is_a_problem_of_the_setting() -> None:
    with pytest.raises(ValidationError) as refusal:
        TokenData.model_validate({})
    assert [error["loc"] for error in refusal.value.errors()] == [("pin",)]


@pytest.mark.parametrize("value", [1234, True, "", ["x"], {"a": 1}, 1.5])
def test_digits_without_quotes_are_refused(value: Any) -> None:
    # YAML has already read 0123 as 83
    with pytest.raises(ValidationError, match="in quotes") as refusal:
        TokenData.model_validate({"pin": value})
    assert "1234" not in str(refusal.value)


def test_misspelt_and_unknown_settings_are_problems() -> None:
    with pytest.raises(ValidationError, match="Extra"):
        TokenData.model_validate({"pin": PIN, "soPinFiel": "x"})


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    source = SecretSource("pin", "file", str(private(tmp_path / "pin", b"old")))
    assert source.read(tmp_path) == b"old"
    private(tmp_path / "pin", b"new")
    assert source.read(tmp_path) == b"new"


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (SecretSource("pin", "file", "absent"), NotFound, "pin file .*absent is missing"),
        (SecretSource("pin", "environment", "KEYSIDE_NOT_SET"), NotFound, "KEYSIDE_NOT_SET is not set"),
        (SecretSource("pin", "credential", "pin"), CredentialsInvalid, "CREDENTIALS_DIRECTORY is not set"),
        (SecretSource("pin", "credential", "../pin"), CredentialsInvalid, "not a path"),
        (SecretSource("pin", "file", "empty"), CredentialsInvalid, "empty"),
        (SecretSource("pin", "file", "open"), CredentialsInvalid, "chmod 600"),
        (SecretSource("pin", "file", "long"), CredentialsInvalid, "longer than"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: SecretSource, error: type[ProviderError], says: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    private(tmp_path / "empty", b"\n\n")
    private(tmp_path / "open", b"x").chmod(0o644)
    private(tmp_path / "long", bytes(MAX_SECRET_BYTES + 1))
    with pytest.raises(error, match=says):
        source.read(tmp_path)


def test_bytes_that_are_no_text_are_refused_without_showing_them(tmp_path: Path) -> None:
    source = SecretSource("pin", "file", str(private(tmp_path / "pin", b"abc\xff\xfe")))
    with pytest.raises(CredentialsInvalid, match="not UTF-8") as refusal:
        source.text(tmp_path)
    assert "abc" not in str(refusal.value)
    assert refusal.value.__cause__ is None, "the cause holds the bytes"
