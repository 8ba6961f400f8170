"""How encodings become values again, for the codec of either ORM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyside.values import InvalidValue, Kind, decode, decoder_of, text_column


class Reading:
    """The half of a codec that reads. The other half, and the attributes, are an ORM's."""

    kind: Kind | None
    """What an encoding of the column must be; None: any."""
    restore: Callable[[Any], Any] | None
    """The application's value of the one that was encoded, where they differ."""
    read: Callable[[bytes], Any] | None
    """Reads an encoding in place of `restore`."""

    def from_column(self) -> Callable[[list[bytes]], list[Any]] | None:
        """A function for whole columns, where there is a quicker one."""
        return text_column if self.kind is Kind.TEXT and self.restore is None and self.read is None else None

    def from_bytes(self) -> Callable[[bytes], Any]:
        """A function, since it runs for every value of a result. It raises InvalidValue for another kind."""
        if self.read is not None:
            return self.read
        kind, restore = self.kind, self.restore
        if kind is None:
            return decode if restore is None else lambda data: restore(decode(data))
        read, first = decoder_of(kind), int(kind)

        def from_bytes(data: bytes) -> Any:
            if data[0] != first:
                raise InvalidValue(f"not a {kind.name.lower()}, which the column's type asks for")
            return read(data)

        return from_bytes if restore is None else lambda data: restore(from_bytes(data))
