"""Encrypted columns in Django's admin: masked, found by blind index, and never in the change history.

    @admin.register(Patient)
    class PatientAdmin(EncryptedAdminMixin, admin.ModelAdmin):
        list_display = ["name", "ssn"]                  ssn shows <encrypted>
        search_fields = ["name", "ssn"]                 ssn is compared as a whole, by its blind index

For inlines as well, and then for the admin class that they stand in. What `__str__` of a model says is the
application's own; only for the change history it is asked of an object without the values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django import forms
from django.contrib.admin.exceptions import NotRegistered
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import HttpRequest
from django.utils.text import capfirst, smart_split

from keyside.django.admin_search import condition_of, searched_at, unquoted, unsearchable
from keyside.django.fields import EncryptedField
from keyside.django.indexing import BlindIndexField
from keyside.django.masking_forms import masking, names_a_row
from keyside.fields import MASK

Shown = Callable[[Any], Any]

_PARENT_HINT: Final = "Give it EncryptedAdminMixin as well."


class EncryptedAdminMixin:
    """For the bases of a ModelAdmin or an inline, before it."""

    model: type[models.Model]

    def has_reveal_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether this user sees encrypted values. Nobody does, unless this is overridden."""
        return False

    def mask_encrypted(self, field: EncryptedField, value: Any) -> Any:
        """What stands for a value that is not NULL; an override may leave the last four digits, say."""
        return MASK

    # lists and read-only fields

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        shown = super().get_list_display(request)  # type: ignore[misc]  # of the admin class beside this mixin
        return self._with_columns(shown, request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        named = list(super().get_readonly_fields(request, obj))  # type: ignore[misc]  # as above
        if not self._may_change(request, obj):
            named += [name for name in self._encrypted_names() if name not in named]
        return self._with_columns(named, request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        fieldsets = super().get_fieldsets(request, obj)  # type: ignore[misc]  # as above
        readonly = {one.__name__ for one in self.get_readonly_fields(request, obj) if isinstance(one, _Column)}
        seen: list[Any] = []
        return [
            (name, {**options, "fields": self._readonly(options["fields"], request, readonly, obj, seen)})
            for name, options in fieldsets
        ]

    def _readonly(
        self, fields: Sequence[Any], request: HttpRequest, names: set[str], obj: Any, seen: list[Any]
    ) -> list[Any]:
        """Fields of a fieldset with columns in place of names, each once."""
        kept: list[Any] = []
        for field in fields:
            if isinstance(field, list | tuple):
                kept.append(self._readonly(field, request, names, obj, seen))
                continue
            if isinstance(field, str) and field in names:
                (field,) = self._with_columns([field], request, obj)
            if not isinstance(field, _Column) or field not in seen:
                kept.append(field)
                seen.append(field)
        return kept

    def _with_columns(self, names: Iterable[Any], request: HttpRequest, obj: Any = None) -> list[Any]:
        """Columns in place of the names that lead to an encrypted field, through relations too, or to a blind index:
        on an object, that is the value that it indexes."""
        reveal = self.has_reveal_permission(request, obj)
        shown: list[Any] = []
        for name in names:
            place = searched_at(self.model, name) if isinstance(name, str) else None
            shown.append(name if place is None else _Column(self, place.field, reveal, place.path))
        return shown

    def _may_change(self, request: HttpRequest, obj: Any) -> bool:
        allowed: bool = self.has_change_permission(request, obj)  # type: ignore[attr-defined]  # of the admin class
        return obj is None or allowed

    def _encrypted_names(self) -> list[str]:
        return [field.name for field in _encrypted_fields(self.model)]

    # forms

    def formfield_for_dbfield(self, db_field: models.Field, request: HttpRequest, **named: Any) -> Any:
        if isinstance(db_field, EncryptedField) and not db_field.choices:
            overrides = self.formfield_overrides  # type: ignore[attr-defined]  # of the admin class
            for kind in type(db_field.inner).__mro__:
                if kind in overrides:
                    named = {**copy.deepcopy(overrides[kind]), **named}
                    break
        return super().formfield_for_dbfield(db_field, request, **named)  # type: ignore[misc]  # as above

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **named: Any) -> Any:
        form: type[forms.ModelForm] = super().get_form(request, obj, change=change, **named)  # type: ignore[misc]  # as above
        return form if self.has_reveal_permission(request, obj) else masking(form, lambda form: _saves_as_new(request))

    def get_formset(self, request: HttpRequest, obj: Any = None, **named: Any) -> Any:
        """Raises ImproperlyConfigured for an inline whose values would get into the change history."""
        careless = _careless_parent(self)
        if careless is not None:
            raise ImproperlyConfigured(f"{careless} {_PARENT_HINT}")
        formset = super().get_formset(request, obj, **named)  # type: ignore[misc]  # as above
        if not self.has_reveal_permission(request, obj):
            formset.form = masking(formset.form, lambda form: _saves_as_new(request) and names_a_row(form))
        return formset

    # search

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, search_term: str
    ) -> tuple[models.QuerySet, bool]:
        """Each word is looked for in plain fields as ever, and in encrypted ones as a whole; so is the whole term."""
        names = [str(name) for name in self.get_search_fields(request)]  # type: ignore[attr-defined]  # of the admin class
        encrypted = {name: found for name in names if (found := searched_at(self.model, name)) is not None}
        if not encrypted or not search_term:
            return super().get_search_results(request, queryset, search_term)  # type: ignore[misc,no-any-return]  # as above
        plain = copy.copy(self)
        plain.get_search_fields = lambda request: [name for name in names if name not in encrypted]  # type: ignore[attr-defined]  # for one search
        words = list(smart_split(search_term))
        found, duplicates = queryset, False
        for word in words:
            whole = found.filter(condition_of(encrypted.values(), unquoted(word)))
            if len(names) > len(encrypted):
                partly, more = super(EncryptedAdminMixin, plain).get_search_results(request, found, word)  # type: ignore[misc]  # as above
                whole, duplicates = whole | partly, duplicates or more
            found = whole
        if len(words) > 1:
            found = found | queryset.filter(condition_of(encrypted.values(), search_term.strip()))
        return found, duplicates or any("__" in one.path for one in encrypted.values())

    # change history

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> list[Any]:
        named = [_NamedObjects(formset) for formset in formsets or []]
        message: list[Any] = super().construct_change_message(request, form, named, add)  # type: ignore[misc]  # as above
        return message

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return super().log_addition(request, _Named(obj), message)  # type: ignore[misc]  # as above

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return super().log_change(request, _Named(obj), message)  # type: ignore[misc]  # as above

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Any]) -> Any:
        return super().log_deletions(request, [_Named(obj) for obj in queryset])  # type: ignore[misc]  # as above

    # declarations that cannot work

    def check(self, **named: Any) -> list[Any]:
        found: list[Any] = super().check(**named)  # type: ignore[misc]  # as above
        careless = _careless_parent(self)
        if careless is not None:
            found.append(checks.Error(careless, hint=_PARENT_HINT, obj=type(self), id="keyside.E103"))
        return [*found, *_impossible(self), *_careless_inlines(self)]


