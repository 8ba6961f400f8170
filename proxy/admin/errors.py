"""What the admin side answers instead of a result. Messages are for people and hold nothing secret.

AdminError          the request cannot be met
├── NotFound        no such keyring
├── Conflict        the keyring exists
├── Invalid         the request is malformed, or asks for what cannot be
├── NotNow          the keystore or the provider cannot serve this at the moment
└── ConfigRefused   the new configuration has problems; the old one stays in force
"""

from collections.abc import Sequence


class AdminError(Exception):
    """The request cannot be met."""

    http_status = 500
    code = "internal"


class NotFound(AdminError):
    """There is no such thing."""

    http_status = 404
    code = "not_found"


class Conflict(AdminError):
    """It exists already."""

    http_status = 409
    code = "exists"


class Invalid(AdminError):
    """The request is malformed, or asks for what cannot be."""

    http_status = 400
    code = "invalid"


class NotNow(AdminError):
    """Something that the answer needs is out of order."""

    http_status = 503
    code = "unavailable"


class ConfigRefused(AdminError):
    """The new configuration has problems; the old one stays in force."""

    http_status = 400
    code = "config"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("the configuration has problems; the old one stays in force")
        self.problems = tuple(problems)
