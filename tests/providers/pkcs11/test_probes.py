"""The steps of `keyside provider check`: the first that fails says what to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import ConfigurationInvalid, CredentialsInvalid, NotFound, Provider, ProviderError
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import ServedSoftHsm

STEPS = ["library", "credentials", "token, login and key", "permission to wrap and unwrap"]


def the_file(token: ServedSoftHsm) -> Path:
    return Path(token.library).resolve()


async def walked(token: ServedSoftHsm, **hsm: Any) -> dict[str, str | ProviderError]:
    """What each step said, up to the first that failed."""
    provider: Provider = TokenRig(token, **hsm).make()
    found: dict[str, str | ProviderError] = {}
    try:
        for probe in provider.probes():
            try:
                found[probe.title] = await probe.call()
            except ProviderError as error:
                found[probe.title] = error
                break
    finally:
        await provider.close()
    return found


async def test_each_step_says_what_it_found(token: ServedSoftHsm) -> None:
    found = await walked(token)
    assert list(found) == STEPS
    library, credentials, opened, permitted = map(str, found.values())
    assert library.startswith(f"{the_file(token)} (SoftHSM")
    assert credentials == "the PIN can be read"
    assert opened.startswith("key-encryption key keyside#")
    assert "AES-256-GCM" in permitted


async def test_a_library_that_is_none_is_the_first_problem(token: ServedSoftHsm, tmp_path: Path) -> None:
    text = tmp_path / "library.so"
    text.write_text("nothing that a processor runs")
    for path, message in ((tmp_path / "away.so", "there is no library at"), (text, "is no PKCS #11 library")):
        found = await walked(token, connection=token.hsm["connection"] | {"libraryPath": str(path)})
        assert list(found) == STEPS[:1]
        assert isinstance(found["library"], ConfigurationInvalid)
        assert message in str(found["library"])


@pytest.mark.parametrize(("mode", "kind"), [(None, NotFound), (0o644, CredentialsInvalid)])
async def test_a_pin_that_cannot_be_read_is_not_a_problem_of_the_token(
    token: ServedSoftHsm, tmp_path: Path, mode: int | None, kind: type[ProviderError]
) -> None:
    pin = tmp_path / "pin"
    if mode is not None:
        pin.write_text(token.pin)
        pin.chmod(mode)
    found = await walked(token, credentials={"type": "TOKEN", "data": {"pinFile": str(pin)}})
    assert list(found) == STEPS[:2]
    assert isinstance(found["credentials"], kind)
