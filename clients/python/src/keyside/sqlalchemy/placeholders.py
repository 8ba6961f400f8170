"""What stands for a value in the parameters of a statement until the driver is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from keyside.fields import Field, FieldError, Placeholder
from keyside.fields.declaration import UNFIT

WRONG_TYPE: Final = "the value is not of the column's type; compare it with values that the column can hold"


class NotInstalledPlaceholder(Placeholder):
    """Bound on an engine without Keyside: the driver's error about a value that it cannot adapt names this class."""

    __slots__ = ()


class SearchPlaceholder(Placeholder):
    """A value in a condition on a blind index, where no index would be a condition that is never true.

    Its `sealed` is a NotSearchable from the beginning when the value cannot be one of the column's: nothing may be
    raised while parameters are bound, since such errors quote them.
    """

    __slots__ = ()


class PlainPlaceholder(Placeholder):
    """A value that is written, or compared with rows that were written, before the column is encrypted: `sealed` from
    the beginning, or the error that it does not fit."""

    __slots__ = ()


def plain_processor(
    field: Field, installed: bool, write_plain: Callable[[Any], Any], unfit: Callable[[Any], FieldError]
) -> Callable[[Any], Any]:
    """A bind processor that masks plaintext. Nothing is raised while parameters are bound, since such errors quote
    them: what `write_plain` raises, or else `unfit` of the value, is raised when the driver is called."""
    kind = PlainPlaceholder if installed else NotInstalledPlaceholder

    def process(value: Any) -> Any:
        if value is None:
            return None
        placeholder = kind(field, value)
        try:
            placeholder.sealed = write_plain(value)
        except FieldError as error:
            placeholder.sealed = error
        except UNFIT:
            placeholder.sealed = unfit(value)
        return placeholder

    return process
