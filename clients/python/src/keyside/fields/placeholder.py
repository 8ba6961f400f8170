"""What stands in a statement's parameters until all values of the statement are encrypted at once."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from keyside.fields.declaration import Field, Index

MASK: Final = "<encrypted>"


class Placeholder:
    """A value on its way to the database, shown as `<encrypted>`.

    No driver can adapt it: it is no bytes, str or buffer, has no protocol of any adapter, and refuses `str()`, so a
    placeholder that is not replaced fails instead of storing something.
    """

    __slots__ = ("key", "partition", "place", "sealed", "value")

    def __init__(self, place: Field | Index, value: Any) -> None:
        self.place = place
        self.value = value
        self.key: tuple[Any, ...] | None = None
        """The row's key, for a bound column."""
        self.partition: Any = None
        """The value that chooses the partition; None asks `keyside.context`."""
        self.sealed: Any = None
        """What the database gets, once `seal` ran: an envelope, its text form, or a blind index; None for no index."""

    def __repr__(self) -> str:
        return MASK

    def __format__(self, form: str) -> str:
        return MASK

    def __str__(self) -> NoReturn:
        raise TypeError("a value that is not encrypted yet; the statement bypassed Keyside's hooks")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a value that is not encrypted yet cannot be pickled or copied")
