"""Durations, sizes, file modes and account names as operators write them, and as the code wants them.

All are pydantic annotations; what they refuse becomes a problem with its path.
"""

import grp
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

MAX_ACCOUNT_ID: Final = 2**32 - 2  # the kernel's (uid_t)-1 means "no change"

MAX_SOCKET_PATH: Final = 107
"""Bytes that fit in sockaddr_un.sun_path before its NUL (unix(7))."""

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_MODE = re.compile(r"0?[0-7]{3}")


def _quantity(value: object, units: dict[str, int], examples: str) -> int:
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"write a number and a unit of {', '.join(units)}, such as {examples}")
    scaled = float(match[1]) * units[match[2]]
    if scaled != int(scaled):
        raise ValueError(f"is finer than the smallest unit, {next(iter(units))}: write a whole number of those")
    return int(scaled)


def _duration(value: object) -> int:
    return _quantity(value, _MILLISECONDS, "250ms, 30s, 5m or 1h")


def _size(value: object) -> int:
    return value if type(value) is int else _quantity(value, _BYTES, "8MiB or a plain number of bytes")


def _mode(value: object) -> int:
    # a bare 0660 is an octal number to YAML and a bare 660 a decimal one: only text says what was meant
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('write the mode as quoted octal digits, such as "0660"')
    return int(value, 8)


def _path(value: Path, info: ValidationInfo) -> Path:
    context: Mapping[str, Path] = info.context or {}
    return context["base"] / value.expanduser()


def _socket_path(path: Path) -> Path:
    size = len(bytes(path))
    if size > MAX_SOCKET_PATH:
        raise ValueError(
            f"is {size} bytes long as {path}, and a Unix socket's path has at most {MAX_SOCKET_PATH}: use a shorter "
            "one, such as /run/keyside/keyside.sock"
        )
    return path


def _account(value: object) -> object:
    if type(value) is int and not 0 <= value <= MAX_ACCOUNT_ID:
        raise ValueError(f"an account id is 0 to {MAX_ACCOUNT_ID}")
    if type(value) is not int and not (isinstance(value, str) and value):
        raise ValueError("write a number or an account's name")
    return value


def auto_or_int(least: int, most: int) -> BeforeValidator:
    """An annotation for `auto` or a whole number in a range; a union of pydantic's would report one fault twice."""

    def check(value: object) -> object:
        if value == "auto" or (type(value) is int and least <= value <= most):
            return value
        raise ValueError(f"write auto, or a whole number from {least} to {most}")

    return BeforeValidator(check)


def _user(value: object) -> object:
    account = _account(value)
    if not isinstance(account, str):
        return account
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError as error:
        raise ValueError(f"this machine has no user {account!r}: create it, or write its number") from error


def _group(value: object) -> object:
    account = _account(value)
    if not isinstance(account, str):
        return account
    try:
        return grp.getgrnam(account).gr_gid
    except KeyError as error:
        raise ValueError(f"this machine has no group {account!r}: create it, or write its number") from error


Milliseconds = Annotated[int, BeforeValidator(_duration)]
"""Written `250ms`, `30s`, `5m`, `1h`, `1d`; held as milliseconds."""

Bytes = Annotated[int, BeforeValidator(_size)]
"""Written `8MiB`, `64KiB`, `1GB` or as a plain number; held as bytes."""

Mode = Annotated[int, BeforeValidator(_mode)]
"""Permission bits, written as quoted octal digits."""

FilePath = Annotated[Path, Field(strict=False), AfterValidator(_path)]
"""Relative paths are relative to the folder of the configuration file; held absolute."""

SocketPath = Annotated[FilePath, AfterValidator(_socket_path)]
"""A path of a Unix socket, short enough to be one once made absolute."""

Uid = Annotated[int, BeforeValidator(_user)]
"""A user's number or name; held as the number."""

Gid = Annotated[int, BeforeValidator(_group)]
"""A group's number or name; held as the number."""
