"""The admin socket: who may use it, what it answers, and what it costs to run."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admin.access import AdminPeers, AdminRule
from proxy.admin.app import serve_admin
from proxy.admin.errors import ConfigRefused, NotFound
from proxy.peers import Peer
from tests.proxy.service.sidecar import Sidecar, environment, http_request

NOBODY = 65534


class Canned:
    """A sidecar with nothing behind it."""

    async def missing(self) -> list[str]:
        return ["keystore: locked"]

    async def status(self) -> dict[str, object]:
        raise RuntimeError("hunter2 must not be shown")

    async def metrics(self) -> str:
        return ""

    async def keyrings(self) -> list[dict[str, object]]:
        return []

    async def keyring(self, name: str) -> dict[str, object]:
        raise NotFound("no such keyring")

    async def create_keyring(self, name: str, partitioned: bool, index_bits: int | None) -> dict[str, object]:
        return {"name": name, "partitioned": partitioned, "index_bits": index_bits}

    async def reload(self) -> dict[str, object]:
        raise ConfigRefused([("cache.ttl", "is no duration")])


async def asked(home: Path, peers: AdminPeers, ask: Callable[[Path], tuple[int, object]]) -> tuple[int, object]:
    """What `ask` is answered, from a thread of its own, by an admin socket with nothing behind it."""
    path = home / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen()
        listening.setblocking(False)
        runner = await serve_admin(Canned(), peers, listening)
        try:
            return await asyncio.to_thread(ask, path)
        finally:
            await runner.cleanup()


def as_somebody_else(path: Path) -> tuple[int, object]:
    """Ask with another uid where we may take one; the caller has told the sidecar that ours is not its own."""
    code = (
        "import json, sys; from pathlib import Path; from tests.proxy.service.sidecar import http_request; import os;"
        "os.geteuid() or os.setresuid(65534, 65534, 65534);"
        "print(json.dumps(http_request(Path(sys.argv[1]), 'GET', '/v1/keyrings')))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True, env=environment())
    status, answer = json.loads(done.stdout)
    return status, answer


async def test_another_uid_is_refused_by_what_the_kernel_says(home: Path) -> None:
    status, answer = await asked(home, AdminPeers(own=12_345), as_somebody_else)
    assert status == 403
    assert isinstance(answer, dict)
    assert answer["error"]["code"] == "denied"
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert f"uid {uid}" in answer["error"]["message"]


async def test_a_configured_peer_is_admitted(home: Path) -> None:
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    status, _ = await asked(home, AdminPeers([AdminRule(uid, None)], own=12_345), as_somebody_else)
    assert status == 200


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (AdminRule(1000, None), True),
        (AdminRule(None, 1000), True),
        (AdminRule(None, 27), True),
        (AdminRule(1000, 27), True),
        (AdminRule(1000, 28), False),
        (AdminRule(1001, 27), False),
        (AdminRule(None, None), False),
    ],
)
def test_a_rule_matches_when_all_that_it_gives_do(rule: AdminRule, admitted: bool) -> None:
    assert AdminPeers([rule], own=0).admits(Peer(pid=1, uid=1000, gid=1000, groups=(4, 27))) is admitted


async def test_a_defect_shows_a_correlation_id_and_nothing_else(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    status, answer = await asked(home, AdminPeers(), lambda path: http_request(path, "GET", "/v1/status"))
    assert status == 500
    assert isinstance(answer, dict)
    message = answer["error"]["message"]
    assert "hunter2" not in message
    assert message.rpartition("correlation=")[2] == caplog.records[-1].__dict__["fields"]["correlation"]


async def test_a_client_that_leaves_is_no_defect(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def leave(path: Path) -> tuple[int, object]:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(b"POST /v1/keyrings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.05)
        time.sleep(0.05)
        return 0, None

    await asked(home, AdminPeers(), leave)
    assert not [record for record in caplog.records if record.name == "proxy"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/ready", None, 503, None),
        ("GET", "/v1/keyrings/none", None, 404, "not_found"),
        ("GET", "/nothing", None, 404, "http"),
        ("DELETE", "/v1/keyrings", None, 405, "http"),
        ("POST", "/v1/reload", None, 400, "config"),
        ("POST", "/v1/keyrings", b"{", 400, "invalid"),
        ("POST", "/v1/keyrings", b"[" * 60_000, 400, "invalid"),
        ("POST", "/v1/keyrings", b"[]", 400, "invalid"),
        ("POST", "/v1/keyrings", {}, 400, "invalid"),
        ("POST", "/v1/keyrings", {"name": "a", "partitioned": 1}, 400, "invalid"),
        ("POST", "/v1/keyrings", {"name": "a", "index_bits": True}, 400, "invalid"),
        ("POST", "/v1/keyrings", {"name": "a", "colour": "red"}, 400, "invalid"),
        ("POST", "/v1/keyrings", b'{"name": "' + b"a" * 70_000 + b'"}', 413, "http"),
        ("POST", "/v1/keyrings", {"name": "a", "partitioned": True}, 201, None),
    ],
)
async def test_answers(home: Path, method: str, path: str, body: object, status: int, code: str | None) -> None:
    got, answer = await asked(home, AdminPeers(), lambda socket_path: http_request(socket_path, method, path, body))
    assert got == status
    assert isinstance(answer, dict)
    assert code is None or answer["error"]["code"] == code


def test_metrics_are_prometheus_text(sidecar: Sidecar) -> None:
    sidecar.post("/v1/encrypt", {"keyring": "contacts", "items": ["YQ==", None]})
    sidecar.post("/v1/decrypt", {"keyring": "contacts", "items": ["ks1.AAAA"]})
    status, text = sidecar.ask("GET", "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.documentation for family in families.values())

    def value(name: str, **labels: str) -> float:
        (found,) = [
            sample.value
            for family in families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return float(found)

    assert value("keyside_items_total", operation="encrypt") >= 2
    assert value("keyside_failed_items_total", error="INVALID_CIPHERTEXT") >= 1
    assert value("keyside_cached_keys") >= 1
    assert value("keyside_locked_memory_bytes") > 1 << 20
    assert value("keyside_key_service_total", work="wraps") >= 1
    for name in ("keyside_request_duration_seconds", "keyside_provider_call_duration_seconds"):
        assert families[name].type == "histogram"
        buckets = [sample for sample in families[name].samples if sample.name.endswith("_bucket")]
        counts = [sample.value for sample in buckets]
        assert counts == sorted(counts)
        assert buckets[-1].labels["le"] == "+Inf"
        assert counts[-1] == value(f"{name}_count") > 0


def test_the_keyring_list_counts_data_keys(sidecar: Sidecar) -> None:
    sidecar.run("encrypt", "users/counted", stdin=b"x")
    _, listed = sidecar.ask("GET", "/v1/keyrings")
    assert {one["name"]: one["data_keys"] for one in listed["keyrings"]}["users"] >= 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/keyrings/"), ("GET", "/nothing"), ("PUT", "/v1/status")])
async def test_unknown_paths_and_methods_get_a_sentence(home: Path, method: str, path: str) -> None:
    _, answer = await asked(home, AdminPeers(), lambda socket_path: http_request(socket_path, method, path))
    assert isinstance(answer, dict)
    assert "docs/spec/http.md" in answer["error"]["message"]
