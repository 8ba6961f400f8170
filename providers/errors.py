"""What a back end can answer instead of a result.

    ProviderError
    ├── RetryableError           worth another attempt, within the retry policy
    │   ├── Unavailable          cannot be reached, or is failing
    │   ├── Throttled            reached, and asks for fewer calls
    │   └── Timeout              no answer within `performance.requestTimeout`
    ├── Denied                   the credentials are good, and may not do this
    ├── CredentialsInvalid       missing, malformed, expired or refused credentials (a local root key is one)
    ├── ConfigurationInvalid     the settings cannot work; carries every problem with its path
    ├── NotFound                 no such key-encryption key, object or file
    ├── KeyDisabled              the key-encryption key exists and may not be used
    ├── ForeignWrap              made by another provider, or with a mechanism this one does not know
    ├── Tampered                 does not authenticate: altered bytes, or another context than it was made for
    ├── InputRefused             the caller's input breaks a limit of the operation
    ├── ExportRefused            keys do not leave a back end, by any operation
    └── Closed                   the provider was closed

Messages say what to do next. None holds a key, a passphrase, a token, a plaintext or the bytes of a wrap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """One thing wrong in a configuration."""

    path: str  # as in the file: `hsm.performance.retryPolicy.maxRetries`
    message: str


class ProviderError(Exception):
    """Base of everything that a provider raises by design."""

    retryable: ClassVar[bool] = False


class RetryableError(ProviderError):
    """A later attempt may succeed without anybody changing anything."""

    retryable: ClassVar[bool] = True


class Unavailable(RetryableError):
    """The back end cannot be reached, dropped the connection, or answers with a failure of its own."""


class Throttled(RetryableError):
    """The back end refuses for now; `retry_after` is the pause that it asks for, in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Timeout(RetryableError):
    """No answer in the time that `performance.requestTimeout` allows, retries included."""


class Denied(ProviderError):
    """The back end knows the caller and refuses the operation to it."""


class CredentialsInvalid(ProviderError):
    """The back end does not accept the credentials, or they cannot be read safely."""


class ConfigurationInvalid(ProviderError):
    """The `hsm` section cannot work. `problems` holds all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in self.problems))


class NotFound(ProviderError):
    """The key-encryption key, object or file that was named does not exist."""


class KeyDisabled(ProviderError):
    """The key-encryption key is disabled, pending deletion or destroyed."""


class ForeignWrap(ProviderError):
    """A wrap that this provider cannot have made."""


class Tampered(ProviderError):
    """The bytes do not authenticate: changed, or presented with another context than they were made for."""


class InputRefused(ProviderError):
    """The input is longer, shorter or of another kind than the operation takes."""


class ExportRefused(ProviderError):
    """Exporting keys is refused by every provider."""


class Closed(ProviderError):
    """The provider was closed; make a new one."""
