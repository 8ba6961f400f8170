"""The content of envelope.json, from pyca/cryptography and hmac, never from Keyside's native code."""

from typing import Any

from keyside.testing import envelope

Json = dict[str, Any]

KEYS: list[Json] = [
    {"name": "contacts", "id": 0x0123456789ABCDEF, "key": bytes(range(32)), "keyring": "contacts", "purpose": "field"},
    {"name": "contacts-old", "id": 0x00000000000000FF, "key": b"\x11" * 32, "keyring": "contacts", "purpose": "field"},
    {"name": "user-42", "id": 0xFFFFFFFFFFFFFFFF, "key": b"\x42" * 32, "keyring": "users/42", "purpose": "field"},
    {"name": "index", "id": 0x8000000000000001, "key": b"\xa5" * 32, "keyring": "contacts", "purpose": "index"},
]
KEY = {k["name"]: k for k in KEYS}
NONCE = bytes(range(0x30, 0x3C))
CONTEXT = b"contacts.phone"
PLAIN = b"+49 30 901820"


def keys() -> list[Json]:
    return [
        {"id": f"{k['id']:016x}", "key": k["key"].hex(), "keyring": k["keyring"], "purpose": k["purpose"]} for k in KEYS
    ]


def seals() -> list[Json]:
    cases: list[tuple[str, str, bytes, bytes | None, bytes]] = [
        ("a field with a context", "contacts", NONCE, CONTEXT, PLAIN),
        ("a field without a context", "contacts", NONCE, None, PLAIN),
        ("an empty context is no context", "contacts", NONCE, b"", PLAIN),
        ("an empty plaintext", "contacts", NONCE, CONTEXT, b""),
        ("one byte", "contacts", NONCE, CONTEXT, b"\x00"),
        ("exactly one AES block", "contacts", NONCE, CONTEXT, bytes(range(16))),
        ("one byte more than a block", "contacts", NONCE, CONTEXT, bytes(range(17))),
        ("64 bytes", "contacts", b"\xff" * 12, CONTEXT, bytes(range(64))),
        (
            "300 bytes: bin 16",
            "contacts-old",
            b"\x00" * 12,
            CONTEXT,
            bytes(i % 251 for i in range(300)),
        ),
        ("a plaintext that looks like an envelope", "contacts", NONCE, CONTEXT, b"\xc1\x01" + bytes(36)),
        ("context of 300 bytes", "contacts", NONCE, b"\x7f" * 300, PLAIN),
        ("a partition's key", "user-42", NONCE, b"users.email", "zoë@example.org".encode()),
    ]
    result = []
    for comment, name, nonce, context, plain in cases:
        key = KEY[name]
        sealed = envelope.seal(key["key"], key["id"], nonce, context, plain)
        result.append(
            {
                "comment": comment,
                "key_id": f"{key['id']:016x}",
                "nonce": nonce.hex(),
                "context": None if context is None else context.hex(),
                "plaintext": plain.hex(),
                "envelope": sealed.hex(),
                "text": envelope.to_text(sealed),
            }
        )
    return result


def flipped(sealed: bytes, at: int, bit: int = 0) -> bytes:
    return sealed[:at] + bytes([sealed[at] ^ (1 << bit)]) + sealed[at + 1 :]


