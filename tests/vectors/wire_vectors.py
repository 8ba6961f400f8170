"""The content of wire.json: frames and expectations written by hand. generate.py checks them against the twin."""

from typing import Any

Json = dict[str, Any]

# A body is hex pieces with spaces; `c0*3` repeats a piece. `framed` puts the length in front.


def unfold(pieces: str) -> bytes:
    """The bytes of the notation that wire.json uses: hex pieces, each with an optional *count."""
    out = bytearray()
    for piece in pieces.split():
        digits, _, count = piece.partition("*")
        out += bytes.fromhex(digits) * int(count or 1)
    return bytes(out)


def framed(body: str) -> str:
    return f"{len(unfold(body)):08x} {body}"


def text(value: str) -> str:
    return value.encode().hex()


K = "a8" + text("contacts")  # fixstr
USER = "a8" + text("users/42")
CTX = "c403" + text("a.b")


def request(number: int, op: int, keyring: str, context: Any, items: list[str | None]) -> Json:
    return {"id": number, "op": op, "keyring": keyring, "context": context, "items": items}


def accepted() -> list[Json]:
    one = request(7, 1, "contacts", "612e62", ["68656c6c6f"])
    hello = request(0, 0, "", None, [])
    a, hello_item = "61", "c405" + text("hello")
    cases: list[tuple[str, str, Json]] = [
        ("HELLO in the shortest form", "95 00 00 a0 c0 90", hello),
        ("HELLO looks at nothing but types", f"95 05 00 {K} 92 c0 c0 91 c0", request(5, 0, "", None, [])),
        ("ENCRYPT one value", f"95 07 01 {K} {CTX} 91 {hello_item}", one),
        ("DECRYPT in a partition", f"95 07 02 {USER} c0 91 c401 00", request(7, 2, "users/42", None, ["00"])),
        ("BLIND_INDEX", f"95 07 03 {K} {CTX} 91 c401 61", request(7, 3, "contacts", "612e62", [a])),
        ("REENCRYPT", f"95 07 04 {K} {CTX} 91 c401 61", request(7, 4, "contacts", "612e62", [a])),
        ("no items", f"95 07 01 {K} c0 90", request(7, 1, "contacts", None, [])),
        ("nil items", f"95 07 01 {K} c0 93 c0 c401 61 c0", request(7, 1, "contacts", None, [None, a, None])),
        ("an empty bin is not nil", f"95 07 01 {K} c0 91 c400", request(7, 1, "contacts", None, [""])),
        ("an empty str is not nil", f"95 07 01 {K} c0 91 a0", request(7, 1, "contacts", None, [""])),
        ("empty context", f"95 07 01 {K} c400 91 c401 61", request(7, 1, "contacts", "", [a])),
        ("context as fixstr", f"95 07 01 {K} a3 612e62 91 {hello_item}", one),
        ("context as str 8", f"95 07 01 {K} d903 612e62 91 {hello_item}", one),
        ("context as str 16", f"95 07 01 {K} da0003 612e62 91 {hello_item}", one),
        ("context as str 32", f"95 07 01 {K} db00000003 612e62 91 {hello_item}", one),
        ("context as bin 16", f"95 07 01 {K} c50003 612e62 91 {hello_item}", one),
        ("context as bin 32", f"95 07 01 {K} c600000003 612e62 91 {hello_item}", one),
        (
            "a context an item: nil, bin, str, empty",
            f"95 07 01 {K} 94 c0 c401 78 a1 79 c400 94 c401 61 c401 61 c0 c401 61",
            request(7, 1, "contacts", [None, "78", "79", ""], [a, a, None, a]),
        ),
        ("contexts in array 16", f"95 07 01 {K} dc0001 a1 78 91 a1 61", request(7, 1, "contacts", ["78"], [a])),
        ("contexts in array 32", f"95 07 01 {K} dd00000001 a1 78 91 a1 61", request(7, 1, "contacts", ["78"], [a])),
        ("no contexts for no items", f"95 07 01 {K} 90 90", request(7, 1, "contacts", [], [])),
        ("item as fixstr", f"95 07 01 {K} {CTX} 91 a5 68656c6c6f", one),
        ("item as str 8", f"95 07 01 {K} {CTX} 91 d905 68656c6c6f", one),
        ("item as str 16", f"95 07 01 {K} {CTX} 91 da0005 68656c6c6f", one),
        ("item as str 32", f"95 07 01 {K} {CTX} 91 db00000005 68656c6c6f", one),
        ("item as bin 16", f"95 07 01 {K} {CTX} 91 c50005 68656c6c6f", one),
        ("item as bin 32", f"95 07 01 {K} {CTX} 91 c600000005 68656c6c6f", one),
        (
            "a str item of invalid UTF-8 counts as its bytes",
            f"95 07 01 {K} c0 91 a2 fffe",
            request(7, 1, "contacts", None, ["fffe"]),
        ),
        ("a str context of invalid UTF-8 too", f"95 07 01 {K} a1 ff 91 a1 61", request(7, 1, "contacts", "ff", [a])),
        ("items in array 16", f"95 07 01 {K} {CTX} dc0001 {hello_item}", one),
        ("items in array 32", f"95 07 01 {K} {CTX} dd00000001 {hello_item}", one),
        ("the request in array 16", f"dc0005 07 01 {K} {CTX} 91 {hello_item}", one),
        ("the request in array 32", f"dd00000005 07 01 {K} {CTX} 91 {hello_item}", one),
        ("id as uint 8", f"95 cc07 01 {K} {CTX} 91 {hello_item}", one),
        ("id as uint 16", f"95 cd0007 01 {K} {CTX} 91 {hello_item}", one),
        ("id as uint 32", f"95 ce00000007 01 {K} {CTX} 91 {hello_item}", one),
        ("id as uint 64", f"95 cf0000000000000007 01 {K} {CTX} 91 {hello_item}", one),
        ("the greatest id, uint 32", f"95 ceffffffff 01 {K} c0 90", request(2**32 - 1, 1, "contacts", None, [])),
        (
            "the greatest id, uint 64",
            f"95 cf00000000ffffffff 01 {K} c0 90",
            request(2**32 - 1, 1, "contacts", None, []),
        ),
        ("id 127", f"95 7f 01 {K} c0 90", request(127, 1, "contacts", None, [])),
        ("id 128", f"95 cc80 01 {K} c0 90", request(128, 1, "contacts", None, [])),
        ("op as uint 8", f"95 07 cc01 {K} {CTX} 91 {hello_item}", one),
        ("op as uint 16", f"95 07 cd0001 {K} {CTX} 91 {hello_item}", one),
        ("op as uint 32", f"95 07 ce00000001 {K} {CTX} 91 {hello_item}", one),
        ("op as uint 64", f"95 07 cf0000000000000001 {K} {CTX} 91 {hello_item}", one),
        ("keyring as str 8", f"95 07 01 d908 {text('contacts')} {CTX} 91 {hello_item}", one),
        ("keyring as str 16", f"95 07 01 da0008 {text('contacts')} {CTX} 91 {hello_item}", one),
        ("keyring as str 32", f"95 07 01 db00000008 {text('contacts')} {CTX} 91 {hello_item}", one),
        ("keyring of one character", "95 07 01 a1 39 c0 90", request(7, 1, "9", None, [])),
        (
            "keyring of every kind of character",
            f"95 07 01 a7 {text('A0_z.-Z')} c0 90",
            request(7, 1, "A0_z.-Z", None, []),
        ),
        ("keyring of 64 characters", "95 07 01 d940 61*64 c0 90", request(7, 1, "a" * 64, None, [])),
        ("partition of 128 bytes", "95 07 01 d982 61 2f 62*128 c0 90", request(7, 1, "a/" + "b" * 128, None, [])),
        (
            "name and partition at their longest",
            "95 07 01 d9c1 61*64 2f 62*128 c0 90",
            request(7, 1, "a" * 64 + "/" + "b" * 128, None, []),
        ),
        (
            "partition with a slash, a space and UTF-8",
            f"95 07 01 a8 {text('a/ü / 9')} c0 90",
            request(7, 1, "a/ü / 9", None, []),
        ),
        ("partition of a slash", "95 07 01 a3 612f2f c0 90", request(7, 1, "a//", None, [])),
        ("partition with a four-byte character", f"95 07 01 a6 {text('a/😀')} c0 90", request(7, 1, "a/😀", None, [])),
        ("context of 65,535 bytes", f"95 07 01 {K} c5ffff 63*65535 90", request(7, 1, "contacts", "63*65535", [])),
        ("16 items need array 16", f"95 07 01 {K} c0 dc0010 c0*16", request(7, 1, "contacts", None, [None] * 16)),
    ]
    return [{"comment": c, "frame": framed(body), "expect": "ok", "request": r} for c, body, r in cases]


