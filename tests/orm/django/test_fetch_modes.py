"""What does not open stays in its column when Django 6.1 fetches deferred fields of several objects at once."""

from __future__ import annotations

from typing import Any

from django.db import models
from keyside.testing import assert_round_trips

from tests.orm.django.clinics.guarded import Lenient
from tests.orm.django.test_keeping import guarded, stored, tampered

__all__ = ["guarded", "tampered"]  # fixtures


def test_fetching_for_peers_keeps_it(tampered: tuple[str, list[Any]]) -> None:
    alias, before = tampered
    Lenient.objects.create(value="a", within="b")
    with assert_round_trips(max=2):
        rows = list(Lenient.objects.defer("value", "within").order_by("id").fetch_mode(models.FETCH_PEERS))
        assert [(row.value, row.within) for row in rows] == [(None, None), (None, None), ("a", "b")]
    for row in rows:
        row.name = "x"
        row.save()
    assert stored(alias)[:2] == before
    assert [(row.name, row.value) for row in Lenient.objects.order_by("id")] == [("x", None), ("x", None), ("x", "a")]
    rows = list(Lenient.objects.defer("value").order_by("id").fetch_mode(models.FETCH_PEERS))
    rows[0].value = None
    assert rows[1].value is None
    rows[0].save()
    assert stored(alias)[0] == (None, None, before[0][2])
