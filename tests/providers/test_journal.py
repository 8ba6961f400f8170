"""What this process recorded of its calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from providers import Denied
from providers.journal import CAPACITY, Journal

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
LATER = datetime(2200, 1, 1, tzinfo=UTC)


def test_what_happened_and_how_it_ended() -> None:
    journal = Journal("AWS_KMS")
    journal.record("wrap_key", None, 0.0123)
    journal.record("unwrap_key", Denied("key arn:secret-looking"), 1)
    good, bad = journal.between(LONG_AGO, LATER, 10)
    assert (good.operation, good.succeeded, good.source) == ("wrap_key", True, "sidecar")
    assert good.details == {"provider": "AWS_KMS", "milliseconds": "12.3"}
    assert (bad.operation, bad.succeeded) == ("unwrap_key", False)
    assert bad.details == {"provider": "AWS_KMS", "milliseconds": "1000.0", "error": "Denied"}
    assert good.at <= bad.at <= datetime.now(UTC)


def test_the_oldest_of_the_time_that_is_asked_for() -> None:
    journal = Journal("X")
    before = datetime.now(UTC)
    for number in range(5):
        journal.record(f"operation {number}", None, 0)
    assert [record.operation for record in journal.between(before, LATER, 2)] == ["operation 0", "operation 1"]
    assert journal.between(LATER, LATER + timedelta(days=1), 10) == []
    assert journal.between(LONG_AGO, before - timedelta(seconds=1), 10) == []


def test_memory_is_bounded() -> None:
    journal = Journal("X")
    for number in range(CAPACITY + 3):
        journal.record(str(number), None, 0)
    kept = journal.between(LONG_AGO, LATER, CAPACITY * 2)
    assert (len(kept), kept[0].operation) == (CAPACITY, "3")