def untrusted_shapes() -> list[tuple[str, str, int]]:
    """(comment, frame, id of the answer): BAD_REQUEST, then closed."""
    head, tail = f"95 07 01 {K} c0", f"95 07 01 {K}"
    bodies: list[tuple[str, str, int]] = [
        ("an array of 4", f"94 07 01 {K} c0", 0),
        ("an array of 6", f"96 07 01 {K} c0 90 c0", 0),
        ("an empty array", "90", 0),
        ("not an array: nil", "c0", 0),
        ("not an array: the reserved byte 0xc1", "c1", 0),
        ("not an array: a map", "80", 0),
        ("not an array: a bin", "c400", 0),
        ("an array head cut off", "dc00", 0),
        ("a response", "93 07 00 90", 0),
        ("id: negative fixint", f"95 ff 01 {K} c0 90", 0),
        ("id: int 8", f"95 d007 01 {K} c0 90", 0),
        ("id: int 64", f"95 d30000000000000007 01 {K} c0 90", 0),
        ("id: nil", f"95 c0 01 {K} c0 90", 0),
        ("id: float 32", f"95 ca40e00000 01 {K} c0 90", 0),
        ("id: float 64", f"95 cb401c000000000000 01 {K} c0 90", 0),
        ("id: true", f"95 c3 01 {K} c0 90", 0),
        ("id: str", f"95 a137 01 {K} c0 90", 0),
        ("id: 2^32", f"95 cf0000000100000000 01 {K} c0 90", 0),
        ("id: 2^64 - 1", f"95 cfffffffffffffffff 01 {K} c0 90", 0),
        ("id: cut off", "95 ce0000", 0),
        ("op: negative", f"95 07 ff {K} c0 90", 7),
        ("op: float", f"95 07 ca3f800000 {K} c0 90", 7),
        ("op: str", f"95 07 a131 {K} c0 90", 7),
        ("op: missing", "95 07", 7),
        ("op: cut off", "95 07 cf00", 7),
        ("keyring: bin", f"95 07 01 c408 {text('contacts')} c0 90", 7),
        ("keyring: nil", "95 07 01 c0 c0 90", 7),
        ("keyring: unsigned integer", "95 07 01 01 c0 90", 7),
        ("keyring: cut off", "95 07 01 a8 636f", 7),
        ("keyring: a length that runs past the frame", "95 07 01 dbffffffff 61", 7),
        ("keyring: a length that overflows 32 bits with its head", "95 07 01 dbfffffffb c0 90", 7),
        ("context: an integer", f"{tail} 01 90", 7),
        ("context: a map", f"{tail} 80 90", 7),
        ("context: true", f"{tail} c3 90", 7),
        ("context: an extension", f"{tail} d40161 90", 7),
        ("context: nested arrays", f"{tail} 91 91 c0 91 c0", 7),
        ("context: an integer in the array", f"{tail} 91 01 91 c0", 7),
        ("context: an array that lies about its count", f"{tail} 92 c0", 7),
        ("context: 2^32 - 1 elements in a tiny frame", f"{tail} ddffffffff c0 90", 7),
        ("context: bin 32 of 2^32 - 1 bytes", f"{tail} c6ffffffff 90", 7),
        ("items: nil", f"{head} c0", 7),
        ("items: a bin", f"{head} c400", 7),
        ("items: a map", f"{head} 81 c0 c0", 7),
        ("items: missing", f"{head}", 7),
        ("items: head cut off", f"{head} dd0000", 7),
        ("items: fewer than announced", f"{head} 93 c0 c0", 7),
        ("items: more than announced, so bytes trail", f"{head} 91 c0 c0", 7),
        ("items: 2^32 - 1 announced in a tiny frame", f"{head} ddffffffff c0", 7),
        ("items: 65,535 announced in a tiny frame", f"{head} dcffff", 7),
        ("item: positive integer", f"{head} 91 07", 7),
        ("item: uint 64", f"{head} 91 cf0000000000000000", 7),
        ("item: negative integer", f"{head} 91 e0", 7),
        ("item: int 16", f"{head} 91 d1ffff", 7),
        ("item: float 64", f"{head} 91 cb0000000000000000", 7),
        ("item: false", f"{head} 91 c2", 7),
        ("item: true", f"{head} 91 c3", 7),
        ("item: the reserved byte 0xc1", f"{head} 91 c1", 7),
        ("item: nested array", f"{head} 91 91 c0", 7),
        ("item: array 32", f"{head} 91 dd00000000", 7),
        ("item: map", f"{head} 91 80", 7),
        ("item: map 32 of 2^32 - 1 pairs", f"{head} 91 dfffffffff", 7),
        ("item: fixext", f"{head} 91 d80161*16", 7),
        ("item: ext 8", f"{head} 91 c70001", 7),
        ("item: ext 32 of 2^32 - 1 bytes", f"{head} 91 c9ffffffff01", 7),
        ("item: a timestamp", f"{head} 91 d6ff00000000", 7),
        ("item: bin 8 cut off", f"{head} 91 c405 6865", 7),
        ("item: bin 8 without its length", f"{head} 91 c4", 7),
        ("item: bin 16 without half its length", f"{head} 91 c500", 7),
        ("item: bin 32 one byte longer than the frame", f"{head} 91 c600000002 61", 7),
        ("item: bin 32 of 2^31 bytes", f"{head} 91 c680000000 61", 7),
        ("item: bin 32 whose end overflows 32 bits", f"{head} 91 c6fffffff0 61", 7),
        ("item: str 32 whose end overflows 32 bits", f"{head} 91 dbffffffff 61", 7),
        ("a thousand nested arrays", f"{head} 91*1000 c0", 7),
        ("ten thousand nested maps", "81*10000 c0", 0),
        ("trailing nil", f"{head} 90 c0", 7),
        ("a second request in the same frame", f"{head} 90 {head} 90", 7),
        ("trailing bytes after a bad value", f"95 07 63 {K} c0 90 00", 7),
        ("HELLO with a nested item", "95 07 00 a0 c0 91 91 c0", 7),
        ("HELLO with trailing bytes", "95 07 00 a0 c0 90 00", 7),
    ]
    frames = [(comment, framed(body), number) for comment, body, number in bodies]
    return [
        *frames,
        ("N is 0", "00000000", 0),
        ("N is one more than max_frame", "00800001", 0),
        ("N is the greatest that begins like a frame", "0fffffff", 0),
    ]


