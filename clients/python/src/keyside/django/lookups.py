"""Conditions on encrypted fields: what a blind index answers, and why everything else is refused."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from django.core.exceptions import EmptyResultSet
from django.db import models
from django.db.models.expressions import Col
from django.db.models.lookups import IsNull, Lookup

from keyside.django.comparing import exactly, is_inexact
from keyside.django.index_lookups import row_beside
from keyside.django.telling import PlainPlaceholder, Told
from keyside.fields import NotSearchable
from keyside.fields.declaration import MAGIC, TEXT_HEAD, UNFIT
from keyside.fields.normalize import FUNCTIONS

_ORDER: Final = "ciphertexts have no order; fetch the rows by other conditions and compare in Python"
_PATTERN: Final = (
    "ciphertexts have no substrings; add a BlindIndex of the part that you search (last(4), 'domain') and compare that"
)
_OTHER: Final = "the database sees ciphertext only; compute it in Python"
_IN_DATABASE: Final = {"casefold": "LOWER(TRIM({}))", "trim": "TRIM({})"}
"""As near as SQL comes to a normalisation; of both sides, so that equal texts stay equal whatever LOWER knows."""
ADVICE: Final = {
    **dict.fromkeys(("gt", "gte", "lt", "lte", "range"), _ORDER),
    **dict.fromkeys(
        ("contains", "icontains", "startswith", "istartswith", "endswith", "iendswith", "regex", "iregex", "search"),
        _PATTERN,
    ),
}


def refuse(field: Any, what: str, advice: str) -> NoReturn:
    """Raises NotSearchable."""
    message = f"{what} cannot be answered on an encrypted field: {advice}"
    raise NotSearchable(message, field.model._meta.db_table, field.column)


def lookup_of(field: Any, name: str) -> type[Lookup]:
    """The lookup of this name. Raises NotSearchable for those that no index answers."""
    found = LOOKUPS.get(name)
    if found is None:
        refuse(field, name, ADVICE.get(name, _OTHER))
    return found


class _ByIndex(Lookup):
    """A comparison with plain values that is answered by the index column of the same table or alias."""

    compared = "exact"
    """The lookup on the index column."""

    def __init__(self, lhs: Any, rhs: Any) -> None:
        field = lhs.output_field
        if not isinstance(lhs, Col):
            refuse(field, self.lookup_name, "compare the field itself, not an expression of it")
        self._refuse_expressions(field, rhs)
        super().__init__(lhs, rhs)

    def _refuse_expressions(self, field: Any, value: Any) -> None:
        if hasattr(value, "resolve_expression"):
            advice = "compare it with plain values; equal values of two columns have different ciphertexts"
            refuse(field, self.lookup_name, advice)

    def get_prep_lookup(self) -> Any:
        """As Django asks it: None makes a condition on NULL of an equality."""
        return None if self.lhs.target.holds_null(self.rhs) else self.rhs

    def index(self) -> models.Field:
        """The first index of a whole value. Raises NotSearchable."""
        field = self.lhs.target
        partial = []
        for index, declared in field.indexes:
            if declared.normalize.whole and self.fits(declared.normalize.name):
                found: models.Field = index
                return found
            partial.append(index.name)
        refuse(field, self.lookup_name, self.missing(field, partial))

    def fits(self, normalization: str) -> bool:
        return True

    def missing(self, field: Any, others: list[str]) -> str:
        hint = f"; for a part of the value, compare {', '.join(others)} ({FUNCTIONS})" if others else ""
        return f"declare it with blind_index=BlindIndex(){hint}"

    def values(self) -> list[Any]:
        return [self.rhs]

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        index, alias = self.index(), self.lhs.alias
        column = index.get_col(alias)
        values = self.values()
        if index.declaration.needs_row:
            row = row_beside(compiler, self)
            values = [Told(value, row) for value in values]
        compared = values if self.compared == "in" else values[0]
        found, parameters = compiler.compile(index.get_lookup(self.compared)(column, compared))
        known, _ = compiler.compile(IsNull(column, False))
        # a row without an index is not equal, rather than of unknown equality: that matters under NOT
        answer, parameters = f"({found} AND {known})", [*parameters]
        if self.lhs.target.declaration.stage.reads_plaintext:
            sealed, head = self._sealed(compiler, connection)
            plain, added = self._plain(compiler, connection, index)
            answer = f"(({answer} AND {sealed}) OR (NOT {sealed} AND {plain}))"
            parameters = [*parameters, head, head, *added]
        return answer, parameters

    def _sealed(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Whether a row holds ciphertext, never NULL, and the parameter of it. An index is believed of such rows alone:
        the release before changes plaintext and knows no index."""
        column, _ = compiler.compile(self.lhs)
        is_text = self.lhs.target.declaration.storage == "text"
        begins = f"SUBSTR({column}, 1, {len(TEXT_HEAD if is_text else MAGIC)})"
        if is_text:
            return f"({column} IS NOT NULL AND {exactly(begins, connection)} = %s)", TEXT_HEAD
        return f"({column} IS NOT NULL AND {begins} = %s)", connection.Database.Binary(MAGIC)

    def _plain(self, compiler: Any, connection: Any, index: Any) -> tuple[str, list[Any]]:
        """Rows that were not encrypted yet are compared as the database can normalise them, so that what is spelled as
        the value is found at least."""
        field, normalize = self.lhs.target, index.declaration.normalize
        is_text = field.declaration.storage == "text"
        form = _IN_DATABASE.get(normalize.name, "{}") if is_text else "{}"
        parameters: list[Any] = []
        for value in self.values():
            try:
                plain = [field.to_plain(value), *([normalize.apply(value)] if form != "{}" else [])]
            except UNFIT:
                message = "the value is not of the field's type"
                raise NotSearchable(message, field.model._meta.db_table, field.column) from None
            parameters += [PlainPlaceholder(field.declaration, value, one) for one in plain]
        column, _ = compiler.compile(self.lhs)
        held, given = form.format(column), form.format("%s")
        condition = f"{column} IS NOT NULL AND {held} IN ({', '.join([given] * len(parameters))})"
        if is_text and is_inexact(field.stored, connection):
            # beside the comparison that an index of the column can answer
            held, given = exactly(held, connection), exactly(given, connection)
            condition += f" AND {held} IN ({', '.join([given] * len(parameters))})"
            parameters *= 2
        return f"({condition})", parameters


