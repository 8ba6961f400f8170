"""What type checkers see of an encrypted field: a model's attribute takes and gives what it does with the field inside.

With django-stubs that is the type of the value; without types for Django it is Any, as for Django's own fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, overload

from django.db import models

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Set = TypeVar("Set", default=Any)
    Get = TypeVar("Get", default=Any)
    Set_contra = TypeVar("Set_contra", contravariant=True)
    Get_co = TypeVar("Get_co", covariant=True)

    class Attribute(Protocol[Set_contra, Get_co]):
        """A field as the attribute of a model's instance."""

        def __get__(self, instance: models.Model, owner: Any, /) -> Get_co: ...

        def __set__(self, instance: Any, value: Set_contra, /) -> None: ...

    class TypedField(models.Field[Set, Get], Generic[Set, Get]):
        """A field of Django's types, where they are installed."""

        @overload
        def __get__(self, instance: None, owner: Any) -> Any: ...

        @overload
        def __get__(self, instance: Any, owner: Any) -> Get: ...

        def __get__(self, instance: Any, owner: Any) -> Any: ...

        def __set__(self, instance: Any, value: Set) -> None: ...

else:  # while it runs a field is what it is for Django: an instance's attribute is no affair of its class
    from typing import TypeVar

    Set = TypeVar("Set")
    Get = TypeVar("Get")

    class TypedField(models.Field, Generic[Set, Get]):
        """A field whose class takes the types of its attribute: `EncryptedField[str, str]`."""
