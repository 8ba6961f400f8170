"""SIGHUP with real back ends: credentials mended, and one back end taking over from another, without a restart."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.backends import Place, place
from tests.integration.test_backends import decrypt, encrypt, until_it_serves
from tests.proxy.service.sidecar import Sidecar, folder, initialize, replace_section, running
from tests.servers import Served, launch


@pytest.fixture
def token() -> Iterator[Place]:
    with place("LUNA_HSM") as made:
        yield made


def reload(sidecar: Sidecar) -> None:
    sidecar.signal(signal.SIGHUP)
    while sidecar.notification().get("RELOADING") != "1":
        pass
    while sidecar.notification().get("READY") != "1":
        pass


def test_a_wrong_pin_does_not_end_the_sidecar_and_a_reload_mends_it(token: Place) -> None:
    pin = Path(token.hsm["credentials"]["data"]["pinFile"])
    right = pin.read_text()
    pin.write_text("not the PIN\n")
    with token.running() as sidecar:
        sidecar.run("keyring", "create", "users", "--partitioned")
        for partition in range(3):
            status, answer = encrypt(sidecar, f"users/{partition}")
            assert (status, answer["error"]["name"]) == (503, "KMS_UNAVAILABLE")
        assert sidecar.ask("GET", "/v1/ready")[0] == 503
        assert "does not accept the credentials yet" in sidecar.log
        assert "not the PIN" not in sidecar.log
        reload(sidecar)
        assert "the provider in use stays" in sidecar.log
        pin.write_text(right)
        reload(sidecar)
        until_it_serves(sidecar, "users/9")
        assert sidecar.ask("GET", "/v1/ready")[0] == 200
        assert right.strip() not in sidecar.log


@pytest.fixture(scope="module")
def vault() -> Iterator[Served]:
    with ExitStack() as stack:
        yield stack.enter_context(launch("VAULT_TRANSIT", stack.enter_context(folder())))


def test_another_back_end_takes_over_while_cached_keys_serve_on(vault: Served) -> None:
    with folder() as home:
        config = initialize(home)
        local = config.read_text()
        with running(config) as sidecar:
            sidecar.run("keyring", "create", "users", "--partitioned")
            (old,) = encrypt(sidecar, "users/1", b"wrapped by LOCAL")[1]["items"]
            config.write_text(replace_section(local, "hsm", json.dumps(vault.hsm)))
            reload(sidecar)
            assert "data keys that LOCAL wrapped cannot be unwrapped while VAULT_TRANSIT is configured" in sidecar.log
            (new,) = encrypt(sidecar, "users/2", b"wrapped by Vault")[1]["items"]
            assert decrypt(sidecar, "users/1", old) == b"wrapped by LOCAL"  # from the cache
            assert sidecar.ask("GET", "/v1/status")[1]["provider"]["name"] == "VAULT_TRANSIT"
        with running(config) as sidecar:  # it starts, for there are data keys that it can unwrap
            assert decrypt(sidecar, "users/2", new) == b"wrapped by Vault"
            status, answer = sidecar.post("/v1/decrypt", {"keyring": "users/1", "items": [old]})
            assert "KMS_UNAVAILABLE" in json.dumps(answer), status
            assert "no wrap of VAULT_TRANSIT" in sidecar.log
            config.write_text(local)
            reload(sidecar)
            deadline = time.monotonic() + 10
            while "error" in str(sidecar.post("/v1/decrypt", {"keyring": "users/1", "items": [old]})[1]):
                assert time.monotonic() < deadline, sidecar.log  # a refusal is remembered for cache.negative_ttl
                time.sleep(0.1)
            assert decrypt(sidecar, "users/1", old) == b"wrapped by LOCAL"


def test_a_token_that_is_refused_leaves_the_one_in_use(vault: Served) -> None:
    data = vault.hsm["credentials"]["data"]
    right = Path(data["tokenFile"]).read_text()
    with folder() as home, running(initialize(home, hsm=json.dumps(vault.hsm))) as sidecar:
        sidecar.run("keyring", "create", "users", "--partitioned")
        Path(data["tokenFile"]).write_text("s.not-a-token-that-anybody-gave-out\n")
        try:
            reload(sidecar)
            assert "the provider in use stays" in sidecar.log
            assert encrypt(sidecar, "users/1")[0] == 200
            assert "not-a-token" not in sidecar.log
        finally:
            Path(data["tokenFile"]).write_text(right)
