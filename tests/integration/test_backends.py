"""The real sidecar on every back end: SIGKILL loses nothing, outages end by themselves, nothing secret is told."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from statistics import quantiles
from typing import Any

import pytest

from tests.integration.backends import NETWORKED, TIMEOUT_MILLISECONDS, Place, place, tell_all
from tests.proxy.service.sidecar import Sidecar
from tests.servers import LAUNCHERS

PATIENCE = 15.0


@pytest.fixture(scope="module", params=LAUNCHERS)
def backend(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One back end's server after the other, each started once."""
    with place(request.param) as made:
        yield made


def encrypt(sidecar: Sidecar, keyring: str, value: bytes = b"x") -> tuple[int, Any]:
    return sidecar.post("/v1/encrypt", {"keyring": keyring, "items": [base64.b64encode(value).decode()]})


def decrypt(sidecar: Sidecar, keyring: str, envelope: str) -> bytes:
    status, answer = sidecar.post("/v1/decrypt", {"keyring": keyring, "items": [envelope]})
    assert status == 200, (answer, sidecar.log)
    return base64.b64decode(answer["items"][0])


def until_it_serves(sidecar: Sidecar, keyring: str) -> None:
    """Encrypt under a data key that is not cached, again and again until that succeeds."""
    deadline = time.monotonic() + PATIENCE
    while encrypt(sidecar, keyring)[0] != 200:
        assert time.monotonic() < deadline, sidecar.log
        time.sleep(0.1)


def test_fields_survive_sigkill_and_nothing_secret_is_told(backend: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with backend.running(execute=True) as first:
        first.run("keyring", "create", "users", "--partitioned")
        sealed = {}
        for partition in range(5):
            status, answer = encrypt(first, f"users/{partition}", b"field %d" % partition)
            assert status == 200, (answer, first.log)
            sealed[partition] = answer["items"][0]
    with backend.running(execute=True) as second:
        for partition, envelope in sealed.items():
            assert decrypt(second, f"users/{partition}", envelope) == b"field %d" % partition
        _, status = second.ask("GET", "/v1/status")
        assert status["provider"]["name"] == backend.provider
        assert status["provider"]["pool"]["size"] >= 4
        assert status["health"]["provider"]["status"] == "ok", status["health"]
        assert status["key_service"]["unwraps"] >= 5
        _, metrics = second.ask("GET", "/metrics")
        assert 'keyside_provider_health{status="ok"} 1' in metrics
        assert 'keyside_provider_pool{state="active"} ' in metrics
        for name, value in backend.served.environment.items():
            monkeypatch.setenv(name, value)
        told = second.log.encode() + second.run("status") + second.run("status", "--json") + tell_all(backend.config)
    secrets = backend.secrets()
    assert secrets
    assert [len(secret) for secret in secrets if secret in told or base64.b64encode(secret) in told] == []
    assert b"the key that was wrapped came back" in told


@pytest.mark.parametrize("backend", [*NETWORKED, "LUNA_HSM"], indirect=True)
def test_a_back_end_that_is_away_at_the_start_is_found_when_it_comes(backend: Place) -> None:
    with backend.away():
        sidecar = Sidecar(backend.config, environ=dict(backend.served.environment))
        try:
            sidecar.until_ready()
            assert sidecar.ask("GET", "/v1/health")[0] == 200
            status, answer = sidecar.ask("GET", "/v1/ready")
            assert (status, answer["ready"]) == (503, False)
            assert answer["missing"][0].startswith("provider: ")
            if not any(ring["name"] == "late" for ring in sidecar.ask("GET", "/v1/keyrings")[1]["keyrings"]):
                sidecar.run("keyring", "create", "late", "--partitioned")
            code, answer = encrypt(sidecar, "late/1")
            assert (code, answer["error"]["name"]) == (503, "KMS_UNAVAILABLE")
            assert "yet: " in sidecar.log  # one line of the start says what it waits for
            assert sidecar.ask("GET", "/v1/status")[1]["health"]["provider"]["status"] == "down"
        except BaseException:
            sidecar.close()
            raise
    try:
        until_it_serves(sidecar, "late/1")
        deadline = time.monotonic() + PATIENCE
        while sidecar.ask("GET", "/v1/ready")[0] != 200:
            assert time.monotonic() < deadline, sidecar.log
            time.sleep(0.1)
        assert sidecar.process.poll() is None
        with backend.away():
            assert encrypt(sidecar, "late/1")[0] == 200  # its data key is cached
            assert encrypt(sidecar, "late/2")[0] == 503
        until_it_serves(sidecar, "late/3")
        told = sidecar.log.encode()
        assert [len(secret) for secret in backend.secrets() if secret in told] == []
    finally:
        sidecar.close()


@pytest.mark.parametrize("backend", NETWORKED, indirect=True)
def test_a_back_end_that_hangs_costs_its_callers_the_timeout_and_nobody_else_anything(backend: Place) -> None:
    assert backend.mishap is not None
    with backend.running() as sidecar:
        if not any(ring["name"] == "hung" for ring in sidecar.ask("GET", "/v1/keyrings")[1]["keyrings"]):
            sidecar.run("keyring", "create", "hung", "--partitioned")
        _, answer = encrypt(sidecar, "hung/1", b"cached")
        (envelope,) = answer["items"]
        quiet = latencies(sidecar, envelope)
        backend.mishap.hang()
        started = time.monotonic()
        code, answer = encrypt(sidecar, "hung/2")
        took = time.monotonic() - started
        assert (code, answer["error"]["name"]) == (503, "KMS_UNAVAILABLE"), answer
        assert took < TIMEOUT_MILLISECONDS / 1000 + 0.1 + 0.3  # the last is for this machine's other tests
        hung = latencies(sidecar, envelope)
        # a machine that stands still hits one request, not the median of the slowest
        assert hung < max(quiet * 5, 0.02)
        for path in ("/v1/health", "/v1/status", "/metrics"):
            started = time.monotonic()
            assert sidecar.ask("GET", path)[0] == 200
            assert time.monotonic() - started < 1.5
        backend.mishap.normal()
        until_it_serves(sidecar, "hung/3")


def latencies(sidecar: Sidecar, envelope: str) -> float:
    """The ninth decile of a hundred decryptions under a cached key, in seconds."""
    found = []
    for _ in range(100):
        started = time.monotonic()
        assert decrypt(sidecar, "hung/1", envelope) == b"cached"
        found.append(time.monotonic() - started)
    return quantiles(found, n=10)[8]
