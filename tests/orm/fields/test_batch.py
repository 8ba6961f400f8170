"""Chunks of rows in one round trip, and what is said when they do not open."""

from __future__ import annotations

import copy
import pickle
import sqlite3
import uuid
from dataclasses import replace
from datetime import date
from typing import Any

import keyside
import pytest
from keyside import Client
from keyside.fields import (
    BindingMissing,
    Field,
    FieldRefused,
    FieldUnavailable,
    FieldUnreadable,
    FieldUnwritable,
    Index,
    Placeholder,
    Sender,
    Stage,
    Stored,
    counted,
    from_context,
    last,
    normalization,
    open_chunk,
    open_one,
    seal,
)
from keyside.testing import envelope, faults
from keyside.testing.frames import Code, Op
from keyside.testing.server import Twin, key_of

EMAIL = Field("patients", "email", "patients", partition="clinic", bind=("id",))
BORN = Field("patients", "born", "patients")
NOTE = Field("patients", "note", "notes", storage="text")
INDEX = Index("patients", "email_index", "patients", source="email", normalize=normalization("casefold"))
COUNT = 60


def written(client: Client, field: Field, values: list[Any], keys: Any = None, partitions: Any = None) -> list[Any]:
    """What the database would hold."""
    placeholders = [Placeholder(field, value) for value in values]
    for number, placeholder in enumerate(placeholders):
        placeholder.key = keys and keys[number]
        placeholder.partition = partitions and partitions[number]
    seal(placeholders, Sender(client))
    return [placeholder.sealed for placeholder in placeholders]


def test_many_columns_keyrings_partitions_and_rows_are_one_round_trip_each_way(client: Client) -> None:
    keys = [(uuid.uuid4(),) for _ in range(COUNT)]
    clinics = [number % 7 for number in range(COUNT)]
    rows = [(f"{n}@example.org", date(2000, 1, 1 + n % 28), f"note {n}") for n in range(COUNT)]
    placeholders = []
    for number, (email, born, note) in enumerate(rows):
        one = Placeholder(EMAIL, email)
        one.key, one.partition = keys[number], clinics[number]
        placeholders += [one, Placeholder(BORN, born), Placeholder(NOTE, note), Placeholder(INDEX, email.upper())]
    with counted() as trips:
        seal(placeholders, Sender(client))
    assert trips.count == 1
    emails, borns, notes, indexes = ([p.sealed for p in placeholders[i::4]] for i in range(4))
    assert all(note.startswith("ks1.") for note in notes)
    context = b"patients.email_index"
    assert indexes[3] == envelope.blind_index(key_of("patients", "index"), context, b"\x103@example.org")
    emails[5] = None
    columns = [Stored(EMAIL, emails, keys, clinics), Stored(BORN, borns), Stored(NOTE, notes)]
    with counted() as trips:
        opened = open_chunk(columns, Sender(client))
    assert trips.count == 1
    want = [[*column] for column in zip(*rows, strict=True)]
    want[0][5] = None
    assert opened == want


def test_an_envelope_is_what_the_specification_says(client: Client, twin: Twin) -> None:
    key = uuid.UUID(int=7)
    (sealed,) = written(client, EMAIL, ["a"], [(key,)], ["x"])
    context = b"patients.email\0\x00\x11\x1a" + key.bytes
    assert envelope.open_envelope(key_of("patients/x", "field"), sealed, context) == b"\x10a"


def test_nothing_but_nulls_asks_nobody(client: Client) -> None:
    with counted() as trips:
        assert open_chunk([Stored(BORN, [None] * 3), Stored(EMAIL, [None] * 3)], Sender(client)) == [[None] * 3] * 2
        seal([], Sender(client))
    assert trips.count == 0