def bad_values() -> list[tuple[str, str]]:
    """(comment, body): BAD_REQUEST with id 7, and the connection stays."""
    return [
        ("op 5", f"95 07 05 {K} c0 90"),
        ("op 127", f"95 07 7f {K} c0 90"),
        ("op 256 is not op 0", f"95 07 cd0100 {K} c0 90"),
        ("op 2^32 + 1 is not op 1", f"95 07 cf0000000100000001 {K} c0 90"),
        ("op 2^64 - 1", f"95 07 cfffffffffffffffff {K} c0 90"),
        ("keyring: empty", "95 07 01 a0 c0 90"),
        ("keyring: 65 characters", "95 07 01 d941 61*65 c0 90"),
        ("keyring: 65 characters before the slash", "95 07 01 d943 61*65 2f 62 c0 90"),
        ("keyring: begins with a dot", f"95 07 01 a2 {text('.a')} c0 90"),
        ("keyring: begins with a dash", f"95 07 01 a2 {text('-a')} c0 90"),
        ("keyring: begins with an underscore", f"95 07 01 a2 {text('_a')} c0 90"),
        ("keyring: a space", f"95 07 01 a3 {text('a b')} c0 90"),
        ("keyring: a glob", f"95 07 01 a2 {text('a*')} c0 90"),
        ("keyring: a NUL", "95 07 01 a2 6100 c0 90"),
        ("keyring: a newline at the end", "95 07 01 a2 610a c0 90"),
        ("keyring: not ASCII", f"95 07 01 a3 {text('aü')} c0 90"),
        ("keyring: a slash in front", f"95 07 01 a2 {text('/a')} c0 90"),
        ("partition: empty", f"95 07 01 a2 {text('a/')} c0 90"),
        ("partition: 129 bytes", "95 07 01 d983 61 2f 62*129 c0 90"),
        ("partition: 65 characters of 2 bytes", "95 07 01 d984 61 2f c3bc*65 c0 90"),
        ("partition: a NUL", "95 07 01 a3 612f00 c0 90"),
        ("partition: U+001F", "95 07 01 a3 612f1f c0 90"),
        ("partition: U+007F", "95 07 01 a3 612f7f c0 90"),
        ("partition: a newline at the end", "95 07 01 a4 612f620a c0 90"),
        ("partition: a lone continuation byte", "95 07 01 a3 612f80 c0 90"),
        ("partition: a character cut off", "95 07 01 a3 612fc3 c0 90"),
        ("partition: an overlong slash", "95 07 01 a4 612fc0af c0 90"),
        ("partition: an overlong three-byte form", "95 07 01 a5 612fe080af c0 90"),
        ("partition: a surrogate", "95 07 01 a5 612feda080 c0 90"),
        ("partition: beyond U+10FFFF", "95 07 01 a6 612ff4908080 c0 90"),
        ("partition: byte 0xff", "95 07 01 a3 612fff c0 90"),
        ("keyring of 65,536 bytes", "95 07 01 db00010000 61*65536 c0 90"),
        ("context of 65,536 bytes", f"95 07 01 {K} c600010000 63*65536 90"),
        ("context of an item of 65,536 bytes", f"95 07 01 {K} 91 c600010000 63*65536 91 c0"),
        ("fewer contexts than items", f"95 07 01 {K} 91 c0 92 c0 c0"),
        ("more contexts than items", f"95 07 01 {K} 92 c0 c0 91 c0"),
        ("a context for no items", f"95 07 01 {K} 91 c0 90"),
        ("no contexts for an item", f"95 07 01 {K} 90 91 c0"),
        ("131,073 items", f"95 07 01 {K} c0 dd00020001 c0*131073"),
    ]


