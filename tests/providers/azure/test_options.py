"""Settings: all problems at once, and nothing secret shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.azure.connections import proxy_of
from providers.azure.names import KeyName, is_managed_hsm, vault_url
from providers.registry import create, options_problems, unbuilt

BASE = Path("/etc/keyside")
VERSION = "0123456789abcdef" * 2
GOOD: dict[str, Any] = {"provider": "AZURE_KEY_VAULT", "connection": {"endpoint": "https://acme.vault.azure.net"}}
APPLICATION = {"tenantId": "t", "clientId": "c"}


@pytest.mark.parametrize(
    ("endpoint", "mechanism"),
    [
        ("https://acme.vault.azure.net", "RSA-OAEP-256+ES256"),
        ("https://acme.managedhsm.azure.net/", "A256GCM"),
        ("https://acme.managedhsm.usgovcloudapi.net", "A256GCM"),
        ("https://acme.vault.azure.cn", "RSA-OAEP-256+ES256"),
        ("https://managedhsm-prod.vault.azure.net", "RSA-OAEP-256+ES256"),
    ],
)
def test_the_mechanism_follows_the_kind_of_vault(endpoint: str, mechanism: str) -> None:
    assert create(GOOD | {"connection": {"endpoint": endpoint}}, BASE).describe().mechanism == mechanism


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"connection": {}}, ["hsm.connection.endpoint"]),
        ({"connection": {"endpoint": "http://acme.vault.azure.net"}}, ["hsm.connection.endpoint"]),
        ({"connection": {"endpoint": "acme"}}, ["hsm.connection.endpoint"]),
        ({"connection": {"endpoint": "https://u:p@acme.vault.azure.net"}}, ["hsm.connection.endpoint"]),
        ({"connection": {"endpoint": "https://acme.vault.azure.net:99999"}}, ["hsm.connection.endpoint"]),
        ({"kek": "not a name"}, ["hsm.kek"]),
        ({"kek": "a/b"}, ["hsm.kek"]),
        ({"kek": f"https://other.vault.azure.net/keys/a/{VERSION}"}, ["hsm.kek"]),
        ({"signingKey": "a_b", "retiredKeks": ["ok", "!"]}, ["hsm.signingKey", "hsm.retiredKeks[1]"]),
        ({"mechanism": "RSA1_5"}, ["hsm.mechanism"]),
        ({"formerEndpoints": ["ftp://x"]}, ["hsm.formerEndpoints"]),
        ({"rotateAfter": "a year"}, ["hsm.rotateAfter"]),
        ({"keyProtection": "NONE"}, ["hsm.keyProtection"]),
        ({"credentials": {"type": "PASSWORD"}}, ["hsm.credentials"]),
        ({"credentials": {"type": "SERVICE_PRINCIPAL"}}, ["hsm.credentials.data"]),
        (
            {"credentials": {"type": "SERVICE_PRINCIPAL", "data": {"tenantId": "t"}}},
            ["hsm.credentials.data.clientId", "hsm.credentials.data.clientSecret"],
        ),
        (
            {"credentials": {"type": "CERTIFICATE", "data": APPLICATION}},
            ["hsm.credentials.data.certificateFile"],
        ),
        ({"credentials": {"type": "TOKEN", "data": {}}}, ["hsm.credentials.data.token"]),
        (
            {"credentials": {"type": "IAM_ROLE", "data": {"authority": "http://login", "secret": "x"}}},
            ["hsm.credentials.data.authority", "hsm.credentials.data.secret"],
        ),
        ({"tokenLabel": "x"}, ["hsm.tokenLabel"]),
    ],
    ids=str,
)
def test_problems_and_their_paths(changed: dict[str, Any], paths: list[str]) -> None:
    problems = options_problems(GOOD | changed, BASE)
    assert sorted(problem.path for problem in problems) == sorted(paths)


def test_a_secret_in_the_file_is_not_shown() -> None:
    data = APPLICATION | {"clientSecret": "hush-hush"}
    hsm = GOOD | {"credentials": {"type": "SERVICE_PRINCIPAL", "data": data}}
    assert options_problems(hsm, BASE) == []
    provider = create(hsm, BASE)
    twice = hsm | {"credentials": {"type": "SERVICE_PRINCIPAL", "data": data | {"clientSecretFile": "hush-hush"}}}
    for said in (provider.describe(), vars(provider), options_problems(twice, BASE)):
        assert "hush" not in repr(said)
    assert options_problems(twice, BASE)


def test_a_file_in_the_operators_vocabulary_loads_and_the_rest_is_named() -> None:
    hsm = GOOD | {
        "connection": {"endpoint": "https://acme.vault.azure.net", "region": "westeurope"},
        "credentials": {"type": "SERVICE_PRINCIPAL", "data": APPLICATION | {"clientSecret": "hush-hush"}},
        "performance": {"connectionPoolSize": 20, "sessionCacheSize": 10},
        "highAvailability": {"loadBalancing": "FAILOVER"},
        "monitoring": {"cloudwatch": {"enabled": True}},
    }
    assert options_problems(hsm, BASE) == []
    assert [line.partition(":")[0] for line in unbuilt(hsm)] == [
        "hsm.connection.region",
        "hsm.performance.sessionCacheSize",
        "hsm.highAvailability.loadBalancing",
        "hsm.monitoring.cloudwatch.enabled",
    ]


def test_the_kek_as_a_whole_url_is_enough() -> None:
    hsm = {"provider": "AZURE_KEY_VAULT", "kek": f"https://ACME.vault.azure.net:443/keys/keyside/{VERSION}"}
    assert options_problems(hsm, BASE) == []


def test_names() -> None:
    whole = KeyName.parse(f"https://Acme.vault.azure.net/keys/Name/{VERSION}", "")
    assert str(whole) == f"https://acme.vault.azure.net/keys/Name/{VERSION}"
    assert KeyName.parse(f"Name/{VERSION}", "https://acme.vault.azure.net/") == whole
    assert vault_url("https://h:8443") == "https://h:8443"
    assert is_managed_hsm("https://managedhsm.azure.net")
    for bad in (
        "",
        "/",
        "a/",
        f"a/{VERSION.upper()}",
        "a" * 128,
        "é",
        f"https://h/x/keys/a/{VERSION}",
        "https:///keys/a",
    ):
        with pytest.raises(ValueError, match=" "):
            KeyName.parse(bad, "https://acme.vault.azure.net")


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".vault.azure.net"}, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
    ],
    ids=str,
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of("https://acme.vault.azure.net") == proxy
