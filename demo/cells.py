"""Encrypting and decrypting the table's columns through the socket: the part an application would have."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from keyside import Client

from demo.people import BODY, SECRET, Person

Cells = dict[str, list[bytes | None]]

BODY_KEYRING = "body"  # one series of data keys for the whole column
PEOPLE_KEYRING = "people"  # partitioned: each country has data keys of its own


@dataclass(frozen=True)
class Batch:
    """The cells of one column that one call handles: `positions` are rows of the table."""

    keyring: str
    column: str
    positions: Sequence[int]

    def contexts(self, people: Sequence[Person]) -> list[str]:
        """Where each cell belongs, column and row: a cell copied elsewhere does not open."""
        return [context(self.column, people[at]) for at in self.positions]


def context(column: str, person: Person) -> str:
    return f"people.{column}:{person.id}"


def batches(people: Sequence[Person]) -> Iterator[Batch]:
    """Every secret cell once."""
    by_country: dict[str, list[int]] = defaultdict(list)
    for at, person in enumerate(people):
        by_country[person.country].append(at)
    for column in SECRET:
        if column in BODY:
            yield Batch(BODY_KEYRING, column, range(len(people)))
        else:
            for country, positions in by_country.items():
                yield Batch(f"{PEOPLE_KEYRING}/{country}", column, positions)


def encrypt(client: Client, people: Sequence[Person], advance: Callable[[int], None]) -> tuple[Cells, float]:
    """Every secret column as envelopes, and the seconds spent in the client. Raises KeysideError."""
    cells: Cells = {column: [None] * len(people) for column in SECRET}
    spent = 0.0
    for batch in batches(people):
        plain = [people[at].secret(batch.column) for at in batch.positions]
        contexts = batch.contexts(people)
        began = time.perf_counter()
        envelopes = client.encrypt_many(batch.keyring, plain, context=contexts)
        spent += time.perf_counter() - began
        place(cells[batch.column], batch, envelopes)
        advance(len(plain) - plain.count(None))
    return cells, spent


def decrypt(
    client: Client, people: Sequence[Person], cells: Cells, advance: Callable[[int], None]
) -> tuple[Cells, float]:
    """Every secret column as plaintexts, and the seconds spent in the client. Raises KeysideError."""
    opened: Cells = {column: [None] * len(people) for column in SECRET}
    spent = 0.0
    for batch in batches(people):
        sealed = [cells[batch.column][at] for at in batch.positions]
        contexts = batch.contexts(people)
        began = time.perf_counter()
        values = client.decrypt_many(batch.keyring, sealed, context=contexts)
        spent += time.perf_counter() - began
        place(opened[batch.column], batch, values)
        advance(len(sealed) - sealed.count(None))
    return opened, spent


def place(column: list[bytes | None], batch: Batch, values: Sequence[bytes | None]) -> None:
    """Put a batch's results where its cells are."""
    for at, value in zip(batch.positions, values, strict=True):
        column[at] = value