def refused() -> list[Json]:
    closing = [(comment, frame, True, number) for comment, frame, number in untrusted_shapes()]
    staying = [(comment, framed(body), False, 7) for comment, body in bad_values()]
    return [
        {"comment": comment, "frame": frame, "expect": "BAD_REQUEST", "closes": closes, "id": number}
        for comment, frame, closes, number in closing + staying
    ]


def responses() -> list[Json]:
    def ok(comment: str, body: str, number: int, status: int, items: list[str | int | None]) -> Json:
        answer = {"id": number, "status": status, "items": items}
        return {"comment": comment, "frame": framed(body), "expect": "ok", "response": answer}

    def failed(comment: str, body: str, number: int, status: int, message: str) -> Json:
        answer = {"id": number, "status": status, "message": message}
        return {"comment": comment, "frame": framed(body), "expect": "ok", "response": answer}

    good = [
        ok("no items", "93 07 00 90", 7, 0, []),
        ok("one item", "93 07 00 91 c401 61", 7, 0, ["61"]),
        ok("a NULL stays NULL", "93 07 00 92 c0 c400", 7, 0, [None, ""]),
        ok("bin 16", "93 07 00 91 c50100 61*256", 7, 0, ["61*256"]),
        ok("bin 32", "93 07 00 91 c600010000 61*65536", 7, 0, ["61*65536"]),
        ok("16 items", "93 07 00 dc0010 c0*16", 7, 0, [None] * 16),
        ok("the greatest id", "93 ceffffffff 00 90", 2**32 - 1, 0, []),
        ok("one failed", "93 07 01 93 c401 61 14 c0", 7, 1, ["61", 20, None]),
        ok("all failed", "93 07 01 92 13 15", 7, 1, [19, 21]),
        ok(
            "HELLO",
            f"93 00 00 94 c40d {text('keyside/0.1.0')} c401 31 c407 {text('8388608')} c406 {text('131072')}",
            0,
            0,
            [text("keyside/0.1.0"), "31", text("8388608"), text("131072")],
        ),
        failed("a whole request failed", f"93 07 11 a6 {text('denied')}", 7, 17, "denied"),
        failed("a message of 32 bytes", "93 07 18 d920 61*32", 7, 24, "a" * 32),
        failed("a message that is not ASCII", f"93 07 19 a2 {text('ü')}", 7, 25, "ü"),
        failed("an empty message", "93 00 10 a0", 0, 16, ""),
    ]
    longer = [
        ok("id and status as uint 64", "93 cf0000000000000007 cf0000000000000000 90", 7, 0, []),
        ok("items in array 32", "93 07 00 dd00000001 c401 61", 7, 0, ["61"]),
        ok("bin 32 for a short value", "93 07 00 91 c600000001 61", 7, 0, ["61"]),
        ok("a code as uint 16", "93 07 01 91 cd0014", 7, 1, [20]),
        failed("a short message as str 32", "93 07 11 db00000001 61", 7, 17, "a"),
    ]
    nonsense = [
        ("an array of 2", "92 07 00"),
        ("an array of 4", "94 07 00 90 c0"),
        ("a map", "83 07 00 90 c0 c0 c0"),
        ("a negative id", "93 ff 00 90"),
        ("status 2", "93 07 02 90"),
        ("status 15", "93 07 0f 90"),
        ("status as bin", "93 07 c400 90"),
        ("a code in a response of status 0", "93 07 00 91 14"),
        ("a nested array", "93 07 00 91 90"),
        ("a float", "93 07 01 91 ca00000000"),
        ("a negative code", "93 07 01 91 ff"),
        ("a message in the place of items", "93 07 00 a161"),
        ("items in the place of a message", "93 07 11 90"),
        ("trailing bytes", "93 07 00 90 c0"),
        ("cut off", "93 07 00 92 c0"),
        ("2^32 - 1 items in a tiny frame", "93 07 00 ddffffffff"),
        ("an extension", "93 07 00 91 d40161"),
    ]
    return (
        [case | {"shortest": True} for case in good]
        + [case | {"shortest": False} for case in longer]
        + [{"comment": comment, "frame": framed(body), "expect": "refused"} for comment, body in nonsense]
    )