def opens() -> list[Json]:
    key = KEY["contacts"]
    good = envelope.seal(key["key"], key["id"], NONCE, CONTEXT, PLAIN)
    empty = envelope.seal(key["key"], key["id"], NONCE, None, b"")
    other = envelope.seal(KEY["user-42"]["key"], KEY["user-42"]["id"], NONCE, CONTEXT, PLAIN)
    index = envelope.seal(KEY["index"]["key"], KEY["index"]["id"], NONCE, CONTEXT, PLAIN)
    old = KEY["contacts-old"]["id"].to_bytes(8, "big")
    bad = "INVALID_CIPHERTEXT"
    cases: list[tuple[str, bytes, str, bytes | None, str]] = [
        ("as sealed", good, "contacts", CONTEXT, "ok"),
        ("empty plaintext, no context", empty, "contacts", None, "ok"),
        ("empty plaintext, empty context", empty, "contacts", b"", "ok"),
        ("a partition's envelope", other, "users/42", CONTEXT, "ok"),
        ("magic flipped", flipped(good, 0), "contacts", CONTEXT, bad),
        ("suite 0x00", good[:1] + b"\x00" + good[2:], "contacts", CONTEXT, bad),
        ("suite 0x02, reserved in version 1", good[:1] + b"\x02" + good[2:] + bytes(12), "contacts", CONTEXT, bad),
        ("suite 0xff", good[:1] + b"\xff" + good[2:], "contacts", CONTEXT, bad),
        ("unknown suite and unknown key", good[:1] + b"\x03" + bytes(8) + good[10:], "contacts", CONTEXT, bad),
        ("data key id flipped to one that does not exist", flipped(good, 9), "contacts", CONTEXT, "UNKNOWN_KEY"),
        ("data key id top bit flipped", flipped(good, 2, 7), "contacts", CONTEXT, "UNKNOWN_KEY"),
        ("data key id of another key of the same scope", good[:2] + old + good[10:], "contacts", CONTEXT, bad),
        ("nonce: first bit", flipped(good, 10), "contacts", CONTEXT, bad),
        ("nonce: last bit", flipped(good, 21, 7), "contacts", CONTEXT, bad),
        ("ciphertext: first bit", flipped(good, 22), "contacts", CONTEXT, bad),
        ("ciphertext: last bit", flipped(good, len(good) - 17, 7), "contacts", CONTEXT, bad),
        ("tag: first bit", flipped(good, len(good) - 16), "contacts", CONTEXT, bad),
        ("tag: last bit", flipped(good, len(good) - 1, 7), "contacts", CONTEXT, bad),
        ("tag of an empty plaintext", flipped(empty, len(empty) - 1), "contacts", None, bad),
        ("context: one bit", good, "contacts", flipped(CONTEXT, 3), bad),
        ("context: missing", good, "contacts", None, bad),
        ("context: longer", good, "contacts", CONTEXT + b"\x00", bad),
        ("context: shorter", good, "contacts", CONTEXT[:-1], bad),
        ("context where none was", empty, "contacts", b"\x00", bad),
        ("header bytes are not the context's beginning", empty, "contacts", empty[:10], bad),
        ("truncated by one byte", good[:-1], "contacts", CONTEXT, bad),
        ("truncated to 38 bytes", good[:38], "contacts", CONTEXT, bad),
        ("truncated to 37 bytes", good[:37], "contacts", CONTEXT, bad),
        ("truncated to the header", good[:10], "contacts", CONTEXT, bad),
        ("truncated inside the header", good[:9], "contacts", CONTEXT, bad),
        ("magic and suite alone", good[:2], "contacts", CONTEXT, bad),
        ("magic alone", good[:1], "contacts", CONTEXT, bad),
        ("empty", b"", "contacts", CONTEXT, bad),
        ("one byte appended", good + b"\x00", "contacts", CONTEXT, bad),
        ("another keyring's envelope", other, "contacts", CONTEXT, bad),
        ("opened in another scope", good, "users/42", CONTEXT, bad),
        ("another partition of the same keyring", other, "users/43", CONTEXT, bad),
        ("names a data key of purpose index", index, "contacts", CONTEXT, bad),
        ("the text form where bytes belong", envelope.to_text(good).encode(), "contacts", CONTEXT, bad),
        ("a plaintext", PLAIN * 4, "contacts", CONTEXT, bad),
    ]
    return [
        {
            "comment": comment,
            "keyring": keyring,
            "context": None if context is None else context.hex(),
            "envelope": sealed.hex(),
            "expect": expect,
        }
        | ({"plaintext": (b"" if sealed is empty else PLAIN).hex()} if expect == "ok" else {})
        for comment, sealed, keyring, context, expect in cases
    ]


