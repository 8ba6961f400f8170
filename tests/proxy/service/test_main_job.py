"""What a person does first: init, serve, a keyring, a value in and out; and what curl gets."""

import base64
import json
import re
import shlex
import subprocess

import pytest

from tests.proxy.service.sidecar import KEYSIDE, Sidecar, command, environment, keyside

ENCRYPT = "http://localhost/v1/encrypt"
CONTEXT = base64.b64encode(b"users.email").decode()


@pytest.mark.parametrize("value", [b"secret", b"", b"\x00\xff two line ends stay \n\n", "schön".encode()])
def test_a_value_comes_out_as_it_went_in(sidecar: Sidecar, value: bytes) -> None:
    envelope = sidecar.run("encrypt", "users/42", "--context", "users.email", stdin=value)
    assert re.fullmatch(rb"ks1\.[A-Za-z0-9_-]+\n", envelope)
    assert sidecar.run("decrypt", "users/42", "--context", "users.email", stdin=envelope) == value


def test_the_pipeline_of_the_readme(sidecar: Sidecar) -> None:
    name = shlex.join(KEYSIDE)
    line = (
        f"printf secret | {name} encrypt users/42 --context users.email | {name} decrypt users/42 --context users.email"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", line], env=environment(KEYSIDE_CONFIG=str(sidecar.config)), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"secret", b"")


def test_the_sidecar_is_found_by_option_variable_and_working_folder(sidecar: Sidecar) -> None:
    by_option = keyside("keyring", "list", "--json", "--config", sidecar.config)
    by_variable = keyside("keyring", "list", "--json", KEYSIDE_CONFIG=str(sidecar.config))
    by_folder = keyside("keyring", "list", "--json", cwd=sidecar.home)
    assert by_option.stdout == by_variable.stdout == by_folder.stdout
    assert [one["name"] for one in json.loads(by_option.stdout)] == ["contacts", "users"]


def test_curl_on_the_data_socket_as_in_the_readme(sidecar: Sidecar) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--unix-socket", sidecar.data, ENCRYPT, "-d", '{"keyring":"users/42","items":["aGVsbG8="]}'],
        capture_output=True,
        check=True,
    )
    (envelope,) = json.loads(done.stdout)["items"]
    assert envelope.startswith("ks1.")
    assert sidecar.run("decrypt", "users/42", stdin=envelope.encode()) == b"hello"


def test_json_carries_nulls_contexts_and_failed_items(sidecar: Sidecar) -> None:
    status, made = sidecar.post("/v1/encrypt", {"keyring": "contacts", "context": CONTEXT, "items": ["YQ==", None, ""]})
    assert status == 200
    first, nothing, empty = made["items"]
    assert nothing is None
    broken = first[:-4] + ("AAAA" if first[-4:] != "AAAA" else "BBBB")
    status, read = sidecar.post(
        "/v1/decrypt",
        {"keyring": "contacts", "context": [CONTEXT] * 5, "items": [first, nothing, empty, broken, "not an envelope"]},
    )
    refused = {"error": {"code": 20, "name": "INVALID_CIPHERTEXT"}}
    assert (status, read) == (200, {"items": ["YQ==", None, "", refused, refused]})


def test_blind_indexes_and_reencryption_over_http(sidecar: Sidecar) -> None:
    _, one = sidecar.post(
        "/v1/blind-index", {"keyring": "users", "context": CONTEXT, "items": ["YQ==", "YQ==", "Yg=="]}
    )
    first, same, other = (base64.b64decode(item) for item in one["items"])
    assert first == same != other
    assert len(first) == 16
    _, made = sidecar.post("/v1/encrypt", {"keyring": "users/9", "items": ["YQ=="]})
    assert sidecar.post("/v1/reencrypt", {"keyring": "users/9", "items": made["items"]}) == (200, made)


@pytest.mark.parametrize(
    ("path", "body", "status", "name"),
    [
        ("/v1/encrypt", {"keyring": "nobody", "items": []}, 404, "UNKNOWN_KEYRING"),
        ("/v1/encrypt", {"keyring": "users", "items": ["YQ=="]}, 404, "UNKNOWN_KEYRING"),
        ("/v1/encrypt", {"keyring": "contacts", "items": ["%%%"]}, 400, "BAD_REQUEST"),
        ("/v1/encrypt", {"keyring": "contacts", "context": [None], "items": []}, 400, "BAD_REQUEST"),
        ("/v1/encrypt", b"not json", 400, "BAD_REQUEST"),
        ("/v1/encrypt", b"[" * 100_000, 400, "BAD_REQUEST"),
        ("/v1/nothing", {}, 404, "BAD_REQUEST"),
    ],
)
def test_refusals_over_http(sidecar: Sidecar, path: str, body: object, status: int, name: str) -> None:
    got, answer = sidecar.post(path, body)
    assert (got, answer["error"]["name"]) == (status, name)


def test_a_connection_serves_many_http_requests(sidecar: Sidecar) -> None:
    done = subprocess.run(
        ["curl", "-sSv", "--unix-socket", sidecar.data, "-d", '{"keyring":"contacts","items":[null]}', *[ENCRYPT] * 3],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b'{"items": [null]}' * 3
    assert done.stderr.count(b"Re-using existing connection") == 2


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "word"),
    [
        (["encrypt", "nobody"], b"x", 65, b"UNKNOWN_KEYRING"),
        (["decrypt", "contacts"], b"ks1.wRE", 65, b"INVALID_CIPHERTEXT"),
        (["decrypt", "contacts"], b"garbage", 65, b"ks1."),
        (["decrypt", "contacts"], b"\xff\xfe", 65, b"ks1."),
        (["keyring", "show", "nobody"], b"", 65, b"no such keyring"),
        (["keyring", "create", "users"], b"", 73, b"users"),
        (["keyring", "create", "../etc"], b"", 65, b"name"),
        (["keyring", "create", "odd", "--index-bits", "12"], b"", 65, b"multiple of 8"),
        (["no-such-command"], b"", 2, b"No such command"),
    ],
)
def test_a_failing_command_says_one_line_and_exits_with_its_code(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, arguments: list[str], stdin: bytes, code: int, word: bytes
) -> None:
    monkeypatch.setenv("KEYSIDE_CONFIG", str(sidecar.config))
    done = command(*arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert b"Traceback" not in done.stderr
    assert code == 2 or done.stderr.count(b"\n") == 1


def test_keyrings_are_shown_to_people_and_to_programs(sidecar: Sidecar) -> None:
    shown = json.loads(sidecar.run("keyring", "show", "contacts", "--json"))
    assert (shown["partitioned"], shown["index_bits"], shown["suite"]) == (False, 64, 1)
    assert b"contacts (unpartitioned; blind indexes of 64 bits" in sidecar.run("keyring", "show", "contacts")
    table = sidecar.run("keyring", "list")
    assert all(word in table for word in (b"contacts", b"users", b"index bits"))
