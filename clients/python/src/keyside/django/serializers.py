"""Encrypted fields in serializers of Django REST framework: to them they are what the fields inside are.

class PatientSerializer(EncryptedModelSerializer):
    class Meta:
        model = Patient
        fields = ["id", "ssn"]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models
from rest_framework.serializers import ModelSerializer
from rest_framework.validators import UniqueValidator

from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.keeping import is_kept


class EncryptedSerializerMixin:
    """For the bases of a ModelSerializer, before it."""

    def build_standard_field(self, field_name: str, model_field: Any) -> tuple[Any, dict[str, Any]]:
        """Raises what REST framework does."""
        if not isinstance(model_field, EncryptedField):
            return super().build_standard_field(field_name, model_field)  # type: ignore[misc,no-any-return]  # of the serializer beside this mixin
        kind, options = super().build_standard_field(field_name, model_field.inner)  # type: ignore[misc]  # as above
        if not options.get("read_only"):
            unique = [UniqueByIndex(index) for index, _ in model_field.indexes if _can_be_looked_up(index)]
            options["validators"] = [*(options.get("validators") or ()), *unique]
        return kind, options

    def update(self, instance: models.Model, validated_data: dict[str, Any]) -> Any:
        """As REST framework does, but a client that sends back the null that stood for a value that did not open does
        not erase it."""
        fields = instance._meta.concrete_fields
        kept = {field.name for field in fields if isinstance(field, EncryptedField) and is_kept(field, instance)}
        changed = {name: value for name, value in validated_data.items() if value is not None or name not in kept}
        return super().update(instance, changed)  # type: ignore[misc]  # as above

    def get_unique_together_constraints(self, model: type[models.Model]) -> Iterator[tuple[Any, ...]]:
        """Constraints on blind indexes, said of the fields that are looked for by them."""
        for names, *rest in super().get_unique_together_constraints(model):  # type: ignore[misc]  # as above
            yield tuple(_searched_field(model, name) for name in names), *rest


class EncryptedModelSerializer(EncryptedSerializerMixin, ModelSerializer):
    """A ModelSerializer of a model with encrypted fields."""


class UniqueByIndex(UniqueValidator):
    """Whether another row has the value, by a unique blind index. A value that has no index is never equal."""

    def __init__(self, index: BlindIndexField) -> None:
        own = (index.source_field.inner._error_messages or {}).get("unique")
        super().__init__(index.model._default_manager, own)
        self._index = index.name

    def filter_queryset(self, value: Any, queryset: Any, field_name: str) -> Any:
        return super().filter_queryset(value, queryset, self._index)


def _can_be_looked_up(index: BlindIndexField) -> bool:
    # a field's validator knows nothing of the rest of the row, which may choose the partition
    return index.unique and index.declaration.partition_column is None


def _searched_field(model: type[models.Model], name: str) -> str:
    """The encrypted field whose equality an index answers, in place of the index."""
    field = model._meta.get_field(name)
    if not isinstance(field, BlindIndexField):
        return name
    whole = [index for index, declared in field.source_field.indexes if declared.normalize.whole]
    return field.source if whole[:1] == [field] else name