def first_bytes() -> list[Json]:
    kinds = {"00": "frames", "0f": "frames", "10": "none", "16": "none", "2f": "none", "30": "none", "40": "none"}
    kinds |= {"41": "http", "50": "http", "5a": "http", "5b": "none", "60": "none", "61": "http", "7a": "http"}
    kinds |= {"7b": "none", "7f": "none", "80": "none", "95": "none", "c1": "none", "ff": "none"}
    return [{"byte": byte, "protocol": kind} for byte, kind in sorted(kinds.items())]


def document() -> Json:
    return {
        "specification": "docs/spec/wire.md, version 1",
        "provenance": "written by hand in tests/vectors/wire_vectors.py from the specification; "
        "tests/vectors/generate.py checks them against a MessagePack reader in plain Python",
        "notes": [
            "Byte strings are hex pieces separated by spaces; `c0*3` is the piece c0 three times.",
            "A frame includes its length. max_frame is 8,388,608.",
            "requests: expect is ok (`request` is what was understood; HELLO's is always empty), or BAD_REQUEST",
            "with the id of the answer and whether the sidecar then closes the connection.",
            "responses: what a client reads; expect is ok, or refused: the client must close. With `shortest`,",
            "a sender of the same response that chooses the shortest form sends exactly this frame.",
            "first_bytes: what the first byte of a connection chooses; none means closed without an answer.",
        ],
        "requests": accepted() + refused(),
        "responses": responses(),
        "first_bytes": first_bytes(),
    }