def texts() -> list[Json]:
    good: list[tuple[str, str, str]] = [
        ("nothing", "ks1.", ""),
        ("one byte, four bits of the last character unused", "ks1.AA", "00"),
        ("two bytes, two bits unused", "ks1.__8", "ffff"),
        ("three bytes", "ks1.-_-_", "fbffbf"),
        ("alphabet of RFC 4648 section 5", "ks1.wQH-_w", "c101feff"),
    ]
    refused: list[tuple[str, str]] = [
        ("padding", "ks1.AA=="),
        ("padding of one", "ks1.__8="),
        ("length of 1 modulo 4", "ks1.A"),
        ("length of 5", "ks1.AAAAA"),
        ("trailing bits after one byte", "ks1.AB"),
        ("trailing bits after two bytes", "ks1.__9"),
        ("plus: the alphabet of section 4", "ks1.+_-_"),
        ("slash: the alphabet of section 4", "ks1.-/-/"),
        ("space inside", "ks1.AA AA"),
        ("newline at the end", "ks1.AAAA\n"),
        ("newline inside", "ks1.AA\nAA"),
        ("space in front", " ks1.AAAA"),
        ("not ASCII", "ks1.AA\u00c4A"),
        ("a full-width letter", "ks1.AAA\uff21"),
        ("no prefix", "wQH-_w"),
        ("prefix in capitals", "KS1.AAAA"),
        ("another version", "ks2.AAAA"),
        ("prefix without its dot", "ks1AAAA"),
        ("a NUL", "ks1.AAA\u0000"),
        ("empty", ""),
    ]
    return [{"comment": c, "text": t, "expect": "ok", "bytes": b} for c, t, b in good] + [
        {"comment": c, "text": t, "expect": "refused"} for c, t in refused
    ]


def blind_indexes() -> list[Json]:
    key = KEY["index"]["key"]
    cases: list[tuple[str, bytes | None, bytes, int]] = [
        ("default width", b"contacts.email", b"alice@example.org", 128),
        ("narrowest", b"contacts.email", b"alice@example.org", 8),
        ("widest", b"contacts.email", b"alice@example.org", 256),
        ("no context", None, b"alice@example.org", 128),
        ("an empty context is no context", b"", b"alice@example.org", 128),
        ("the border between context and value counts", b"contacts.emaila", b"lice@example.org", 128),
        ("an empty value", b"contacts.email", b"", 128),
        ("nothing at all", None, b"", 128),
        ("values are hashed as sent: case", b"contacts.email", b"Alice@example.org", 128),
        ("a long value", b"contacts.note", b"\x00\xff" * 100, 128),
    ]
    return [
        {
            "comment": comment,
            "key": key.hex(),
            "context": None if context is None else context.hex(),
            "value": value.hex(),
            "index_bits": bits,
            "index": envelope.blind_index(key, context, value, bits).hex(),
        }
        for comment, context, value, bits in cases
    ]


def document() -> Json:
    return {
        "specification": "docs/spec/envelope.md, version 1",
        "provenance": "made by tests/vectors/generate.py with pyca/cryptography (AES-256-GCM) and Python's hmac; "
        "expectations were written by hand from the specification",
        "notes": [
            "Byte strings are hex; a data key id is the hex of its 8 bytes, big-endian; context null means none.",
            "seal: with this key, nonce and context the plaintext gives exactly this envelope and text.",
            "open: against the table `keys`; expect is ok, or the item's error code. One failure a vector.",
            "text: reading a text form; expect is ok or refused.",
        ],
        "keys": keys(),
        "seal": seals(),
        "open": opens(),
        "text": texts(),
        "blind_index": blind_indexes(),
    }
