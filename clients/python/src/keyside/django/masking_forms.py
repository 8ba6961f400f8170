"""Forms that take new values of encrypted columns and never show the present ones: left empty, a value stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

from keyside.django.fields import EncryptedField
from keyside.fields import MASK

_NOT_COPIED: Final = "A copy does not take along what is not shown: type it again, or add the object anew."


class MaskedWidget(forms.Widget):
    """Another widget, always drawn as if there were no value."""

    def __init__(self, inner: forms.Widget) -> None:
        super().__init__(inner.attrs)
        self.inner = inner
        self.needs_multipart_form = inner.needs_multipart_form

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskedWidget:
        fresh = copy.copy(self)
        fresh.inner = copy.deepcopy(self.inner, memo)
        fresh.attrs = fresh.inner.attrs
        memo[id(self)] = fresh
        return fresh

    @property
    def is_hidden(self) -> bool:
        return bool(self.inner.is_hidden)

    @property
    def media(self) -> forms.Media:
        return self.inner.media

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = self.inner.get_context(name, None, self._masked(attrs))
        return found

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> str:
        drawn: str = self.inner.render(name, None, self._masked(attrs), renderer)
        return drawn

    def _masked(self, attrs: dict[str, Any] | None) -> dict[str, Any]:
        # browsers show a placeholder in what is typed into; what is chosen from has an option for it
        typed = not isinstance(self.inner, forms.widgets.ChoiceWidget)
        return {**({"placeholder": MASK} if typed else {}), **(attrs or {})}

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        return self.inner.value_from_datadict(data, files, name)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return bool(self.inner.value_omitted_from_data(data, files, name))

    def id_for_label(self, id_: str) -> str:
        return str(self.inner.id_for_label(id_))


class MaskedField(forms.Field):
    """A form field that takes what another one takes; left empty, it gives `kept`, or is an error in a `copied` object,
    which would lack the value."""

    def __init__(self, inner: forms.Field, kept: Any, copied: bool = False) -> None:
        if isinstance(inner, forms.BooleanField):
            # a box that is not ticked would say False; this one can say that nothing changes
            inner = forms.NullBooleanField(label=inner.label, help_text=inner.help_text, disabled=inner.disabled)
            unknown, *others = inner.widget.choices
            inner.widget.choices = [(unknown[0], MASK), *others]
        elif isinstance(inner, forms.ChoiceField):
            # a list without an empty choice sends its first one
            inner.choices = [("", MASK), *[choice for choice in inner.choices if choice[0] not in inner.empty_values]]
        self.inner = inner
        self.kept = kept
        self.copied = copied
        super().__init__(
            required=False,
            widget=MaskedWidget(inner.widget),
            label=inner.label,
            help_text=inner.help_text,
            disabled=inner.disabled,
        )

    def clean(self, value: Any) -> Any:
        if self.copied and self._is_left_out(value):
            raise ValidationError(_NOT_COPIED, code="required")
        if self.kept is not None and self._is_left_out(value):
            return self.kept
        return self.inner.clean(value)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.copied if self._is_left_out(data) else bool(self.inner.has_changed(initial, data))

    def _is_left_out(self, value: Any) -> bool:
        parts = value if isinstance(value, list | tuple) else [value]
        return all(part in self.inner.empty_values for part in parts)


class MaskingForm:
    """For a ModelForm's bases: fields of encrypted columns show nothing of an object that is there already."""

    copied: Callable[[Any], bool] = staticmethod(lambda form: False)
    """Whether a form of a new object was sent from the page of another one, to copy it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        form: Any = self
        adding = form.instance._state.adding
        if adding and not self.copied(form):
            return
        for name, field in form.fields.items():
            model_field = _model_field(form.instance, name)
            if model_field is not None:
                kept = None if adding else model_field.value_from_object(form.instance)
                form.fields[name] = MaskedField(field, kept, adding)


def masking(form: Any, copied: Callable[[Any], bool] = MaskingForm.copied) -> Any:
    """The form class, with `MaskingForm` among its bases."""
    return type(form)(form.__name__, (MaskingForm, form), {"copied": staticmethod(copied)})


def names_a_row(form: Any) -> bool:
    """Whether the form of an inline was sent with the key of a row."""
    return bool(form.data.get(form.add_prefix(form.instance._meta.pk.name)))


def _model_field(instance: Any, name: str) -> EncryptedField | None:
    for field in instance._meta.concrete_fields:
        if field.name == name and isinstance(field, EncryptedField):
            return field
    return None
