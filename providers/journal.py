"""What this process asked of a back end and how it ended, for audit where the service keeps no log that can be read."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Final

from providers.capabilities import AuditRecord

CAPACITY: Final = 10_000  # records kept; the oldest go first


class Journal:
    """The last operations of one provider. Used from one event loop."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._records: deque[tuple[datetime, str, str | None, float]] = deque(maxlen=CAPACITY)

    def record(self, operation: str, error: BaseException | None, seconds: float) -> None:
        """Note one operation that has just ended; `error` is what it raised."""
        self._records.append((datetime.now(UTC), operation, type(error).__name__ if error else None, seconds))

    def between(self, since: datetime, until: datetime, limit: int) -> list[AuditRecord]:
        """The oldest `limit` records that are kept of that time."""
        found = [record for record in self._records if since <= record[0] <= until][:limit]
        return [self._published(*record) for record in found]

    def _published(self, at: datetime, operation: str, error: str | None, seconds: float) -> AuditRecord:
        details = {"provider": self._provider, "milliseconds": f"{seconds * 1000:.1f}"}
        if error:
            details["error"] = error
        return AuditRecord(at, operation, "keyside", error is None, details, source="sidecar")
