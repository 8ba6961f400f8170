"""Which error code of docs/spec/wire.md a request gets when its data key cannot be had, and how loudly that is said.

Refused(Exception)   the keystore's own answer is no; `code` says why
"""

import logging
from enum import IntEnum
from typing import NamedTuple

from fastpath.dataplane import CacheFull
from providers import ForeignWrap, ProviderError, Tampered
from proxy.keystore import KeystoreCorrupt, KeystoreError


class Code(IntEnum):
    """Numbers of docs/spec/wire.md, those that the key service answers with."""

    UNKNOWN_KEYRING = 18
    UNKNOWN_KEY = 19
    INVALID_CIPHERTEXT = 20
    KEY_DISABLED = 21
    OVERLOADED = 23
    KMS_UNAVAILABLE = 24
    INTERNAL = 25


class Refused(Exception):
    """The request may not have this data key."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Verdict(NamedTuple):
    """What to answer, how loudly to log it (logging's levels), and the kind of failure for counters."""

    code: Code
    level: int
    kind: str


def judge(error: Exception) -> Verdict:
    """Decide about an error met while a data key was fetched or made.

    A provider that cannot be reached, is slow, or refuses its credentials or its KEK, and a keystore that is locked,
    read-only, full or taken away, are KMS_UNAVAILABLE: somebody can mend them and the same request will succeed. What
    does not authenticate or cannot be read is INTERNAL: a damaged or rearranged keystore, which no retry mends.
    """
    kind = type(error).__name__
    match error:
        case Refused():
            return Verdict(error.code, logging.DEBUG, error.code.name.lower())
        case CacheFull():
            return Verdict(Code.OVERLOADED, logging.ERROR, "cache_full")
        case Tampered() | KeystoreCorrupt():
            return Verdict(Code.INTERNAL, logging.CRITICAL, kind.lower())
        case ForeignWrap() | ProviderError():
            return Verdict(Code.KMS_UNAVAILABLE, logging.ERROR, kind.lower())
        case KeystoreError():
            return Verdict(Code.KMS_UNAVAILABLE, logging.ERROR, kind.lower())
        case _:
            return Verdict(Code.INTERNAL, logging.CRITICAL, "defect")
