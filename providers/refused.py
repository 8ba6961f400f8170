"""Credentials that were refused are not sent again for a while: at each miss they would be, until something locks."""

from __future__ import annotations

import time
from typing import Final

from providers.errors import CredentialsInvalid

REFUSAL_SECONDS: Final = 5.0
"""How long refused credentials are not sent again, unless they changed."""

_NOT_SENT: Final = " [not sent again within {:g} s]"


class Refused:
    """The credentials that were refused last, and why. What they are is a digest that the caller makes."""

    def __init__(self) -> None:
        self._digest: object = None
        self._until = 0.0
        self._why = ""

    def check(self, digest: object) -> None:
        """Raise CredentialsInvalid with the reason of then, while these credentials are not to be sent."""
        if self._holds(digest):
            raise CredentialsInvalid(self._why + _NOT_SENT.format(REFUSAL_SECONDS))

    def note(self, digest: object, error: CredentialsInvalid) -> None:
        """These were refused. Of several calls that were under way the first counts, and its reason stays."""
        if not self._holds(digest):
            self._digest, self._until = digest, time.monotonic() + REFUSAL_SECONDS
            self._why = str(error).removesuffix(_NOT_SENT.format(REFUSAL_SECONDS))

    def _holds(self, digest: object) -> bool:
        return digest == self._digest and time.monotonic() < self._until
