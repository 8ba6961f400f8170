"""At the most talkative level, after good requests and every kind of bad one: no plaintext and no key in the log."""

import base64
import json
import signal
import socket
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import msgpack
import pytest

from tests.proxy.service.sidecar import Sidecar, command, http_request, initialize, running
from tests.twin.wrap import context, gcm_unwrap

CANARY = b"Canary-7f3a91c0d5e8-alice@example.org"


def spellings(secret: bytes) -> list[bytes]:
    """How a secret might be written, at any alignment within base64."""
    written = [secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode()[2:-1]]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        written += [encoded[4:-4], encoded[4:-4].replace(b"+", b"-").replace(b"/", b"_")]
    return written


def frame(*request: object) -> bytes:
    body = msgpack.packb(request, use_bin_type=True)
    return struct.pack(">I", len(body)) + body


def provoke(sidecar: Sidecar) -> None:
    text = CANARY.decode()
    plain = base64.b64encode(CANARY).decode()
    _, made = sidecar.post("/v1/encrypt", {"keyring": "contacts", "context": plain, "items": [plain]})
    sidecar.post("/v1/decrypt", {"keyring": "contacts", "context": plain, "items": made["items"]})
    sidecar.post("/v1/decrypt", {"keyring": "contacts", "items": made["items"]})
    for body in (
        CANARY,
        {"keyring": text, "items": [plain]},
        {"keyring": "contacts", "items": [text]},
        {"keyring": "contacts", "items": [plain], text: 1},
        {"keyring": "contacts", "items": {text: 1}},
        {"keyring": "contacts", "items": [plain], "context": [text]},
        {"keyring": "\ud800" + text, "items": [plain]},
    ):
        sidecar.post("/v1/encrypt", body)
    for path in (sidecar.data, sidecar.admin):
        for garbage in (b"GET /" + CANARY + b" HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\n" + CANARY + b"\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(path))
                raw.sendall(garbage)
                raw.recv(4096)
    http_request(sidecar.admin, "POST", "/v1/keyrings", {"name": text})
    http_request(sidecar.admin, "GET", f"/v1/keyrings/{text}")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(sidecar.data))
        for request in (
            frame(1, 1, "contacts", None, [CANARY, None]),
            frame(2, 2, "contacts", None, [CANARY]),
            frame(3, 9, "contacts", CANARY, [CANARY]),
            frame(4, 1, text, CANARY, [CANARY]),
            frame({text: CANARY}),
        ):
            raw.sendall(request)
            raw.recv(65_536)
    for arguments in (["encrypt", "nobody"], ["decrypt", "contacts"]):
        done = command(*arguments, "--config", sidecar.config, stdin=CANARY)
        assert CANARY not in done.stderr


def keys_of(home: Path) -> list[bytes]:
    """The root key, and every data key of the keystore as the twin of docs/spec/wrap.md unwraps it."""
    root = base64.b64decode((home / "data" / "root.key").read_bytes().splitlines()[1])
    with closing(sqlite3.connect(home / "data" / "keystore.sqlite")) as keystore:
        rows = keystore.execute(
            "SELECT d.id, k.name, d.partition, d.purpose, w.blob FROM data_keys d "
            "JOIN keyrings k ON k.id = d.keyring_id JOIN wraps w ON w.data_key_id = d.id"
        ).fetchall()
    assert rows
    return [root] + [
        gcm_unwrap(root, blob, context(key_id % 2**64, name, partition or None, ("field", "index")[purpose]))
        for key_id, name, partition, purpose, blob in rows
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_secret_is_logged(home: Path, form: str) -> None:
    with running(initialize(home, log=f"{{level: debug, format: {form}}}")) as sidecar:
        sidecar.run("keyring", "create", "contacts")
        provoke(sidecar)
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
    log = (home / "serve.log").read_bytes()
    assert len(log) > 500
    if form == "json":
        assert all(json.loads(line)["time"] for line in log.splitlines())
    for secret in (CANARY, *keys_of(home)):
        assert not [spelling for spelling in spellings(secret) if spelling in log]
