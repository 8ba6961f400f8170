"""Equality that the database answers as Python would: ciphertexts are bound to keys to the byte."""

from __future__ import annotations

from typing import Any

from django.db import models


def exactly(sql: str, connection: Any) -> str:
    """A text, as SQL, in a form that is compared byte by byte, whatever its collation."""
    if connection.vendor == "mysql":
        # binary collations still ignore blanks at the end
        return f"CAST(CONVERT({sql} USING utf8mb4) AS BINARY)"
    if connection.vendor == "postgresql":
        return f'({sql})::text COLLATE "C"'
    return f"{sql} COLLATE BINARY" if connection.vendor == "sqlite" else sql


def is_inexact(field: models.Field, connection: Any) -> bool:
    """Whether the database may take different texts in this column for equal."""
    field = getattr(field, "target_field", field)
    if connection.vendor == "mysql" or getattr(field, "db_collation", None):
        return True
    return "citext" in (field.db_type(connection) or "")


def ignores_case(field: models.Field, connection: Any) -> bool:
    """Whether the database may take texts in this column for equal that differ in more than blanks at their end."""
    field = getattr(field, "target_field", field)
    collation = (getattr(field, "db_collation", None) or "").lower()
    if not isinstance(field, models.CharField | models.TextField) or collation.endswith("_bin"):
        return False
    return is_inexact(field, connection)
