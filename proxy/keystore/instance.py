"""One sidecar a keystore file: an advisory lock beside it, released by the kernel however the holder ends."""

import fcntl
import os
from pathlib import Path

from proxy.keystore.errors import AnotherInstance, KeystoreFailing


class InstanceLock:
    """An exclusive flock(2) on `<keystore>.lock`, which names its holder's pid."""

    def __init__(self, keystore: Path) -> None:
        """Take the lock. Raises AnotherInstance, KeystoreFailing."""
        self.path = keystore.with_name(keystore.name + ".lock")
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise KeystoreFailing(f"the keystore's lock file {self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise AnotherInstance(
                f"another sidecar (pid {holder}) has {keystore} open: stop it, or give this one a keystore of its own"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two later holders lock different files."""
        os.close(self._descriptor)
