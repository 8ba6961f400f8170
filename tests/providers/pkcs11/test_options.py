"""Settings, their contradictions, credentials of every kind, and what choosing this back end imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers import (
    ConfigurationInvalid,
    CredentialsInvalid,
    NotFound,
    ProviderError,
    create,
    options_problems,
    unbuilt,
)
from providers.pkcs11.certificates import check_files
from providers.pkcs11.options import CertificateData
from providers.pkcs11.provider import Pkcs11Provider
from tests.providers.pkcs11.rig import TokenRig
from tests.servers.softhsm import ServedSoftHsm

ROOT = Path(__file__).parents[3]
BASE = Path("/etc/keyside")
PIN = {"type": "TOKEN", "data": {"pinFile": "pin"}}


def problems(**hsm: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in options_problems({"provider": "LUNA_HSM", **hsm}, BASE)]


@pytest.mark.parametrize("place", ["pin", "pinFile", "pinEnv", "pinCredential"])
def test_a_pin_may_come_from_four_places(place: str) -> None:
    assert not problems(credentials={"type": "TOKEN", "data": {place: "x"}})


@pytest.mark.parametrize("kek", ["keyside#0 1", "keyside#1", "keyside#prod", "#01"])
def test_a_whole_name_is_a_label_and_hexadecimal(kek: str) -> None:
    ((path, message),) = problems(credentials=PIN, kek=kek)
    assert path == "hsm.kek"
    assert "LABEL#ID" in message


def test_what_cannot_work_is_said_with_its_path() -> None:
    assert problems() == [("hsm.credentials", "is required")]
    assert [path for path, _ in problems(credentials={"type": "TOKEN", "data": {}})] == ["hsm.credentials.data.pin"]
    assert [path for path, _ in problems(credentials={"type": "CERTIFICATE", "data": {"pin": "x"}})] == [
        "hsm.credentials.data.certificateFile"
    ]
    for elsewhere in ("IAM_ROLE", "SERVICE_PRINCIPAL"):
        ((path, message),) = problems(credentials={"type": elsewhere, "data": {}})
        assert path == "hsm.credentials"
        assert "'TOKEN', 'CERTIFICATE'" in message
    ((path, message),) = problems(credentials=PIN, connection={"slot": 1}, highAvailability={"haGroupName": "g"})
    assert path == "hsm.connection.slot"
    assert "haGroupName" in message
    assert [path for path, _ in problems(credentials=PIN, mechanism="AES-CBC")] == ["hsm.mechanism"]


def test_a_file_of_the_operators_loads_and_what_is_not_built_is_named() -> None:
    hsm = {
        "provider": "LUNA_HSM",
        "connection": {"partition": 4711, "libraryPath": "/opt/luna/libCryptoki2_64.so"},
        "credentials": {
            "type": "CERTIFICATE",
            "data": {"certificateFile": "c.pem", "keyFile": "k.pem", "caFile": "s.pem", "pinEnv": "LUNA_PIN"},
        },
        "performance": {"connectionPoolSize": 20, "requestTimeout": 5000, "sessionCacheSize": 100},
        "highAvailability": {
            "haGroupName": "keyside-ha",
            "members": [{"serial": 123456, "hostname": "luna1"}, {"serial": 123457}],
            "synchronization": {"automatic": True, "interval": 60},
        },
    }
    assert not options_problems(hsm, BASE)
    named = [line.partition(":")[0] for line in unbuilt(hsm)]
    assert named == [
        "hsm.performance.sessionCacheSize",
        "hsm.highAvailability.members[0].serial",
        "hsm.highAvailability.members[0].hostname",
        "hsm.highAvailability.members[1].serial",
        "hsm.highAvailability.synchronization.automatic",
        "hsm.highAvailability.synchronization.interval",
    ]


def test_a_description_holds_no_credentials() -> None:
    hsm = {"provider": "THALES_HSM", "credentials": {"type": "TOKEN", "data": {"pin": "s3cret-pin"}}}
    provider = create(hsm, BASE)
    assert provider.describe().options["credentials"] == {"type": "TOKEN"}
    assert "s3cret-pin" not in repr(provider.describe()) + repr(vars(provider))


async def test_a_missing_client_is_named_with_every_place() -> None:
    provider = create({"provider": "LUNA_HSM", "credentials": PIN}, BASE)
    with pytest.raises(ConfigurationInvalid, match=r"libCryptoki2_64\.so or .*install the HSM's client"):
        await provider.initialize()
    await provider.close()


async def test_a_missing_sdk_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "pkcs11"]:
        monkeypatch.delitem(sys.modules, module)
    for module in [name for name in sys.modules if name.startswith("providers.pkcs11.")]:
        if module.rpartition(".")[2] in ("opening", "device", "library", "token", "keys", "failures", "mechanisms"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    provider = create({"provider": "LUNA_HSM", "credentials": PIN}, BASE)
    with pytest.raises(ConfigurationInvalid, match=r"keyside-proxy\[pkcs11\]"):
        await provider.initialize()
    await provider.close()


def imported_by(code: str, **environment: str) -> set[str]:
    listing = f"import asyncio, json, sys\nfrom pathlib import Path\n{code}\njson.dump(sorted(sys.modules), sys.stdout)"
    command = [sys.executable, "-c", listing]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=True, env=os.environ | environment)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_sdk_is_imported_by_opening_and_no_other_is(token: ServedSoftHsm) -> None:
    sdks = {"pkcs11", "boto3", "botocore", "aiobotocore", "azure", "google", "grpc", "hvac", "msal"}
    make = f"from providers import create\nprovider = create({token.hsm!r}, Path('/'))\n"
    assert not imported_by(make) & sdks
    used = "async def use():\n    await provider.initialize()\n    await provider.close()\nasyncio.run(use())\n"
    assert imported_by(make + used, **token.environment) & sdks == {"pkcs11"}


# the certificate of a network HSM's client


def issued(key: EllipticCurvePrivateKey, begins: datetime, ends: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keyside")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a good certificate and its key, and with others that do not do."""
    key, other = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    now, day = datetime.now(UTC), timedelta(days=1)
    (tmp_path / "client.pem").write_bytes(issued(key, now - day, now + day))
    (tmp_path / "server.pem").write_bytes(issued(other, now - day, now + day))
    (tmp_path / "expired.pem").write_bytes(issued(key, now - 2 * day, now - day))
    (tmp_path / "future.pem").write_bytes(issued(key, now + day, now + 2 * day))
    (tmp_path / "rubbish.pem").write_bytes(b"rubbish")
    for name, private in (("client.key", key), ("other.key", other)):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tmp_path