def _saves_as_new(request: HttpRequest) -> bool:
    return "_saveasnew" in request.POST


class _Column:
    """A callable for `list_display` and fieldsets that shows an encrypted field, and offers no sorting."""

    def __init__(
        self, admin: EncryptedAdminMixin, field: EncryptedField | BlindIndexField, reveal: bool, path: str
    ) -> None:
        self.__name__ = path
        self.short_description = capfirst(field.verbose_name)
        self._admin = admin
        self._field = field
        self._reveal = reveal

    def __call__(self, obj: Any) -> Any:
        for relation in self.__name__.split("__")[:-1]:
            obj = getattr(obj, relation, None)
        value = getattr(obj, self._field.attname, None)
        if value is None or not self._reveal:
            shown = self._field.source_field if isinstance(self._field, BlindIndexField) else self._field
            return None if value is None else self._admin.mask_encrypted(shown, value)
        return dict(self._field.flatchoices).get(value, value) if self._field.choices else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Column) and other.__name__ == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)


class _Named:
    """An object as the change history may name it."""

    def __init__(self, obj: Any) -> None:
        self._meta = obj._meta
        self.pk = obj.pk
        self._text = _text_without_encrypted(obj)

    def __str__(self) -> str:
        return self._text


class _NamedObjects:
    """A formset whose objects are named so."""

    def __init__(self, formset: Any) -> None:
        self._formset = formset
        self.new_objects = [_Named(obj) for obj in formset.new_objects]
        self.changed_objects = [(_Named(obj), names) for obj, names in formset.changed_objects]
        self.deleted_objects = [_Named(obj) for obj in formset.deleted_objects]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._formset, name)


