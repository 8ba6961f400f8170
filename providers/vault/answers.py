"""What an answer of Vault or OpenBao means: a mapping of JSON, or one of the errors of `providers.errors`.

status        error                what it is
2xx           none                 (when the body is JSON; Unavailable when it is some error page)
3xx           Unavailable          a standby that names the active node; never followed, the token stays here
400           by message           _RULES; what none of them knows is `Unexplained`, and the caller looks closer
401           CredentialsInvalid   a proxy in between asks for a login of its own
403           Denied               the token is good and may not, or is not good: `identity` finds out
404           NotFound             no such mount or key
405, 413      InputRefused         the mount is no transit engine; the request is too large
412           Unavailable          the node has not caught up yet
429           Throttled            a rate limit quota, with its Retry-After
472, 473      Unavailable          a secondary or standby of Vault Enterprise that does not serve this
500, 502, 504 Unavailable          a failure of its own, or of a proxy in between
503           Unavailable          sealed, or not initialised
other 4xx     InputRefused         never tried again
other 5xx     Unavailable
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from providers.errors import (
    CredentialsInvalid,
    Denied,
    InputRefused,
    KeyDisabled,
    NotFound,
    ProviderError,
    Tampered,
    Throttled,
    Unavailable,
)
from providers.vault.server import Answer

MAX_SAID: Final = 160

_NO_KEY: Final = "there is no such key in the transit mount: see hsm.kek and hsm.mount, or restore it"
_RULES: Final[tuple[tuple[str, type[ProviderError], str], ...]] = (
    (
        "message authentication failed",
        Tampered,
        "the wrap does not authenticate: its bytes were changed, or it belongs to another data key, keyring, partition "
        "or purpose; restore that keystore row from a backup",
    ),
    ("invalid ciphertext length", Tampered, "the wrap was cut short: restore that keystore row from a backup"),
    ("key not found", NotFound, _NO_KEY),
    ("no existing key", NotFound, _NO_KEY),
    (
        "version is too new",
        NotFound,
        "the key has no such version: was it deleted and made anew, or restored from an old backup?",
    ),
    ("disallowed by policy", KeyDisabled, "that version is below the key's min_decryption_version: lower it"),
    ("signature is invalid", Tampered, "the signature is not of this data by this key"),
    ("soft-deleted", KeyDisabled, "the key is soft-deleted: restore it (transit/keys/NAME/soft-delete-restore)"),
    ("does not support", InputRefused, "the key's type cannot do this"),
    ("missing client token", CredentialsInvalid, "no token was sent: see hsm.credentials, or the agent's auto-auth"),
)
_LONG_WORD: Final = re.compile(r"[\w+/=.:-]{32,}")


class Unexplained(InputRefused):
    """A 400 whose message is none that is known: other releases word them otherwise."""


def document(answer: Answer, about: str) -> Mapping[str, Any]:
    """The JSON object of a good answer; empty when there is no content. `about` goes in front of error messages.

    Raises the ProviderError that the status means.
    """
    if not 200 <= answer.status < 300:
        raise failure(answer, about)
    if not answer.body:
        return {}
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise not_vault(about)
    return found


def data(answer: Answer, about: str) -> Mapping[str, Any]:
    """The member `data` of a good answer. Raises as `document`."""
    found = document(answer, about).get("data")
    if not isinstance(found, dict):
        raise not_vault(about)
    return found


def not_vault(about: str) -> Unavailable:
    """The error for an answer that is none of Vault's."""
    return Unavailable(f"{about}: the answer is not Vault's JSON: is there a proxy or another service at the endpoint?")


def failure(answer: Answer, about: str) -> ProviderError:
    """The error that a status outside 2xx means."""
    messages = said(answer)
    tail = f" ({messages})" if messages else ""
    match answer.status:
        case 400:
            return _refusal(messages, about)
        case 401:
            return CredentialsInvalid(f"{about}: a proxy in between wants a login of its own{tail}")
        case 403:
            return Denied(f"{about}: permission denied: see the token's policies")
        case 404:
            return NotFound(f"{about}: not there: see hsm.kek, hsm.mount and hsm.namespace{tail}")
        case 405:
            return InputRefused(f"{about}: unknown to the server: is hsm.mount a transit engine?{tail}")
        case 412:
            return Unavailable(f"{about}: this node has not caught up with the others yet")
        case 429:
            return Throttled(f"{about}: a rate limit of the server's is reached: raise its quota", answer.retry_after)
        case 503:
            return Unavailable(f"{about}: sealed, or in maintenance: unseal the server{tail}")
        case 472 | 473:
            return Unavailable(f"{about}: a standby or secondary that does not serve this: name the active node")
        case status if 300 <= status < 400:
            return Unavailable(
                f"{about}: a standby that redirects: name the active node or a load balancer in "
                "hsm.connection.endpoint, or let the servers forward requests"
            )
        case status if 400 <= status < 500:
            return InputRefused(f"{about}: refused with HTTP {status}{tail}")
        case status:
            return Unavailable(f"{about}: the server failed with HTTP {status}{tail}")


def said(answer: Answer) -> str:
    """The server's own words, one line, short; long runs of base64 or the like are left out: they may be secrets."""
    try:
        errors = json.loads(answer.body).get("errors")
    except (ValueError, AttributeError, RecursionError):
        return ""
    if not isinstance(errors, list):
        return ""
    words = " ".join("; ".join(text for text in errors if isinstance(text, str)).split())
    return _LONG_WORD.sub("...", "".join(letter for letter in words if letter.isprintable()))[:MAX_SAID]


def _refusal(messages: str, about: str) -> ProviderError:
    for words, error, remedy in _RULES:
        if words in messages:
            return error(f"{about}: {remedy}")
    return Unexplained(f"{about}: refused" + (f" ({messages})" if messages else ""))
