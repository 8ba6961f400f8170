"""TLS to a real server: private authorities, client certificates, logging in with one, and files that change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from providers import CredentialsInvalid, Provider, Unavailable, create
from tests.fakes.gcp.certificates import Authority, write
from tests.providers.conformance import CONTEXT, new_key
from tests.servers.openbao import ServedBao


def provider_of(bao: ServedBao, folder: Path, tls: dict[str, Any], **settings: Any) -> Provider:
    hsm = copy.deepcopy(bao.hsm) | {"performance": {"retryPolicy": {"maxRetries": 0}}} | settings
    hsm["connection"]["tls"] = tls
    return create(hsm, folder)


async def test_a_private_authority(tls_bao: ServedBao, tmp_path: Path) -> None:
    for version in ("1.2", "1.3"):
        provider = provider_of(tls_bao, tmp_path, {"caFile": str(tls_bao.authority_file), "minimumVersion": version})
        key = new_key()
        assert await provider.unwrap_key(await provider.wrap_key(key, CONTEXT), CONTEXT) == key
        await provider.close()


async def test_another_authority_is_not_trusted_and_a_corrected_file_is_seen(
    tls_bao: ServedBao, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    file.write_bytes(Authority("another").certificate)
    provider = provider_of(tls_bao, tmp_path, {"caFile": "authority.pem"})
    with pytest.raises(Unavailable, match="caFile"):
        await provider.initialize()
    assert tls_bao.authority is not None
    file.write_bytes(tls_bao.authority.certificate)
    await provider.initialize()
    await provider.close()


async def test_the_systems_authorities_do_not_know_a_private_one(tls_bao: ServedBao, tmp_path: Path) -> None:
    provider = provider_of(tls_bao, tmp_path, {})
    with pytest.raises(Unavailable, match="not trusted"):
        await provider.initialize()
    await provider.close()


async def test_files_that_are_missing_or_broken(tls_bao: ServedBao, tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("no PEM")
    (tmp_path / "broken.pem").chmod(0o600)
    for tls in ({"caFile": "missing.pem"}, {"caFile": "broken.pem"}, {"certificateFile": "broken.pem"}):
        provider = provider_of(tls_bao, tmp_path, tls)
        with pytest.raises(CredentialsInvalid, match=r"hsm\.connection\.tls"):
            await provider.initialize()
        await provider.close()


@pytest.fixture(scope="module")
def certificates(tls_bao: ServedBao) -> str:
    """The auth method for certificates, with a role for those of the server's authority."""
    assert tls_bao.authority is not None
    tls_bao.operate("POST", "sys/auth/cert", {"type": "cert"})
    tls_bao.operate(
        "POST",
        "auth/cert/certs/keyside",
        {
            "certificate": tls_bao.authority.certificate.decode(),
            "allowed_common_names": ["sidecar"],
            "token_policies": ["keyside"],
        },
    )
    return "keyside"


@pytest.mark.parametrize("data", [{}, {"role": "keyside"}])
async def test_logging_in_with_a_certificate(
    tls_bao: ServedBao, certificates: str, tmp_path: Path, data: dict[str, str]
) -> None:
    assert tls_bao.authority is not None
    write(tmp_path, "client", tls_bao.authority.certify("sidecar"))
    tls = {"caFile": str(tls_bao.authority_file), "certificateFile": "client.pem", "keyFile": "client.key"}
    provider = provider_of(tls_bao, tmp_path, tls, credentials={"type": "CERTIFICATE", "data": data})
    key = new_key()
    assert await provider.unwrap_key(await provider.wrap_key(key, CONTEXT), CONTEXT) == key
    await provider.close()


async def test_a_certificate_that_fits_no_role_and_its_successor(
    tls_bao: ServedBao, certificates: str, tmp_path: Path
) -> None:
    assert tls_bao.authority is not None
    write(tmp_path, "client", tls_bao.authority.certify("somebody-else"))
    tls = {"caFile": str(tls_bao.authority_file), "certificateFile": "client.pem", "keyFile": "client.key"}
    provider = provider_of(tls_bao, tmp_path, tls, credentials={"type": "CERTIFICATE", "data": {"role": "keyside"}})
    with pytest.raises(CredentialsInvalid, match="certificateFile"):
        await provider.initialize()
    with pytest.raises(CredentialsInvalid, match="not sent again"):
        await provider.initialize()
    write(tmp_path, "client", tls_bao.authority.certify("sidecar"))
    await provider.initialize()
    await provider.close()
