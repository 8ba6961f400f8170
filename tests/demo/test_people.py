"""The demo's table is real and read faithfully."""

from __future__ import annotations

import pytest

from demo.people import SECRET, date, load
from demo.store import plain_image


def test_the_table_is_real_and_large() -> None:
    people = load()
    assert len(people) == 20_093
    aaron = next(person for person in people if person.last_name == "Aaron" and person.first_name == "Hank")
    assert (aaron.given_names, aaron.born, aaron.birthplace, aaron.country) == (
        "Henry Louis",
        "1934-02-05",
        "Mobile, AL",
        "USA",
    )
    assert (aaron.died, aaron.weight, aaron.height, aaron.bats) == ("2021-01-22", "180", 72, "R")
    assert [person.id for person in people] == list(range(1, 20_094))


def test_every_secret_column_has_values_and_empty_cells_are_null() -> None:
    people = load()
    for column in SECRET:
        values = [person.secret(column) for person in people]
        assert sum(value is not None for value in values) > 9_000
        assert "" not in values


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("1884", "5", "7"), "1884-05-07"),
        (("1884", "", ""), "1884"),
        (("1884", "5", ""), "1884-05"),
        (("", "5", "7"), None),
    ],
)
def test_dates_go_as_far_as_they_are_known(parts: tuple[str, str, str], expected: str | None) -> None:
    assert date(*parts) == expected


def test_the_unencrypted_image_holds_the_values() -> None:
    image = plain_image(load(50))
    assert b"Henry Louis" in image
    assert image.startswith(b"SQLite format 3\0")