def data(**names: str) -> CertificateData:
    return CertificateData.model_validate({"pin": "x", "certificateFile": "client.pem", **names})


def test_good_files_pass(files: Path) -> None:
    check_files(data(), files)
    check_files(data(keyFile="client.key", caFile="server.pem"), files)


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        ({"certificateFile": "nowhere.pem"}, NotFound, "is missing"),
        ({"certificateFile": "expired.pem"}, CredentialsInvalid, "valid from"),
        ({"certificateFile": "future.pem"}, CredentialsInvalid, "valid from"),
        ({"certificateFile": "rubbish.pem"}, CredentialsInvalid, "no readable PEM"),
        ({"caFile": "expired.pem"}, CredentialsInvalid, "HSM's certificate"),
        ({"keyFile": "nowhere.key"}, NotFound, "client key"),
        ({"keyFile": "other.key"}, CredentialsInvalid, "does not belong"),
        ({"keyFile": "rubbish.key"}, CredentialsInvalid, "no PEM key"),
        ({"keyFile": "open.key"}, CredentialsInvalid, "0644"),
    ],
)
def test_bad_files_are_said(files: Path, names: dict[str, str], kind: type[ProviderError], message: str) -> None:
    (files / "rubbish.key").touch(0o600)
    (files / "rubbish.key").write_text("rubbish")
    (files / "open.key").write_bytes((files / "client.key").read_bytes())
    (files / "open.key").chmod(0o644)
    with pytest.raises(kind, match=message):
        check_files(data(**names), files)


async def test_a_certificate_is_checked_at_every_opening(token: ServedSoftHsm, files: Path) -> None:
    credentials = {
        "type": "CERTIFICATE",
        "data": {
            "certificateFile": str(files / "client.pem"),
            "keyFile": str(files / "client.key"),
            "pinFile": token.hsm["credentials"]["data"]["pinFile"],
        },
    }
    provider = TokenRig(token, credentials=credentials).make()
    assert isinstance(provider, Pkcs11Provider)
    (files / "client.pem").rename(files / "away.pem")
    with pytest.raises(NotFound, match="client certificate"):
        await provider.initialize()
    (files / "away.pem").rename(files / "client.pem")
    await provider.initialize()
    await provider.close()


async def test_a_certificate_is_a_step_of_trying_out(token: ServedSoftHsm, files: Path) -> None:
    async def said(certificate: str) -> str:
        named = {"certificateFile": str(files / certificate), "pinFile": token.hsm["credentials"]["data"]["pinFile"]}
        provider = TokenRig(token, credentials={"type": "CERTIFICATE", "data": named}).make()
        try:
            return await next(probe for probe in provider.probes() if probe.title == "credentials").call()
        finally:
            await provider.close()

    assert re.fullmatch(r"the client certificate is valid until 20\d\d-\d\d-\d\d; the PIN .*", await said("client.pem"))
    with pytest.raises(CredentialsInvalid, match="valid from"):
        await said("expired.pem")
