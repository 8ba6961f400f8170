"""Write envelope.json, wire.json, wrap.json and values.json beside this file, after checking them against
the plain-Python twin.

Run from the top of the repository: python -m tests.vectors.generate
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyside.testing import envelope, frames

from tests.twin import wrap
from tests.vectors import envelope_vectors, values_vectors, wire_vectors, wrap_vectors
from tests.vectors.wire_vectors import unfold

FOLDER = Path(__file__).parent


def outcome(key_table: list[dict[str, Any]], case: dict[str, Any]) -> tuple[str, bytes]:
    """What opening an `open` vector gives: ok and the plaintext, or an item's error code."""
    sealed = bytes.fromhex(case["envelope"])
    context = None if case["context"] is None else bytes.fromhex(case["context"])
    try:
        key_id = envelope.key_id_of(sealed)
        found = [k for k in key_table if int(k["id"], 16) == key_id]
        if not found:
            return "UNKNOWN_KEY", b""
        if (found[0]["keyring"], found[0]["purpose"]) != (case["keyring"], "field"):
            raise envelope.CiphertextError
        return "ok", envelope.open_envelope(bytes.fromhex(found[0]["key"]), sealed, context)
    except envelope.CiphertextError:
        return "INVALID_CIPHERTEXT", b""


def check_envelopes(document: dict[str, Any]) -> None:
    for case in document["open"]:
        assert outcome(document["keys"], case) == (case["expect"], bytes.fromhex(case.get("plaintext", ""))), case
    for case in document["text"]:
        try:
            assert envelope.from_text(case["text"]).hex() == case.get("bytes"), case
        except envelope.TextFormError:
            assert case["expect"] == "refused", case


def hexes(values: Sequence[bytes | int | None]) -> list[str | int | None]:
    return [v.hex() if isinstance(v, bytes) else v for v in values]


def understood(request: frames.Request) -> dict[str, Any]:
    """A parsed request as wire.json writes it, byte strings unfolded to plain hex."""
    context = request.context
    return {
        "id": request.id,
        "op": int(request.op),
        "keyring": request.keyring,
        "context": hexes(context) if isinstance(context, list) else context if context is None else context.hex(),
        "items": hexes(request.items),
    }


def unfolded(value: Any) -> Any:
    """A vector's field with its `61*3` notation spelled out."""
    if isinstance(value, list):
        return [unfold(v).hex() if isinstance(v, str) else v for v in value]
    return unfold(value).hex() if isinstance(value, str) and "*" in value else value


def check_wire(document: dict[str, Any]) -> None:
    for case in document["requests"]:
        wire = unfold(case["frame"])
        too_long = int.from_bytes(wire[:4], "big") > frames.MAX_FRAME
        parsed = frames.parse_request(bytes(frames.MAX_FRAME + 1) if too_long else wire[4:])
        if isinstance(parsed, frames.Refusal):
            want = (case["expect"], case.get("closes"), case.get("id"))
            assert want == (parsed.code.name, parsed.closes, parsed.id), case
            continue
        assert case["expect"] == "ok", case
        assert understood(parsed) == {field: unfolded(value) for field, value in case["request"].items()}, case
    for case in document["responses"]:
        check_response(case)


def check_response(case: dict[str, Any]) -> None:
    wire = unfold(case["frame"])
    try:
        answer = frames.parse_response(wire[4:])
    except frames.MalformedError:
        assert case["expect"] == "refused", case
        return
    assert case["expect"] == "ok", case
    want = case["response"]
    body = hexes(answer.body) if isinstance(answer.body, list) else answer.body
    expected = unfolded(want["items"]) if "items" in want else want["message"]
    assert (answer.id, answer.status, body) == (want["id"], want["status"], expected), case
    if case["shortest"]:
        assert frames.build_response(answer.id, answer.status, answer.body) == wire, case


def check_wraps(document: dict[str, Any]) -> None:
    root = bytes.fromhex(document["root"])
    unwrap = {wrap.GCM_NAME: wrap.gcm_unwrap, wrap.KWP_NAME: wrap.kwp_unwrap}
    for case in document["unwrap"]:
        if case["expect"] != "ok":
            continue
        key = unwrap[case["mechanism"]](root, bytes.fromhex(case["blob"]), wrap_vectors.authenticated(case))
        assert key.hex() == case["key"], case


def main() -> None:
    documents = {
        "envelope": envelope_vectors.document(),
        "wire": wire_vectors.document(),
        "wrap": wrap_vectors.document(),
        "values": values_vectors.document(),
    }
    check_wraps(documents["wrap"])
    check_envelopes(documents["envelope"])
    check_wire(documents["wire"])
    for name, document in documents.items():
        text = json.dumps(document, indent=1, ensure_ascii=True)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
