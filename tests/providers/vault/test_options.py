"""Settings of VAULT_TRANSIT: what loads, what is a problem, and that secrets are never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import create, options_problems, unbuilt
from providers.options import read
from providers.vault.options import VaultOptions

BASE = Path("/etc/keyside")
TOKEN = {"type": "TOKEN", "data": {"tokenFile": "token"}}
REMOTE = {"endpoint": "https://vault.example:8200"}


def hsm(**settings: Any) -> dict[str, Any]:
    return {"provider": "VAULT_TRANSIT", "connection": REMOTE, "credentials": TOKEN} | settings


def problems(**settings: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in options_problems(hsm(**settings), BASE)]


@pytest.mark.parametrize(
    "credentials",
    [
        TOKEN,
        {"type": "TOKEN", "data": {"token": "s.secret"}},
        {"type": "TOKEN", "data": {"tokenEnv": "VAULT_TOKEN"}},
        {"type": "TOKEN", "data": {"tokenCredential": "vault-token"}},
        {"type": "SERVICE_PRINCIPAL", "data": {"roleId": "role", "secretIdFile": "secret-id"}},
        {"type": "SERVICE_PRINCIPAL", "data": {"roleId": "role", "secretIdEnv": "ID", "authMount": "team/approle"}},
        {"type": "IAM_ROLE", "data": {"role": "keyside"}},
        {"type": "IAM_ROLE", "data": {"role": "keyside", "jwtFile": "jwt", "authMount": "jwt"}},
    ],
)
def test_every_kind_of_credentials_loads(credentials: dict[str, Any]) -> None:
    assert problems(credentials=credentials) == []
    assert unbuilt(hsm(credentials=credentials)) == []


def test_a_certificate_is_shown_by_the_handshake() -> None:
    tls = {"certificateFile": "client.pem", "keyFile": "client.key", "caFile": "ca.pem", "minimumVersion": "1.3"}
    assert problems(credentials={"type": "CERTIFICATE"}, connection=REMOTE | {"tls": tls}) == []
    assert (
        problems(credentials={"type": "CERTIFICATE", "data": {"role": "web"}}, connection=REMOTE | {"tls": tls}) == []
    )
    ((path, message),) = problems(credentials={"type": "CERTIFICATE"})
    assert path == "hsm.credentials.type"
    assert "certificateFile" in message


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://vault.example",
        "https://vault.example/",
        "https://[2001:db8::1]:8200",
        "http://127.0.0.1:8200",
        "http://localhost:8200",
        "http://[::1]:8200",
        "unix:///run/vault/agent.sock",
    ],
)
def test_endpoints(endpoint: str) -> None:
    assert problems(connection={"endpoint": endpoint}) == []


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://vault.example:8200", "in clear"),
        ("http://127.0.0.1.evil.example", "in clear"),
        ("vault.example:8200", "https://HOST"),
        ("ftp://vault.example", "https://HOST"),
        ("https://", "https://HOST"),
        ("https://user:password@vault.example", "https://HOST"),
        ("https://vault.example/v1/transit", "https://HOST"),
        ("https://vault.example?token=x", "https://HOST"),
        ("https://vault.example:none", "https://HOST"),
        ("https://vault.example:99999", "https://HOST"),
        ("https://[::1", "https://HOST"),
        ("unix://relative.sock", "absolute"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, said: str) -> None:
    ((path, message),) = problems(connection={"endpoint": endpoint})
    assert path == "hsm.connection.endpoint"
    assert said in message
    assert "password" not in message


def test_without_credentials_an_agent_on_this_machine_adds_them() -> None:
    for connection in ({}, {"endpoint": "unix:///run/agent.sock"}, {"endpoint": "http://127.0.0.1:8100"}):
        assert options_problems({"provider": "VAULT_TRANSIT", "connection": connection}, BASE) == []
    (problem,) = options_problems({"provider": "VAULT_TRANSIT", "connection": REMOTE}, BASE)
    assert problem.path == "hsm.credentials"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"kek": "a/b"}, "hsm.kek"),
        ({"kek": "../sys"}, "hsm.kek"),
        ({"kek": "-x"}, "hsm.kek"),
        ({"kek": "key?x=1"}, "hsm.kek"),
        ({"retiredKeks": ["good", "not good"]}, "hsm.retiredKeks[1]"),
        ({"mount": "../sys"}, "hsm.mount"),
        ({"mount": "a//b"}, "hsm.mount"),
        ({"mount": "transit?x"}, "hsm.mount"),
        ({"namespace": "a b"}, "hsm.namespace"),
        ({"credentials": {"type": "TOKEN", "data": {}}}, "hsm.credentials.data.token"),
        ({"credentials": {"type": "TOKEN"}}, "hsm.credentials.data"),
        ({"credentials": {"type": "IAM_ROLE", "data": {}}}, "hsm.credentials.data.role"),
        ({"credentials": {"type": "SERVICE_PRINCIPAL", "data": {"secretIdEnv": "X"}}}, "hsm.credentials.data.roleId"),
        ({"credentials": {"type": "PASSWORD", "data": {}}}, "hsm.credentials"),
        ({"connection": {"endpoint": "unix:///a", "tls": {"caFile": "x"}}}, "hsm.connection.tls"),
        ({"transit": "x"}, "hsm.transit"),
    ],
)
def test_problems_have_their_path(settings: dict[str, Any], path: str) -> None:
    assert [found for found, _ in problems(**settings)] == [path]


def test_slashes_around_paths_do_not_matter() -> None:
    options, found = read(VaultOptions, hsm(mount="/team/transit/", namespace="ns1/"))
    assert not found
    assert options is not None
    assert (options.mount, options.namespace) == ("team/transit", "ns1")


def test_settings_of_other_services_are_named_and_do_no_harm() -> None:
    settings = hsm(
        connection=REMOTE | {"region": "eu-west-1", "slot": 3},
        highAvailability={"replicas": [{"region": "eu-west-2"}], "loadBalancing": "FAILOVER"},
        monitoring={"cloudwatch": {"enabled": True}},
        performance={"connectionPoolSize": 4, "connectionMaxAge": 60, "sessionCacheSize": 9},
    )
    assert options_problems(settings, BASE) == []
    named = [line.partition(":")[0] for line in unbuilt(settings)]
    assert named == [
        "hsm.connection.region",
        "hsm.connection.slot",
        "hsm.performance.sessionCacheSize",
        "hsm.highAvailability.replicas[0].region",
        "hsm.highAvailability.loadBalancing",
        "hsm.monitoring.cloudwatch.enabled",
    ]


def test_a_secret_in_the_file_is_never_shown() -> None:
    settings = hsm(credentials={"type": "TOKEN", "data": {"token": "s.verysecret"}})
    options, _ = read(VaultOptions, settings)
    provider = create(settings, BASE)
    for shown in (repr(options), str(options), repr(provider.describe()), repr(vars(provider)), str(unbuilt(settings))):
        assert "verysecret" not in shown
    bad = hsm(
        credentials={"type": "TOKEN", "data": {"token": "s.verysecret", "tokenFile": "x", "more": "s.verysecret"}}
    )
    assert "verysecret" not in str(options_problems(bad, BASE))