class Exact(_ByIndex):
    """`filter(ssn=…)`: equal in the sense of the index's normalisation."""

    lookup_name = "exact"


class IExact(_ByIndex):
    """`filter(ssn__iexact=…)`: by an index that knows no case."""

    lookup_name = "iexact"

    def fits(self, normalization: str) -> bool:
        return normalization == "casefold"

    def missing(self, field: Any, others: list[str]) -> str:
        return 'declare it with blind_index=BlindIndex(normalize="casefold")'


class In(_ByIndex):
    """`filter(ssn__in=[…])`."""

    lookup_name = "in"
    compared = "in"

    def __init__(self, lhs: Any, rhs: Any) -> None:
        # an iterator ends once, and is asked more often
        super().__init__(lhs, rhs if hasattr(rhs, "resolve_expression") else list(rhs))

    def _refuse_expressions(self, field: Any, value: Any) -> None:
        super()._refuse_expressions(field, value)
        for one in value:
            super()._refuse_expressions(field, one)

    def get_prep_lookup(self) -> Any:
        return [value for value in self.rhs if not self.lhs.target.holds_null(value)]

    def values(self) -> list[Any]:
        values = [value for value in self.rhs if value is not None]
        if not values:
            raise EmptyResultSet
        return values


class IsNullField(IsNull):
    """`filter(ssn__isnull=True)`: NULL is never encrypted."""


LOOKUPS: Final[dict[str, type[Lookup]]] = {"exact": Exact, "iexact": IExact, "in": In, "isnull": IsNullField}