@pytest.mark.parametrize(
    ("field", "key", "partition"),
    [
        (EMAIL, (2,), "b"),
        (EMAIL, (1,), "c"),
        (replace(EMAIL, column="phone"), (1,), "b"),
        (replace(EMAIL, table="doctors"), (1,), "b"),
        (replace(EMAIL, keyring="other"), (1,), "b"),
        (replace(EMAIL, bind=()), (1,), "b"),
    ],
)
def test_a_value_copied_elsewhere_does_not_open(client: Client, field: Field, key: Any, partition: str) -> None:
    (sealed,) = written(client, EMAIL, ["a@example.org"], [(1,)], ["b"])
    assert open_chunk([Stored(EMAIL, [sealed], [(1,)], ["b"])], Sender(client)) == [["a@example.org"]]
    with pytest.raises(FieldUnreadable, match=rf"^{field.table}\.{field.column} of row {key[0]}: ") as caught:
        open_chunk([Stored(field, [sealed], [key], [partition])], Sender(client))
    assert (caught.value.table, caught.value.column, caught.value.key) == (field.table, field.column, key)
    assert isinstance(caught.value.__cause__, keyside.InvalidCiphertext | keyside.UnknownKey)
    allowed = replace(field, on_error="none")
    assert open_chunk([Stored(allowed, [None, sealed], [(0,), key], [1, partition])], Sender(client)) == [[None, None]]


def test_one_bad_row_is_named_and_the_others_still_open(client: Client) -> None:
    born = replace(BORN, on_error="none")
    stored = written(client, born, [date(2000, 1, 1), date(2000, 1, 2), date(2000, 1, 3)])
    stored[1] = stored[1][:-1] + bytes([stored[1][-1] ^ 1])
    keys = [(10,), (11,), (12,)]
    with pytest.raises(FieldUnreadable, match=r"born of row 11"):
        open_chunk([Stored(BORN, stored, keys)], Sender(client))
    assert open_chunk([Stored(born, stored, keys)], Sender(client)) == [[date(2000, 1, 1), None, date(2000, 1, 3)]]


def test_what_decodes_to_nothing_is_unreadable(client: Client) -> None:
    bad = client.encrypt("patients", b"\xff?", "patients.born")
    with pytest.raises(FieldUnreadable, match="not the encoding"):
        open_one(BORN, bad, Sender(client))
    with pytest.raises(FieldUnreadable, match="holds no ciphertext"):
        open_one(NOTE, "plain words", Sender(client))
    with pytest.raises(FieldUnreadable, match="holds no ciphertext"):
        open_one(BORN, "2000-01-01", Sender(client))


@pytest.mark.parametrize("stage", [Stage.PLAIN, Stage.DUAL])
def test_a_column_on_its_way_reads_both(client: Client, stage: Stage) -> None:
    note = NOTE.in_stage(stage)
    (sealed,) = written(client, note, ["secret"])
    plain = ["plain", "ks1.", "ks1.not base64", "ks1.AAAA", sealed, None]
    with counted() as trips:
        assert open_chunk([Stored(note, plain)], Sender(client)) == [[*plain[:4], "secret", None]]
    assert trips.count == 1
    with pytest.raises(FieldUnreadable):
        open_chunk([Stored(NOTE, plain)], Sender(client))


def test_the_partition_may_come_from_the_code_that_runs(client: Client) -> None:
    field = Field("notes", "text", "users", partition=from_context("tenant"))
    with keyside.context(tenant="acme"):
        stored = written(client, field, ["x"])
        assert open_one(field, stored[0], Sender(client)) == "x"
        with keyside.context(tenant="other"), pytest.raises(FieldUnreadable):
            open_one(field, stored[0], Sender(client))
    with pytest.raises(BindingMissing, match=r"notes\.text: .*with keyside\.context\(tenant="):
        open_one(field, stored[0], Sender(client))
    with pytest.raises(keyside.KeysideError, match="cannot choose a partition"), keyside.context(tenant=1.5):
        pass


