"""The `hsm` section read again: a provider that can serve takes over, one that cannot leaves the old in its place."""

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from providers.local import create_root_key
from tests.proxy.service.sidecar import Sidecar, initialize, replace_section, running


@pytest.fixture
def own(home: Path) -> Iterator[Sidecar]:
    """A sidecar with the keyring `users`, and one data key in use there: that of `users/1`."""
    with running(initialize(home, hsm="{provider: LOCAL, keyFile: data/root.key}")) as started:
        started.run("keyring", "create", "users", "--partitioned")
        started.run("encrypt", "users/1", stdin=b"x")
        yield started


def configure(sidecar: Sidecar, hsm: str) -> None:
    sidecar.config.write_text(replace_section(sidecar.config.read_text(), "hsm", hsm))


def mechanisms(sidecar: Sidecar) -> list[str]:
    """Of all wraps, the oldest first."""
    with closing(sqlite3.connect(sidecar.home / "data" / "keystore.sqlite")) as keystore:
        return [row[0] for row in keystore.execute("SELECT mechanism FROM wraps ORDER BY created_at")]


def test_a_provider_with_new_settings_takes_over_and_reads_what_the_old_one_wrapped(own: Sidecar) -> None:
    envelope = own.run("encrypt", "users/1", stdin=b"old")
    configure(own, "{provider: LOCAL, mechanism: AES-KWP, performance: {connectionPoolSize: 3}}")
    own.signal(signal.SIGHUP)
    assert (own.notification()["RELOADING"], own.notification()["READY"]) == ("1", "1")
    own.run("encrypt", "users/2", stdin=b"new")
    assert mechanisms(own) == ["AES-256-GCM", "AES-KWP"]
    assert own.run("decrypt", "users/1", stdin=envelope) == b"old"
    _, status = own.ask("GET", "/v1/status")
    assert status["provider"]["pool"] == {"size": 3, "active": 0, "idle": 3, "waiting": 0}
    assert status["health"]["provider"]["status"] == "ok"


@pytest.mark.parametrize("signalled", [True, False])
def test_one_that_cannot_be_opened_leaves_the_old_one_in_its_place(own: Sidecar, signalled: bool) -> None:
    (own.home / "data" / "root.key").rename(own.home / "data" / "moved")
    configure(own, "{provider: LOCAL, mechanism: AES-KWP}")
    before = len(own.log.splitlines())
    if signalled:
        own.signal(signal.SIGHUP)
        assert (own.notification()["RELOADING"], own.notification()["READY"]) == ("1", "1")
    else:
        status, answer = own.ask("POST", "/v1/reload")
        assert status == 200
        assert "root.key" in answer["provider_kept"]
    (line,) = [line for line in own.log.splitlines()[before:] if " error " in line]
    assert "the provider in use stays" in line
    assert "root.key" in line
    own.run("encrypt", "users/2", stdin=b"y")
    assert mechanisms(own) == ["AES-256-GCM"] * 2


def test_the_rest_of_the_configuration_is_put_into_force_all_the_same(own: Sidecar) -> None:
    (own.home / "data" / "root.key").rename(own.home / "data" / "moved")
    own.config.write_text(own.config.read_text().replace('keyrings: ["*"]', 'keyrings: ["others"]'))
    assert own.ask("POST", "/v1/reload")[1]["provider_kept"]
    status, answer = own.post("/v1/encrypt", {"keyring": "users/1", "items": ["eA=="]})
    assert (status, answer["error"]["name"]) == (403, "DENIED")


def test_one_that_cannot_unwrap_what_the_keystore_holds_is_refused(own: Sidecar) -> None:
    create_root_key(own.home / "data" / "other.key")
    configure(own, "{provider: LOCAL, keyFile: data/other.key}")
    _, answer = own.ask("POST", "/v1/reload")
    assert "restore the root key" in answer["provider_kept"]
    own.run("encrypt", "users/2", stdin=b"y")
    configure(own, "{provider: LOCAL, keyFile: data/other.key, retiredKeyFiles: [data/root.key]}")
    _, answer = own.ask("POST", "/v1/reload")
    assert answer["provider_kept"] is None
    own.run("encrypt", "users/3", stdin=b"z")


def test_a_secret_that_was_replaced_is_read_anew_although_no_setting_changed(own: Sidecar) -> None:
    root, kept = own.home / "data" / "root.key", own.home / "data" / "kept.key"
    configure(own, "{provider: LOCAL, keyFile: data/root.key, retiredKeyFiles: [data/kept.key]}")
    shutil.move(root, kept)
    create_root_key(root)
    first = own.ask("GET", "/v1/status")[1]["provider"]["kek"]
    assert own.ask("POST", "/v1/reload")[1]["provider_kept"] is None
    assert own.ask("GET", "/v1/status")[1]["provider"]["kek"] != first


def test_settings_that_nothing_acts_on_are_named_again(own: Sidecar) -> None:
    configure(own, "{provider: LOCAL, monitoring: {cloudwatch: {enabled: true}}}")
    own.ask("POST", "/v1/reload")
    line = "hsm.monitoring.cloudwatch.enabled: accepted, but this release does not act on it"
    assert own.log.count(line) == 1
    _, status = own.ask("GET", "/v1/status")
    assert [line in warning for warning in status["warnings"]].count(True) == 1
