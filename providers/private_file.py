"""Files that hold keys: read only when nobody else could have read or written them, created whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from providers.errors import CredentialsInvalid, Denied, NotFound, Unavailable
from providers.wiping import wipe

_FOR_OTHERS: Final = 0o077
_FOR_THE_WORLD: Final = 0o007


def read_private(path: Path, what: str, remedy: str, *, handed_over: bool = False, limit: int = 4096) -> bytearray:
    """Return the whole file, at most `limit` bytes; the caller wipes it.

    It must be a regular file of this user or root, without any permission for group or others. `handed_over` is for
    systemd credentials, whose owner and group bits are systemd's affair (it uses ACLs): only the world is kept out.
    `what` names the file's role in messages, `remedy` says what to do when it is missing.
    Raises NotFound, Denied, CredentialsInvalid, Unavailable.
    """
    try:
        # not to wait for a writer, should it be a FIFO
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _require_private(os.fstat(descriptor), path, what, handed_over)
            return _read_whole(descriptor, path, what, limit)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"the {what} {path} is missing: {remedy}") from error
    except PermissionError as error:
        raise Denied(
            f"uid {os.geteuid()} may not read the {what} {path}: run as its owner, or give it to this user"
        ) from error
    except OSError as error:
        raise Unavailable(f"reading the {what} {path} failed ({error.strerror}): see to the disk or mount") from error


def create_private(path: Path, content: bytes | bytearray) -> None:
    """Make a file of mode 0600 that is on disk, whole, when this returns; never replace one.

    Raises FileExistsError when `path` exists, or the OSError that stopped it; then nothing is left behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            _write_whole(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, path)  # unlike a rename it fails when `path` exists
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _require_private(status: os.stat_result, path: Path, what: str, handed_over: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialsInvalid(f"the {what} {path} is not a regular file: name the file itself")
    if handed_over:
        if status.st_mode & _FOR_THE_WORLD:
            raise CredentialsInvalid(f"the {what} {path} is open to every user: pass it with systemd's LoadCredential=")
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise CredentialsInvalid(
            f"the {what} {path} belongs to uid {status.st_uid}, who could replace it: make sure that it is yours, then "
            f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & _FOR_OTHERS:
        raise CredentialsInvalid(
            f"the {what} {path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may have read it: "
            f"chmod 600 {path}, and replace the key if they could"
        )


def _read_whole(descriptor: int, path: Path, what: str, limit: int) -> bytearray:
    buffer = bytearray(limit + 1)
    length = 0
    while count := _read_into(descriptor, buffer, length):
        length += count
    if length > limit:
        wipe(buffer)
        raise CredentialsInvalid(f"the {what} {path} is longer than {limit} bytes: it is some other file")
    content = buffer[:length]
    wipe(buffer)
    return content


def _read_into(descriptor: int, buffer: bytearray, offset: int) -> int:
    with memoryview(buffer) as whole, whole[offset:] as rest:
        return os.readv(descriptor, [rest])


def _write_whole(descriptor: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
