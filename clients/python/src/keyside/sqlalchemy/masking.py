"""A `repr` of mapped objects that shows no value of an encrypted column."""

from __future__ import annotations

from sqlalchemy import inspect

from keyside.fields import MASK
from keyside.sqlalchemy.types import BlindIndex, Encrypted


class MaskedRepr:
    """Mix-in for mapped classes, dataclasses included (`mapped_column(repr=False)` is the other way): every loaded
    column, encrypted ones as `<encrypted>`. Nothing is loaded for it."""

    def __repr__(self) -> str:
        state = inspect(self)
        shown = []
        for attribute in state.mapper.column_attrs:
            if attribute.key in state.dict:
                secret = any(isinstance(column.type, Encrypted | BlindIndex) for column in attribute.columns)
                shown.append(f"{attribute.key}={MASK if secret else repr(state.dict[attribute.key])}")
        return f"{type(self).__name__}({', '.join(shown)})"