def test_what_a_bound_column_needs_is_said(client: Client) -> None:
    (sealed,) = written(client, EMAIL, ["a"], [(1,)], ["b"])
    with pytest.raises(BindingMissing, match="bound to the row's id"):
        open_chunk([Stored(EMAIL, [sealed], None, ["b"])], Sender(client))
    with pytest.raises(BindingMissing, match="the value of clinic"):
        open_chunk([Stored(EMAIL, [sealed], [(1,)])], Sender(client))
    for key, partition in (((None,), "b"), (None, "b"), ((1,), []), ((1,), None)):
        with pytest.raises(BindingMissing):
            written(client, EMAIL, ["a"], [key], [partition])
    with keyside.context(clinic="b"):
        assert open_chunk([Stored(EMAIL, [sealed], [(1,)])], Sender(client)) == [["a"]]


def test_values_that_do_not_fit_are_refused_and_not_quoted(client: Client) -> None:
    for field in (replace(BORN, to_bytes=lambda value: value.isoformat().encode()), BORN):
        with pytest.raises(FieldUnwritable) as caught:
            written(client, field, [{"secret"}])
        assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(FieldUnwritable, match=r"email_index.*casefold"):
        seal([Placeholder(INDEX, 42)], Sender(client))


def test_an_unavailable_sidecar_is_retryable_and_never_a_none(client: Client, twin: Twin) -> None:
    born = replace(BORN, on_error="none")
    (sealed,) = written(client, born, [date(2000, 1, 1)])
    for code in (Code.KMS_UNAVAILABLE, Code.OVERLOADED):
        twin.faults.extend([faults.fail_items({0: code})] * 2)
        with pytest.raises(FieldUnavailable) as caught:
            open_one(born, sealed, Sender(client))
        assert caught.value.retryable
    twin.faults.extend([faults.refuse(Code.SHUTTING_DOWN)] * 2)
    with pytest.raises(FieldUnavailable):
        written(client, born, [date(2000, 1, 1)])
    with Client("/nonexistent/keyside.sock", retries=0) as nobody, pytest.raises(FieldUnavailable) as caught:
        open_one(born, sealed, Sender(nobody))
    assert isinstance(caught.value.__cause__, keyside.SidecarUnreachable)


@pytest.mark.parametrize("code", [Code.DENIED, Code.UNKNOWN_KEYRING, Code.KEY_DISABLED])
def test_a_refusal_names_the_column(client: Client, twin: Twin, code: Code) -> None:
    twin.faults.append(faults.refuse(code))
    with pytest.raises(FieldRefused, match=r"patients\.born"):
        written(client, BORN, [date(2000, 1, 1)])


def test_a_shredded_row_may_be_none_and_denied_may_not(client: Client, twin: Twin) -> None:
    born = replace(BORN, on_error="none")
    (sealed,) = written(client, born, [date(2000, 1, 1)])
    twin.faults.append(faults.fail_items({0: Code.KEY_DISABLED}))
    assert open_one(born, sealed, Sender(client)) is None
    twin.faults.append(faults.fail_items({0: Code.KEY_DISABLED}))
    with pytest.raises(FieldUnreadable, match="disabled or destroyed"):
        open_one(BORN, sealed, Sender(client))


def test_a_part_of_a_value_may_have_no_index(client: Client, twin: Twin) -> None:
    four = Placeholder(replace(INDEX, normalize=last(4)), "123")
    seal([four], Sender(client))
    assert four.sealed is None
    assert [request.op for request in twin.requests] == [Op.BLIND_INDEX]


def test_a_placeholder_shows_nothing_and_no_driver_takes_it() -> None:
    placeholder = Placeholder(BORN, "secret")
    assert repr([placeholder]) == "[<encrypted>]"
    assert f"{placeholder}" == "<encrypted>"
    uses: list[Any] = [str, pickle.dumps, copy.copy, bytes, memoryview]
    for use in uses:
        with pytest.raises(TypeError):
            use(placeholder)
    database = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.Error, match="not supported"):
        database.execute("SELECT ?", (placeholder,))
    database.close()
