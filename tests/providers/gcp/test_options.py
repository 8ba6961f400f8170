"""The `hsm` section of Google Cloud KMS: what loads, what is a problem, and that nothing is imported to tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from providers import ConfigurationInvalid, NotFound, options_problems, unbuilt
from providers.gcp import names
from providers.gcp.options import GcpOptions
from providers.options import read

ROOT = Path(__file__).parents[3]
FULL = "projects/example.com:prod-1/locations/europe-west1/keyRings/apps/cryptoKeys/fields"
OPERATORS: dict[str, Any] = {
    "provider": "GCP_KMS",
    "connection": {"endpoint": "https://cloudkms.googleapis.com", "region": "europe-west1", "partition": "apps"},
    "credentials": {"type": "SERVICE_PRINCIPAL", "data": {"serviceAccountKeyFile": "account.json"}},
    "performance": {
        "connectionPoolSize": 20,
        "requestTimeout": 5000,
        "retryPolicy": {"maxRetries": 3, "backoffMultiplier": 2},
        "sessionCacheSize": 100,
    },
    "highAvailability": {"replicas": [{"region": "europe-north1"}], "loadBalancing": "FAILOVER"},
    "monitoring": {"alerts": [{"metric": "latency", "threshold": 100, "action": "page"}]},
}


def options(**settings: Any) -> GcpOptions:
    found, problems = read(GcpOptions, {"provider": "GCP_KMS", **settings})
    assert found is not None, problems
    return found


def problems(**settings: Any) -> dict[str, str]:
    return dict(options_problems({"provider": "GCP_KMS", **settings}, Path()))


def test_the_operators_vocabulary_loads_and_what_is_not_obeyed_is_named() -> None:
    assert options_problems(OPERATORS, Path()) == []
    said = " ".join(unbuilt(OPERATORS))
    for setting in ("sessionCacheSize", "replicas[0].region", "loadBalancing", "alerts[0].metric"):
        assert setting in said
    for setting in ("endpoint", "partition", "credentials", "requestTimeout", "connectionPoolSize"):
        assert setting not in said


def test_the_smallest_section_has_defaults() -> None:
    smallest = options()
    assert (smallest.kek, smallest.location, smallest.ring) == ("keyside", "global", "keyside")
    assert smallest.connection.endpoint == "cloudkms.googleapis.com:443"
    assert smallest.protection_level == "HSM"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cloudkms.googleapis.com", "cloudkms.googleapis.com:443"),
        ("https://cloudkms.me-central2.rep.googleapis.com/", "cloudkms.me-central2.rep.googleapis.com:443"),
        ("127.0.0.1:8443", "127.0.0.1:8443"),
        ("[::1]:8443", "[::1]:8443"),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(given: str, meant: str) -> None:
    assert options(connection={"endpoint": given}).connection.endpoint == meant


@pytest.mark.parametrize("given", ["http://cloudkms.googleapis.com", "a b", "host:99999", "unix:/tmp/x", "host/path"])
def test_another_endpoint_is_refused(given: str) -> None:
    assert "TLS" in problems(connection={"endpoint": given})["hsm.connection.endpoint"]


def test_certificates_identify_nobody() -> None:
    found = problems(credentials={"type": "CERTIFICATE", "data": {"certificateFile": "x.pem"}})
    assert list(found) == ["hsm.credentials.type"]
    assert "IAM_ROLE" in found["hsm.credentials.type"]


def test_a_tls_version_that_cannot_be_demanded_is_said() -> None:
    assert "hsm.connection.tls.minimumVersion" in problems(connection={"tls": {"minimumVersion": "1.3"}})
    assert problems(connection={"tls": {"minimumVersion": "1.2"}}) == {}
    assert "hsm.connection.tls.keyFile" in problems(connection={"tls": {"keyFile": "x.key"}})


@pytest.mark.parametrize(
    ("credentials", "path"),
    [
        ({"type": "SERVICE_PRINCIPAL"}, "hsm.credentials.data"),
        ({"type": "SERVICE_PRINCIPAL", "data": {}}, "hsm.credentials.data.serviceAccountKey"),
        ({"type": "TOKEN", "data": {"token": "a", "tokenFile": "b"}}, "hsm.credentials.data"),
        ({"type": "IAM_ROLE", "data": {"secret": "x"}}, "hsm.credentials.data.secret"),
    ],
)
def test_credentials_that_cannot_work_are_problems(credentials: dict[str, Any], path: str) -> None:
    assert path in problems(credentials=credentials)


@pytest.mark.parametrize("kek", ["a b", "projects/p/keys/k", "x" * 64, "../k"])
def test_what_names_no_key_is_a_problem(kek: str) -> None:
    assert "hsm.kek" in problems(kek=kek)
    assert any(path.startswith("hsm.retiredKeks") for path in problems(retiredKeks=["good", kek]))


def test_a_version_in_the_configuration_means_its_key() -> None:
    assert options(kek=f"{FULL}/cryptoKeyVersions/7").kek == FULL


def test_short_names_are_completed() -> None:
    ring = names.key_ring("prod-1", "global", "apps")
    assert names.crypto_key("fields", ring) == "projects/prod-1/locations/global/keyRings/apps/cryptoKeys/fields"
    assert names.crypto_key(f"{FULL}/cryptoKeyVersions/7", ring) == FULL
    assert names.key_version("fields", ring).endswith("/fields/cryptoKeyVersions/1")
    assert names.key_version(f"{FULL}/cryptoKeyVersions/7", ring) == f"{FULL}/cryptoKeyVersions/7"
    with pytest.raises(NotFound, match="no such key"):
        names.crypto_key("no such key", ring)
    with pytest.raises(ConfigurationInvalid, match=r"credentials\.data\.project"):
        names.key_ring(None, "global", "apps")


def test_secrets_are_in_no_problem_and_no_repr() -> None:
    secret = "ya29.do-not-show"
    shown = options(credentials={"type": "TOKEN", "data": {"token": secret, "project": "prod-1"}})
    assert secret not in repr(shown)
    assert secret not in str(problems(credentials={"type": "TOKEN", "data": {"token": secret, "x": secret}}))
    assert shown.project == "prod-1"


def test_judging_a_configuration_needs_no_sdk() -> None:
    code = (
        "import sys; from pathlib import Path; from providers import create, options_problems; "
        "hsm = {'provider': 'GCP_KMS'}; assert options_problems(hsm, Path()) == []; create(hsm, Path()).describe(); "
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('google', 'grpc', 'google_crc32c')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
