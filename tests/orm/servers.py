"""Debian's PostgreSQL on a private socket, owned by a user without privileges when the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = "nobody"
VERSIONS = Path("/usr/lib/postgresql")


def programs() -> Path:
    """Where the newest installed server's programs are; `scripts/prerequisites servers` installs one."""
    found = sorted(VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    assert found, "no PostgreSQL server: scripts/prerequisites servers"
    return found[-1].parent


@contextmanager
def postgresql() -> Iterator[Path]:
    """A server; the folder of its socket."""
    folder = Path(tempfile.mkdtemp(prefix="ks-pg-"))
    user = NOBODY if os.getuid() == 0 else None
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    bin_, data = programs(), folder / "data"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "full_page_writes": "off",
        "shared_buffers": "16MB",
        "max_connections": "30",
    }

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [bin_ / program, "-D", data, *words],
            user=user,
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    try:
        run("initdb", "--auth=trust", "--username=test", "--encoding=UTF8", "--no-locale", "--no-sync")
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        run("pg_ctl", "start", "--wait", "--silent", "--log", str(folder / "log"), "--options", options)
        try:
            yield folder
        finally:
            run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
    finally:
        shutil.rmtree(folder)
