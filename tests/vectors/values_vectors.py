"""The content of values.json, its bytes written by hand or by the standard library, never by keyside.values."""

import json
import struct
from typing import Any

Json = dict[str, Any]


def text(kind: int, value: str) -> str:
    return bytes([kind]).hex() + value.encode().hex()


def case(comment: str, kind: str, value: Any, encoding: str, canonical: str | None = None) -> Json:
    return {
        "comment": comment,
        "kind": kind,
        "value": value,
        "encoding": encoding,
        "canonical": encoding if canonical is None else canonical,
    }


def integers() -> list[Json]:
    known = {0: "00", 1: "01", -1: "ff", 127: "7f", 128: "0080", -128: "80", -129: "ff7f", 255: "00ff", 256: "0100"}
    known |= {2**63 - 1: "7f" + "ff" * 7, 2**63: "0080" + "00" * 7, -(2**63): "80" + "00" * 7, 10**30: f"{10**30:026x}"}
    return [case(f"integer {n}", "integer", str(n), "12" + payload) for n, payload in known.items()]


def texts() -> list[Json]:
    return [
        case("text", "text", "alice@example.org", text(0x10, "alice@example.org")),
        case("empty text", "text", "", "10"),
        case("text beyond ASCII, as it is", "text", "zoë \U0001f511", "107a6fc3ab20f09f9491"),
        case("text of two code points is not composed", "text", "e\u0301", "1065cc81"),
        case("bytes", "bytes", "00ff10", "1100ff10"),
        case("no bytes", "bytes", "", "11"),
        case("an enumeration's label", "enumeration", "ACTIVE", text(0x1B, "ACTIVE")),
    ]


def numbers() -> list[Json]:
    def decimal(value: str, canonical: str) -> Json:
        return case(f"decimal {value}", "decimal", value, text(0x14, value), text(0x14, canonical))

    return [
        case("float", "float", 1.5, "13" + struct.pack(">d", 1.5).hex()),
        case("minus zero", "float", -0.0, "138000000000000000", "130000000000000000"),
        decimal("1.50", "1.5"),
        decimal("1.0", "1"),
        decimal("-0.00", "0"),
        decimal("1E+3", "1000"),
        decimal("1E-7", "0.0000001"),
        decimal("-12.340", "-12.34"),
        decimal("Infinity", "Infinity"),
        case("true", "boolean", True, "1501"),
        case("false", "boolean", False, "1500"),
    ]


def times() -> list[Json]:
    def when(comment: str, kind: str, code: int, value: str, canonical: str | None = None) -> Json:
        return case(comment, kind, value, text(code, value), text(code, canonical or value))

    return [
        when("date", "date", 0x16, "2024-02-29"),
        when("first date", "date", 0x16, "0001-01-01"),
        when("time", "time", 0x17, "13:14:15"),
        when("time with microseconds", "time", 0x17, "13:14:15.000001"),
        when("time with an offset", "time", 0x17, "01:00:00+02:00", "23:00:00+00:00"),
        when("datetime without a zone", "datetime", 0x18, "2024-02-29T13:14:15"),
        when("datetime with a zone", "datetime", 0x18, "2024-02-29T13:14:15.5+02:00".replace(".5", ".500000"),
             "2024-02-29T11:14:15.500000+00:00"),
        case("duration", "duration", "1500000", "19" + "16e360"),
        case("negative duration", "duration", "-1", "19ff"),
        case("UUID", "uuid", "00112233-4455-6677-8899-aabbccddeeff", "1a00112233445566778899aabbccddeeff"),
    ]  # fmt: skip


def documents() -> list[Json]:
    pretty = '{"b":1,"a":[true,null,"ë"]}'
    return [
        case("JSON object", "json", json.loads(pretty), text(0x1C, pretty), text(0x1C, '{"a":[true,null,"ë"],"b":1}')),
        case("JSON null", "json", None, text(0x1C, "null")),
        case("JSON string", "json", "x", text(0x1C, '"x"')),
        case("empty array", "array", [], "1d00000000"),
        case("array with a NULL", "array", ["a", None, ""], "1d00000003" + "000000021061" + "ffffffff" + "0000000110"),
    ]


def refused() -> list[Json]:
    cases = {
        "nothing": "",
        "a kind of no version": "0161",
        "a kind of a later version": "2061",
        "an unknown kind": "1e",
        "text that is not UTF-8": "10ff",
        "a surrogate": "10eda080",
        "an integer without bytes": "12",
        "an integer with a byte too many": "120001",
        "a negative integer with a byte too many": "12ffff",
        "a short float": "1300",
        "a decimal in another notation": text(0x14, "1.5e0"),
        "a decimal with underscores": text(0x14, "1_0"),
        "a boolean that is 2": "1502",
        "a boolean of two bytes": "150100",
        "a date in another notation": text(0x16, "20240229"),
        "a date that is none": text(0x16, "2023-02-29"),
        "a datetime with Z": text(0x18, "2024-02-29T13:14:15Z"),
        "a datetime with a blank": text(0x18, "2024-02-29 13:14:15"),
        "a UUID of 15 bytes": "1a" + "00" * 15,
        "JSON that is none": text(0x1C, "{"),
        "an array that ends early": "1d00000002" + "000000021061",
        "an array with bytes behind": "1d00000000" + "00",
        "an array whose element is longer than it": "1d00000001" + "000000ff1061",
    }
    return [{"comment": comment, "encoding": encoding} for comment, encoding in cases.items()]


def normalizations() -> list[Json]:
    rows: list[tuple[str, str, str | None]] = [
        ("exact", " A ", " A "),
        ("trim", "\u2003A b\n", "A b"),
        ("casefold", " Alice@Example.ORG ", "alice@example.org"),
        ("casefold", "Straße", "strasse"),
        ("casefold", "\ufb01n\u0130", "fini\u0307"),
        ("digits", "+49 (30) 901-820", "4930901820"),
        ("digits", "\u0661\u0662", "12"),
        ("digits", "none", None),
        ("last(4)", "4111 1111 1111 1234", "1234"),
        ("last(4)", "AbCdEf", "cdef"),
        ("last(4)", "123", None),
        ("domain", "Alice@Example.ORG", "example.org"),
        ("domain", "example.org", "example.org"),
        ("domain", "a@", None),
    ]
    return [{"normalize": name, "text": value, "result": result} for name, value, result in rows]


def contexts() -> list[Json]:
    key = "1a00112233445566778899aabbccddeeff"
    return [
        {"table": "patients", "column": "email", "key": [], "context": b"patients.email".hex()},
        {
            "table": "patients",
            "column": "email",
            "key": [{"kind": "uuid", "value": "00112233-4455-6677-8899-aabbccddeeff"}],
            "context": b"patients.email".hex() + "00" + "0011" + key,
        },
        {
            "table": "t",
            "column": "c",
            "key": [{"kind": "integer", "value": "7"}, {"kind": "text", "value": "de"}],
            "context": b"t.c".hex() + "00" + "0002" + "1207" + "0003" + "106465",
        },
    ]


def document() -> Json:
    return {
        "about": "docs/spec/values.md; bytes are hex, integers, decimals, durations and times are strings",
        "values": [*texts(), *integers(), *numbers(), *times(), *documents()],
        "refused": refused(),
        "normalize": normalizations(),
        "contexts": contexts(),
    }
