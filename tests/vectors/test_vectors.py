"""The vectors are what their script makes, and the twin passes them (the script asserts that)."""

import json

from keyside.testing import envelope, frames

from tests.vectors import envelope_vectors, generate, values_vectors, wire_vectors


def test_the_files_are_what_the_script_makes() -> None:
    documents = {"envelope": envelope_vectors, "wire": wire_vectors, "values": values_vectors}
    for name, document in ((name, module.document()) for name, module in documents.items()):
        assert json.loads((generate.FOLDER / f"{name}.json").read_text()) == document


def test_the_twin_passes_them() -> None:
    generate.check_envelopes(json.loads((generate.FOLDER / "envelope.json").read_text()))
    generate.check_wire(json.loads((generate.FOLDER / "wire.json").read_text()))


def test_the_twin_seals_and_indexes_as_they_say() -> None:
    document = json.loads((generate.FOLDER / "envelope.json").read_text())
    keys = {key["id"]: bytes.fromhex(key["key"]) for key in document["keys"]}
    for case in document["seal"]:
        nonce, plain, context = (case[f] and bytes.fromhex(case[f]) for f in ("nonce", "plaintext", "context"))
        sealed = envelope.seal(keys[case["key_id"]], int(case["key_id"], 16), nonce, context, plain or b"")
        assert (sealed.hex(), envelope.to_text(sealed)) == (case["envelope"], case["text"])
    for case in document["blind_index"]:
        key, value, context = (case[f] and bytes.fromhex(case[f]) for f in ("key", "value", "context"))
        assert envelope.blind_index(key, context, value or b"", case["index_bits"]).hex() == case["index"]


def test_what_the_twin_builds_it_parses() -> None:
    built = frames.build_request(2**32 - 1, 4, "users/ü", [None, b"x", "y"], [b"a" * 300, None, "b"])
    parsed = frames.parse_request(built[4:])
    assert parsed == frames.Request(
        2**32 - 1, frames.Op.REENCRYPT, "users/ü", [None, b"x", b"y"], [b"a" * 300, None, b"b"]
    )