class _Masked(str):
    """What `__str__` of a model finds in place of an encrypted value."""

    __slots__ = ()

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __getitem__(self, key: Any) -> str:
        return MASK


def _text_without_encrypted(obj: Any) -> str:
    """What `__str__` says of an object without seeing its encrypted values; where it cannot do without, its key."""
    encrypted = _encrypted_fields(type(obj))
    if not encrypted:
        return str(obj)
    seen = copy.copy(obj)
    columns = {field.attname for field in obj._meta.concrete_fields}
    # without what the application keeps on the object, such as cached properties
    held = {name: value for name, value in obj.__dict__.items() if name in columns}
    hidden = {field.attname: _Masked(MASK) for field in encrypted if held.get(field.attname, MASK) is not None}
    seen.__dict__ = {"_state": seen._state, **held, **hidden}
    try:
        return str(seen)
    except Exception:  # of the application's own code, which expects a date, say
        return f"{type(obj).__name__} object ({obj.pk})"


def _encrypted_fields(model: type[models.Model]) -> list[EncryptedField]:
    return [field for field in model._meta.concrete_fields if isinstance(field, EncryptedField)]


def _careless_parent(inline: Any) -> str | None:
    """What is wrong with the admin class around an inline, when that is one: it is the one that writes the history."""
    if not hasattr(inline, "parent_model") or not _encrypted_fields(inline.model):
        return None
    try:
        parent = inline.admin_site.get_model_admin(inline.parent_model)
    except NotRegistered:
        return None
    if isinstance(parent, EncryptedAdminMixin):
        return None
    name = type(parent).__name__
    return f"{name}, in which {type(inline).__name__} stands, writes encrypted values into the change history."


def _careless_inlines(admin: Any) -> list[checks.Warning]:
    """Inlines that show values on a page that masks the rest."""
    return [
        checks.Warning(
            f"{inline.__name__} shows encrypted values in the forms of {type(admin).__name__}, which masks its own.",
            hint="Give it EncryptedAdminMixin as well, which masks; has_reveal_permission() says who sees values.",
            obj=type(admin),
            id="keyside.W101",
        )
        for inline in getattr(admin, "inlines", None) or ()
        if not issubclass(inline, EncryptedAdminMixin) and _encrypted_fields(inline.model)
    ]


def _impossible(admin: Any) -> list[checks.Error]:
    """What Django's own checks let pass, and no ciphertext can do."""
    found = []
    for option, hint in (
        ("list_filter", "filter by a plain field"),
        ("ordering", "sort by a plain field"),
        ("list_editable", "edit it in the form of an object"),
        ("date_hierarchy", "use a plain date"),
    ):
        named = getattr(admin, option, None) or ()
        for name in [named] if isinstance(named, str) else named:
            name = name[0] if isinstance(name, tuple) and name else name
            place = searched_at(admin.model, name.lstrip("-")) if isinstance(name, str) else None
            if place is not None and (option == "list_filter" or isinstance(place.field, EncryptedField)):
                message = f"The value of '{option}' refers to {name!r}, which is encrypted."
                found.append(checks.Error(message, hint=hint, obj=type(admin), id="keyside.E101"))
    return [*found, *unsearchable(admin)]
