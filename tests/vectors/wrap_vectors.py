"""The content of wrap.json, from the plain-Python twin, never from `providers`."""

import base64
import hashlib
from typing import Any

from tests.twin import wrap

Json = dict[str, Any]

ROOT = bytes(range(32))
OTHER_ROOT = b"\x99" * 32
NONCE = bytes(range(0x30, 0x3C))
DATA_KEY = bytes(range(0xA0, 0xC0))
USER_42: Json = {"data_key_id": "0123456789abcdef", "keyring": "users", "partition": "42", "purpose": "field"}
PASSPHRASE = "correct horse battery staple"
SALT = b"\x5a" * 32


def authenticated(case: Json) -> bytes:
    return wrap.context(int(case["data_key_id"], 16), case["keyring"], case["partition"], case["purpose"])


def contexts() -> list[Json]:
    cases: list[tuple[str, Json]] = [
        ("a partition's field key", USER_42),
        ("no partition", {**USER_42, "partition": None}),
        ("an index key", {**USER_42, "purpose": "index"}),
        ("the longest names", {**USER_42, "keyring": "k" * 64, "partition": "p" * 128}),
        ("the shortest, and id 0", {**USER_42, "data_key_id": "0" * 16, "keyring": "k", "partition": None}),
        ("the highest id", {**USER_42, "data_key_id": "f" * 16}),
        ("a partition that is not ASCII", {**USER_42, "partition": "zoë/Ωμέγα"}),
        ("a boundary between keyring and partition, here", {**USER_42, "keyring": "user", "partition": "s42"}),
        ("and there", {**USER_42, "keyring": "users", "partition": "42"}),
        ("a partition that looks like none", {**USER_42, "partition": "\x00"}),
    ]
    return [
        {
            "comment": comment,
            **case,
            "authenticated": authenticated(case).hex(),
            "strings": {
                "keyside:version": "1",
                "keyside:purpose": case["purpose"],
                "keyside:data-key": case["data_key_id"],
                "keyside:keyring": case["keyring"],
            }
            | ({} if case["partition"] is None else {"keyside:partition": case["partition"]}),
        }
        for comment, case in cases
    ]


def unwraps() -> list[Json]:
    bound = authenticated(USER_42)
    gcm = wrap.gcm_wrap(ROOT, NONCE, DATA_KEY, bound)
    kwp = wrap.kwp_wrap(ROOT, DATA_KEY, bound)
    result: list[Json] = []

    def add(comment: str, mechanism: str, blob: bytes, expect: str = "TAMPERED", **changed: Any) -> None:
        case = {"comment": comment, "kek": wrap.kek(ROOT), "mechanism": mechanism, **USER_42, **changed}
        case |= {"blob": blob.hex(), "expect": expect}
        result.append(case | ({"key": DATA_KEY.hex()} if expect == "ok" else {}))

    for name, blob in ((wrap.GCM_NAME, gcm), (wrap.KWP_NAME, kwp)):
        add("good", name, blob, "ok")
        add("another data key id", name, blob, data_key_id="0123456789abcdee")
        add("another keyring", name, blob, keyring="userz")
        add("another partition", name, blob, partition="43")
        add("no partition", name, blob, partition=None)
        add("another purpose", name, blob, purpose="index")
        add("the first bit flipped", name, bytes([blob[0] ^ 0x80]) + blob[1:])
        add("the last bit flipped", name, blob[:-1] + bytes([blob[-1] ^ 1]))
        add("truncated by a byte", name, blob[:-1])
        add("truncated to a block", name, blob[:16])
        add("empty", name, b"")
        add("a byte too many", name, blob + b"\x00")
        add("an unknown root key", name, blob, "NOT_FOUND", kek=wrap.kek(OTHER_ROOT))
    add("one mechanism's blob under the other's name", wrap.KWP_NAME, gcm)
    add("and the other way round", wrap.GCM_NAME, kwp)
    add("an unknown mechanism", "AES-CBC", gcm, "FOREIGN_WRAP")
    add("a payload without a context's digest", wrap.KWP_NAME, bare_kwp())
    return result


def bare_kwp() -> bytes:
    return wrap.kwp_seal(wrap.wrapping_key(ROOT, wrap.KWP_NAME), DATA_KEY)


def root_key_files() -> list[Json]:
    good = wrap.root_key_file(ROOT)
    header, key, name, _ = good.split("\n")
    refused = {
        "empty": "",
        "another first line": good.replace("-v1", "-v2"),
        "no name": f"{header}\n{key}\n",
        "no line end at the end": good[:-1],
        "something after the end": good + "x\n",
        "carriage returns": good.replace("\n", "\r\n"),
        "another key's name": f"{header}\n{key}\n{wrap.kek(OTHER_ROOT)}\n",
        "one character of the key changed": f"{header}\nB{key[1:]}\n{name}\n",
        "31 bytes": f"{header}\n{base64.b64encode(ROOT[:31]).decode()}\n{name}\n",
        "not base64": f"{header}\n{'!' * 44}\n{name}\n",
        "non-zero trailing bits": f"{header}\n{key[:-2]}9=\n{name}\n",
        "the bytes themselves": ROOT.decode("latin-1"),
    }
    return [{"comment": "good", "file": good, "expect": "ok", "root": ROOT.hex(), "kek": name}] + [
        {"comment": comment, "file": text, "expect": "refused"} for comment, text in refused.items()
    ]


def passphrase_key_files() -> list[Json]:
    root = hashlib.scrypt(PASSPHRASE.encode(), salt=SALT, n=1 << 14, r=8, p=1, dklen=32, maxmem=1 << 26)
    lines = ["keyside-passphrase-key-v1", "scrypt n=16384 r=8 p=1", base64.b64encode(SALT).decode(), wrap.kek(root), ""]
    good = "\n".join(lines)
    ok: Json = {"comment": "good", "passphrase": PASSPHRASE, "file": good, "expect": "ok", "root": root.hex()}
    refused = {
        "a cost too low": good.replace("16384", "8192"),
        "a cost that is no power of two": good.replace("16384", "16385"),
        "more memory than is allowed": good.replace("n=16384 r=8", "n=1048576 r=16"),
        "no name": "\n".join(lines[:3]) + "\n",
        "a salt cut short": good.replace("Wlpa", "", 1),
        "another salt": good.replace("Wlpa", "Wlpb", 1),
        "another function": good.replace("scrypt", "pbkdf2"),
    }
    return [
        ok,
        {**ok, "comment": "another passphrase", "passphrase": PASSPHRASE + "r", "expect": "refused"},
        *({**ok, "comment": comment, "file": text, "expect": "refused"} for comment, text in refused.items()),
    ]


def document() -> Json:
    return {
        "specification": "docs/spec/wrap.md, version 1",
        "provenance": "made by tests/vectors/generate.py with Python's hmac and hashlib, pyca/cryptography's AES-GCM "
        "and a key wrap written out from RFC 5649; expectations were written by hand from the specification",
        "notes": [
            "Byte strings are hex; a data key id is the hex of its 8 bytes, big-endian; partition null means none.",
            "unwrap: with the LOCAL root key `root`; expect is ok, or the refusal. One failure a vector.",
            "files: expect is ok or refused.",
        ],
        "root": ROOT.hex(),
        "contexts": contexts(),
        "unwrap": unwraps(),
        "root_key_files": root_key_files(),
        "passphrase_key_files": passphrase_key_files(),
    }
