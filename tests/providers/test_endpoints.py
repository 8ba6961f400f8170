"""Where back ends are: a URL whose spelling other readers take differently would be a connection without TLS."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from providers.aws.options import endpoint_problem
from providers.endpoints import is_in_clear, is_loopback, is_origin, is_tls
from providers.vault.options import Endpoint

GOOD = ["https://kms.example.com", "https://10.0.0.1:8200/", "https://[2001:db8::1]:8200", "https://vault.example:8200"]
NONE = [
    "HTTPS://vault.example:8200",
    "Https://vault.example:8200",
    " https://vault.example:8200",
    "ht\ttps://vault.example:8200",
    "https://vault.example:8200\n",
    "https://vault.example:8200 ",
    "https://:password@vault.example",
    "https://name@vault.example",
    "https://vault.example#part",
    "https://vault.example?a=b",
    "https://vault.example/path",
    "https:\\\\vault.example",
    "https://v\u00e4ult.example",
    "https://vault.example:0",
    "https://vault.example:65536",
    "https://",
    "https:vault.example",
    "ftp://vault.example",
    "",
]


@pytest.mark.parametrize("endpoint", GOOD)
def test_origins(endpoint: str) -> None:
    assert is_origin(endpoint)
    assert is_tls(endpoint)
    assert not is_in_clear(endpoint)
    assert not is_loopback(endpoint)
    assert endpoint_problem(endpoint) is None
    assert TypeAdapter(Endpoint).validate_python(endpoint) == endpoint.rstrip("/")


@pytest.mark.parametrize("endpoint", NONE)
def test_no_origins(endpoint: str) -> None:
    assert not is_origin(endpoint)
    assert endpoint_problem(endpoint) is not None
    with pytest.raises(ValidationError):
        TypeAdapter(Endpoint).validate_python(endpoint)


@pytest.mark.parametrize(
    ("endpoint", "clear"),
    [
        ("http://127.0.0.1:8200", False),
        ("http://localhost", False),
        ("http://[::1]:1", False),
        ("http://vault.example", True),
        ("http://10.0.0.1", True),
        ("http://127.0.0.1.example", True),
    ],
)
def test_http_is_for_this_machine(endpoint: str, clear: bool) -> None:
    assert is_origin(endpoint)
    assert is_in_clear(endpoint) is clear
    assert (endpoint_problem(endpoint) is not None) is clear
